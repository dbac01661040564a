"""What a configuration says, as frozen values.

The docstrings below the fields are the reference: `gateway schema` prints them. What concerns one value alone is
checked by its type in `fields.py`; what concerns several places at once stands in `checks.py`. Only `load` runs both.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gateway.config.fields import (
    AT_LEAST_ONE,
    Attribute,
    ByteRate,
    CookieName,
    Count,
    CountOrZero,
    DnsName,
    Duration,
    EndpointAddress,
    ErrorLogTarget,
    ErrorStatus,
    Fields,
    FieldValue,
    FilePath,
    Flag,
    HashKey,
    HedgeAfter,
    Host,
    HostSent,
    IPAddress,
    IPAddressAndPort,
    ListenAddress,
    Location,
    LogTarget,
    Method,
    Name,
    Network,
    NonEmpty,
    Percent,
    Percentage,
    Port,
    Priority,
    RedirectStatus,
    Regex,
    RetryOn,
    Secret,
    Size,
    SocketPath,
    Status,
    StatusRange,
    TargetPath,
    TrustedProxy,
    Upgrade,
    UrlPath,
    Weight,
    WeightOrZero,
    Workers,
)
from gateway.config.values import parse_byte_rate as _byte_rate
from gateway.config.values import parse_duration as _time
from gateway.config.values import parse_replacement, shown
from gateway.config.values import parse_size as _size

DEFAULT_CONTROL = "/run/gateway/control.sock"


class Section(BaseModel):
    """A table of the file. An unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Process(Section):
    """The master and its workers."""

    workers: Workers = "auto"
    """How many: a number, or "auto" for the CPUs that this process may really use (affinity and cgroup quota)."""
    pid_file: FilePath | None = None
    """Where the master writes its process id. A relative path starts at the directory of the configuration file."""
    control: SocketPath = DEFAULT_CONTROL
    """The unix socket on which `gateway status`, `reload`, `stop` and the like speak to the master (mode 0600)."""
    boot_timeout: Duration = _time("10s")
    """A new generation of workers must be ready within this, else the old one goes on."""
    drain_timeout: Duration = _time("30s")
    """An old generation must be gone within this; what is still in flight then is cut."""
    heartbeat_timeout: Duration = _time("10s")
    """A worker whose event loop stands still for this long is replaced."""
    user: NonEmpty | None = None
    """When started as root: the user that the workers run as."""
    group: NonEmpty | None = None
    """When started as root: the group that the workers run as; the main group of `user` when absent."""
    cpu_affinity: Literal["auto", "off"] = "off"
    """"auto" pins each worker to a CPU of its own."""
    max_requests: Count | None = None
    """A worker is replaced after about this many requests; never when absent."""
    max_age: Duration | None = None
    """A worker is replaced at about this age; never when absent."""
    max_memory: Size | None = None
    """A worker whose private memory is above this is replaced; never when absent."""


class Log(Section):
    """What is written where."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe lines that the error log takes."""
    access: LogTarget = "stdout"
    """Where a line per request goes: "stdout", "stderr", "off", or the path of a file."""
    access_format: Literal["json", "common", "combined"] = "json"
    """How a line of the access log looks."""
    error: ErrorLogTarget = "stderr"
    """Where everything else goes: "stderr", or the path of a file."""
    error_format: Literal["text", "json"] = "text"
    """How a line of the error log looks."""


class Admin(Section):
    """The admin listener: /metrics, /live, /ready, /status. Keep it away from the public."""

    listen: ListenAddress
    """Where it listens."""


class Limits(Section):
    """What one client may ask of a listener."""

    request_line: Size = _size("8KiB")
    """The longest request line; beyond it 414 is answered."""
    headers: Size = _size("32KiB")
    """The largest block of header fields; beyond it 431 is answered."""
    header_count: Count = 100
    """The most header fields; beyond it 431 is answered."""
    body: Size = _size("1GiB")
    """The largest request body; beyond it 413 is answered."""
    connections: Count = 20_000
    """The most open connections, per worker."""
    requests_per_connection: Count = 100_000
    """A connection is closed after this many requests."""


class ListenerTimeouts(Section):
    """How long a listener waits for its clients."""

    head: Duration = _time("10s")
    """For the whole request head."""
    body_idle: Duration = _time("30s")
    """Between two reads of a request body."""
    body_min_rate: ByteRate = _byte_rate("1KiB/s")
    """A request body slower than this is cut off, after a grace of 10 s; "0B/s" lets any pass."""
    keep_alive: Duration = _time("75s")
    """For the next request on an idle connection."""
    write_idle: Duration = _time("30s")
    """For a client that takes nothing of its response."""


class Listener(Section):
    """A place where clients connect."""

    name: Name
    """Its name in logs, metrics and messages."""
    kind: Literal["http"] = "http"
    """What is spoken here."""
    listen: ListenAddress
    """The address."""
    backlog: Count = 4096
    """How many connections may wait to be accepted, per worker. The kernel cuts it to net.core.somaxconn."""
    limits: Limits = Limits()
    """What one client may ask."""
    timeouts: ListenerTimeouts = ListenerTimeouts()
    """How long to wait for clients."""
    trusted_proxies: tuple[TrustedProxy, ...] = ()
    """Whose word about the client is believed: networks or addresses, and "unix" for whoever connects by a unix socket.
    The list of addresses in X-Forwarded-For or Forwarded is walked from its end to the first that is not one of
    these."""
    forwarded: Literal["x-forwarded", "rfc7239", "both", "off"] = "x-forwarded"
    """How the client is introduced to endpoints, and in which fields a trusted proxy is believed: X-Forwarded-For,
    -Host and -Proto; Forwarded (RFC 7239); both; or none."""
    path_policy: Literal["reject", "pass"] = "reject"
    """What happens to a path that can be read in two ways (%2F, a backslash, dot segments, //, %00, ";", a broken
    escape): "reject" answers 400; "pass" finds the route by the normalised path and forwards the path as it came."""
    reason_header: Flag = False
    """Whether answers of the gateway itself carry their reason code in an x-gateway-reason field."""
    error_pages: dict[ErrorStatus, FilePath] = {}
    """Files that are sent as the body of the gateway's own errors, by status ("404") or class ("4xx", "5xx"). A
    relative path starts at the directory of the configuration file."""


def _or_table(**text: object) -> Any:
    """For the JSON Schema of a section that may also be written as a bare string."""

    def change(schema: dict[str, Any]) -> None:
        table = dict(schema)
        schema.clear()
        schema["anyOf"] = [{"type": "string", **text}, table]

    return change


class Endpoint(Section):
    """One origin server of an upstream."""

    model_config = ConfigDict(
        json_schema_extra=_or_table(description="The address alone; the same as { address = ... }."),
    )

    address: EndpointAddress
    """Where it listens. A path in it goes before that of each request: with "http://app:8080/base", /x becomes
    /base/x."""
    weight: Weight = 1
    """Its share of the requests, relative to the other endpoints."""
    max_requests: Count | None = None
    """The most requests in flight to it, from all workers together; any number when absent."""
    backup: Flag = False
    """Whether it is asked only when none of the others is ready."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value

    @property
    def base(self) -> str:
        """The path in its address, "" for none."""
        return self.address.base


class UpstreamTimeouts(Section):
    """How long to wait for an endpoint."""

    connect: Duration = _time("3s")
    """For the connection."""
    response: Duration = _time("30s")
    """For the first byte of the response head."""
    total: Duration | None = None
    """For the response head, all attempts and the pauses between them together; as long as they take when absent."""
    idle: Duration = _time("60s")
    """Between two reads or writes while a body moves."""
    tunnel_idle: Duration = _time("1h")
    """For a WebSocket or another tunnel through which nothing moves."""


class Pool(Section):
    """The connections that a worker keeps to an endpoint."""

    max_connections: Count = 1024
    """The most connections per worker and endpoint; further requests queue."""
    max_idle: CountOrZero = 256
    """The most idle connections kept per worker and endpoint."""
    idle_timeout: Duration = _time("60s")
    """An idle connection is closed after this."""
    queue_timeout: Duration = _time("2s")
    """A request that waited longer than this for a connection is answered 503."""
    max_age: Duration | None = None
    """A connection older than this takes no further request; any age when absent."""


class ProbeTls(Section):
    """How a probe speaks TLS."""

    server_name: NonEmpty | None = None
    """The name in the certificate, and the one asked for (SNI). The endpoint's host when absent."""
    ca: FilePath | None = None
    """A file with the certificates that are trusted; the system's when absent. A relative path starts at the directory
    of the configuration file."""
    verify: Flag = True
    """Whether the certificate is checked at all."""


class Health(Section):
    """Probes of each endpoint, made by one process and believed by all."""

    kind: Literal["http", "tcp"] = "http"
    """"http" asks for a path, "tcp" only connects."""
    path: UrlPath = "/"
    """What is asked for."""
    interval: Duration = _time("5s")
    """Between two probes of an endpoint."""
    timeout: Duration = _time("2s")
    """For one probe."""
    unhealthy_after: Count = 2
    """Failed probes in a row after which an endpoint is down."""
    healthy_after: Count = 2
    """Passed probes in a row after which it is back, on probation."""
    expect_status: tuple[StatusRange, ...] = ("200-399",)
    """Statuses that pass: "200", or a range such as "200-399"."""
    expect_body: NonEmpty | None = None
    """Text that must occur in the first 64 KiB of the body; any body when absent."""
    port: Port | None = None
    """Where probes go instead of the endpoint's own port."""
    tls: ProbeTls | None = None
    """Probes go over TLS when this is given; a table, which may be empty."""


class Outlier(Section):
    """When traffic takes an endpoint out for a time: failures are connections refused or cut, timeouts, malformed
    responses, and 502, 503 and 504."""

    consecutive_failures: Count = 3
    """Failures in a row, of all workers together, after which an endpoint is ejected."""
    eject_for: Duration = _time("10s")
    """How long, times the number of ejections of late."""
    max_eject_for: Duration = _time("5m")
    """How long at the most. Being well for this long makes earlier ejections forgotten."""
    max_ejected: Percentage = 0.5
    """The part of the group that may be ejected at once; one may always be, and never the last that is ready."""
    failure_ratio: Percentage | None = None
    """An endpoint is ejected as well when this part of its exchanges in the last `window` failed; not counted when
    absent."""
    min_requests: Count = 20
    """Exchanges in a window below which its ratio says nothing."""
    window: Duration = _time("10s")
    """Over how long the ratio is taken."""


class Retry(Section):
    """When a request is tried again. One of which nothing was sent always is, on each endpoint there is; these settings
    are about the others, and only until the first byte of an answer has reached the client."""

    attempts: CountOrZero = 2
    """The most further attempts."""
    on: tuple[RetryOn, ...] = ("connect", "reset", "timeout")
    """What is tried again: "connect" (no connection; always), "reset" (cut before an answer), "timeout" (no answer in
    time), "malformed" (an answer that is not HTTP), and the statuses 429, 500, 502, 503 and 504."""
    methods: tuple[Method, ...] = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")
    """Requests that may be made twice. The default are those that are idempotent (RFC 9110, section 9.2.2)."""
    budget: Percentage = 0.2
    """Retries under way may be this part of the requests in flight, from all workers together; at least three may."""
    replay_body: Size = _size("64KiB")
    """A request body up to this size is kept while it is sent, so that it can be sent again; a larger one can't be."""
    backoff: Duration = _time("25ms")
    """The longest pause before the first retry; doubled with each further one up to ten times this. The pause is drawn
    from 0 to there."""
    per_try_timeout: Duration | None = None
    """For the response head of each attempt; as long as `timeouts.response` when absent."""


class Hedge(Section):
    """A second attempt at another endpoint while the first is still silent; the first answer is taken. For methods that
    may be retried, without a body."""

    after: HedgeAfter = "p95"
    """When: a percentile of the time that answers took of late, or a duration."""
    budget: Percentage = 0.05
    """The most second attempts, relative to requests."""


class Sticky(Section):
    """A cookie by which a client stays with its endpoint. It is signed and names no address."""

    cookie: CookieName
    """Its name."""
    secret: Secret
    """What it is signed with: a string, { env = "NAME", default = "TEXT" } or { file = "PATH" }."""
    path: TargetPath = "/"
    """The paths for which clients send it."""
    max_age: Duration | None = None
    """How long clients keep it; for their session when absent."""
    same_site: Literal["lax", "strict", "none"] = "lax"
    """Whether clients send it in requests that come from other sites."""
    secure: Literal["auto", "always", "never"] = "auto"
    """Whether clients send it over TLS only. "auto": when it was set over TLS."""


class Queue(Section):
    """Where requests wait when the upstream has as many as it may have (`max_requests`)."""

    size: Count = 100
    """The most that wait, in all workers together; further ones are refused with 503."""
    timeout: Duration = _time("2s")
    """For how long; then they are refused with 503."""


class Breaker(Section):
    """When an upstream as a whole gets no requests for a time, because most of them fail."""

    failure_ratio: Percentage = 0.5
    """The part of the exchanges in the last `window` that must fail."""
    min_requests: Count = 20
    """Exchanges in a window below which the ratio says nothing."""
    window: Duration = _time("10s")
    """Over how long the ratio is taken."""
    open_for: Duration = _time("10s")
    """How long nothing is sent, times the number of times of late that it came to this."""
    max_open_for: Duration = _time("5m")
    """How long at the most."""
    trials: Count = 3
    """Requests that must succeed after that, one at a time, before all are let through again."""


class Discovery(Section):
    """Where the endpoints of an upstream are looked up, again and again. What was found last holds while looking
    fails."""

    kind: Literal["dns", "file"]
    """"dns" asks for addresses (A and AAAA) or services (SRV), "file" reads a list."""
    name: DnsName | None = None
    """dns: the host whose addresses are the endpoints."""
    port: Port | None = None
    """dns: the port of each."""
    srv: DnsName | None = None
    """dns: instead of name and port, a service such as "_http._tcp.app.internal". Its targets of lower priority are
    backups, its weights those of the endpoints."""
    family: Literal["any", "ipv4", "ipv6"] = "any"
    """dns: which addresses are taken."""
    resolver: tuple[IPAddressAndPort, ...] = ()
    """dns: whom to ask, as "10.0.0.53" or "10.0.0.53:5353"; the system's resolvers when empty."""
    path: FilePath | None = None
    """file: a TOML or JSON file with an array of endpoints, as `endpoints` takes them, by the key "endpoints" or, in
    JSON, by itself. A relative path starts at the directory of the configuration file."""
    refresh: Duration = _time("30s")
    """Looked up again after this, or when the answer says so (TTL), whichever is sooner; but not within a second. A
    file is read again when it has changed."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        given = {key for key in ("name", "port", "srv", "path", "resolver") if getattr(self, key)}
        if self.kind == "file":
            if given != {"path"}:
                raise ValueError('kind = "file" goes with path')
        elif given - {"resolver"} not in ({"name", "port"}, {"srv"}):
            raise ValueError('kind = "dns" goes with name and port, or with srv')
        return self


class Upstream(Section):
    """A group of endpoints that all give the same answers."""

    balance: Literal[
        "round_robin",
        "weighted_lvs",
        "random",
        "least_requests",
        "power_of_two",
        "peak_ewma",
        "consistent_hash",
    ] = "round_robin"
    """How the endpoint for a request is chosen: "round_robin" (smooth, by weight), "weighted_lvs" (in bursts, as LVS),
    "random" (by weight), "least_requests" and "power_of_two" (by requests in flight from all workers), "peak_ewma" (by
    latency too), "consistent_hash" (by `hash_key`)."""
    hash_key: HashKey = "client_ip"
    """What "consistent_hash" goes by: "client_ip", "path", "host", "header:NAME", "cookie:NAME" or "query:NAME"."""
    host: HostSent = "preserve"
    """The Host field that endpoints get: "preserve" for the client's, "endpoint" for their own address, or a host."""
    endpoints: Annotated[tuple[Endpoint, ...], *AT_LEAST_ONE] = ()
    """The origin servers; each a bare address or a table. Exactly one of this and `discovery` is given."""
    discovery: Discovery | None = None
    """Where the origin servers are looked up instead."""
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    """How long to wait for an endpoint."""
    pool: Pool = Pool()
    """The connections kept to each endpoint."""
    health: Health | None = None
    """Probes; none when absent, and health is learned from traffic alone."""
    outlier: Outlier = Outlier()
    """When traffic takes an endpoint out."""
    slow_start: Duration | None = None
    """The time over which an endpoint that came back gets its whole weight; at once when absent."""
    retry: Retry = Retry()
    """When a request is tried again."""
    hedge: Hedge | None = None
    """A second attempt while the first is silent; none when absent."""
    sticky: Sticky | None = None
    """A cookie that keeps a client with its endpoint; none when absent."""
    max_requests: Count | None = None
    """The most requests in flight to the whole group, from all workers together; any number when absent."""
    queue: Queue | None = None
    """Where requests wait while the group, or each of its endpoints, has as many as it may have. When absent nobody
    waits: they are refused with 503."""
    breaker: Breaker | None = None
    """When the group gets no requests for a time; none when absent."""
    source_addresses: tuple[IPAddress, ...] = ()
    """The addresses of this machine from which connections are made, in turns; the kernel's choice when empty. Each
    has some 28,000 ports for connections to one endpoint."""

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `endpoints` where they are looked up: none at all is not what may be written."""
        written: dict[str, Any] = write(self)
        if self.discovery is not None:
            del written["endpoints"]
        return written


class PathMatch(Section):
    """Which paths a route takes. Exactly one of its keys is given."""

    model_config = ConfigDict(
        json_schema_extra=_or_table(pattern="^/[^?#]*$", description="A prefix; the same as { prefix = ... }."),
    )

    exact: UrlPath | None = None
    """This path only."""
    prefix: UrlPath | None = None
    """On a segment boundary: /v1 takes /v1 and /v1/x, not /v1x."""
    regex: Regex | None = None
    """A regular expression, anchored at the start of the decoded path."""

    @property
    def kind(self) -> Literal["exact", "prefix", "regex"]:
        if self.exact is not None:
            return "exact"
        return "prefix" if self.prefix is not None else "regex"

    @property
    def value(self) -> str:
        return self.exact or self.prefix or self.regex or ""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"prefix": value}
        # An unknown key is reported as such; that one of the three is missing would be the same mistake told twice.
        if isinstance(value, dict) and value.keys() <= cls.model_fields.keys() and len(value) != 1:
            raise ValueError("expected exactly one of exact, prefix and regex")
        return value

    @model_serializer
    def _written(self) -> dict[str, str]:
        return {self.kind: self.value}


class Respond(Section):
    """An answer that the gateway gives itself."""

    status: Status = 200
    """The status code."""
    body: str = ""
    """The body, sent as UTF-8."""
    content_type: FieldValue = "text/plain; charset=utf-8"
    """The Content-Type field."""
    headers: Fields = {}
    """Further header fields."""


class Redirect(Section):
    """An answer that sends the client elsewhere."""

    to: Location
    """The Location: a path on the same host, or a URL."""
    status: RedirectStatus = 308
    """301, 302, 303, 307 or 308. With 307 and 308 the client repeats its method and body."""
    keep_query: Flag = False
    """Whether the query of the request is added to the Location."""


class Rewrite(Section):
    """How the path that endpoints get is made from the client's. Location, Content-Location, Refresh and Set-Cookie of
    the response are mapped back for strip_prefix, add_prefix and the path in an endpoint's address."""

    strip_prefix: Flag = False
    """Whether the prefix that is the route's path is taken off. The endpoint is told it in X-Forwarded-Prefix."""
    add_prefix: TargetPath | None = None
    """A path that goes before, after strip_prefix."""
    replace_path: TargetPath | None = None
    """A path that takes the place of the whole. The query is kept."""
    regex: Regex | None = None
    """A regular expression, anchored at the start of the path as the client wrote it, with its escapes and without its
    query. What it matches is replaced by `to`; a path that it does not match is left alone."""
    to: str | None = None
    """What a match of `regex` becomes, with its groups as \\1 or \\g<name>. A query in it goes before the client's."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        kinds = {
            "strip_prefix or add_prefix": self.strip_prefix or self.add_prefix is not None,
            "replace_path": self.replace_path is not None,
            "regex": self.regex is not None or self.to is not None,
        }
        given = [kind for kind, is_given in kinds.items() if is_given]
        if len(given) != 1:
            one = "one of strip_prefix, add_prefix, replace_path, and regex with to"
            raise ValueError(f"expected {one}" + (f", not both {given[0]} and {given[1]}" if given else ""))
        if (self.regex is None) != (self.to is None):
            raise ValueError("regex and to belong together")
        if self.regex is not None and self.to is not None:
            parse_replacement(self.to, re.compile(self.regex))
        return self


class Share(Section):
    """One of several upstreams that share the requests of a route."""

    name: str
    """The upstream."""
    weight: WeightOrZero = 1
    """Its part of the requests, relative to the others."""


def _shares(value: Any) -> Any:
    if isinstance(value, str):
        return [{"name": value}]
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected the name of an upstream or an array of tables, got {shown(value)}")
    return value


def _shares_written(shares: tuple[Share, ...]) -> Any:
    return shares[0].name if len(shares) == 1 else [share.model_dump() for share in shares]


Shares = Annotated[
    tuple[Share, ...],
    BeforeValidator(_shares),
    AT_LEAST_ONE[0],
    PlainSerializer(_shares_written),
    Field(json_schema_extra=_or_table(description="One upstream that gets all.")),
]


class Canary(Section):
    """Requests of a route that go to another upstream because they say so."""

    upstream: str
    """Where they go."""
    by: Attribute
    """What says so: "header:NAME" or "cookie:NAME"."""
    value: NonEmpty = "always"
    """What it must be."""


class Mirror(Section):
    """Copies of requests for another upstream. Nobody waits for what becomes of them: when there are too many, or a
    body is too large, there is no copy, and that is counted."""

    upstream: str
    """Where they go. Its answers are thrown away."""
    percent: Percent = 100.0
    """How many of a hundred requests are copied, by chance."""
    body: Size = _size("64KiB")
    """Requests with a larger body are not copied."""
    max_requests: Count = 64
    """The most copies under way, per worker."""


class Route(Section):
    """Which requests go where. All the predicates that are given must hold."""

    name: Name
    """Its name in logs, metrics and messages."""
    hosts: tuple[Host, ...] = ()
    """"example.com", or "*.example.com" for one or more labels below it. Any host when empty."""
    path: PathMatch | None = None
    """A bare string is a prefix. Any path when absent."""
    methods: tuple[Method, ...] = ()
    """Any method when empty."""
    headers: Fields = {}
    """Header fields that must be there with just this value."""
    query: dict[NonEmpty, str] = {}
    """Query parameters that must be there with just this value."""
    client_ip: tuple[Network, ...] = ()
    """The client must be in one of these networks. Any client when empty."""
    priority: Priority = 0
    """A higher one goes before the usual precedence of hosts, paths and predicates."""
    upstream: Shares | None = None
    """The upstream that answers, or an array of upstreams with weights that share the requests. Exactly one of this,
    `respond` and `redirect` is given."""
    split_key: HashKey | None = None
    """With several upstreams: what decides, so that the same always comes to the same one, and to another only when
    that one's weight has grown: "client_ip", "path", "host", "header:NAME", "cookie:NAME" or "query:NAME". Chance
    decides when absent, and for a request that has no such thing."""
    canary: Canary | None = None
    """Requests that go to another upstream because they say so."""
    fallback: str | None = None
    """The upstream that is used when no endpoint of the other is ready."""
    mirror: Mirror | None = None
    """Copies of requests for another upstream."""
    respond: Respond | None = None
    """The answer itself."""
    redirect: Redirect | None = None
    """Where the client is sent instead."""
    rewrite: Rewrite | None = None
    """How the path is changed on its way to the upstream. The same path when absent."""
    upgrade: Upgrade = ("websocket",)
    """Which protocols a client may change to (Upgrade), as tokens such as "websocket" or "foo/2", or "any". None when
    empty."""
    error_pages: dict[ErrorStatus, FilePath] = {}
    """As on the listener; these go first."""

    @property
    def sides(self) -> tuple[str, ...]:
        """The upstreams that a request may be chosen for, each once: the shares that have a weight, then the canary."""
        shares = [share.name for share in self.upstream or () if share.weight]
        return tuple(dict.fromkeys([*shares, *([self.canary.upstream] if self.canary is not None else [])]))

    @property
    def upstreams(self) -> tuple[str, ...]:
        """Every upstream that may answer, each once; those of the shares first."""
        shares = [share.name for share in self.upstream or ()]
        others = [self.canary.upstream if self.canary is not None else None, self.fallback]
        return tuple(dict.fromkeys([*shares, *filter(None, others)]))

    @property
    def specificity(self) -> tuple[int, int, int, int]:
        """What sorts the routes of one path: methods before none, then more headers, more queries, clients before
        none."""
        return 0 if self.methods else 1, -len(self.headers), -len(self.query), 0 if self.client_ip else 1


class Config(Section):
    """The whole configuration of a gateway."""

    process: Process = Process()
    """The master and its workers."""
    log: Log = Log()
    """What is written where."""
    admin: Admin | None = None
    """The admin listener; none when absent."""
    listeners: Annotated[tuple[Listener, ...], *AT_LEAST_ONE]
    """Where clients connect."""
    upstreams: dict[Name, Upstream] = {}
    """Groups of origin servers, by name."""
    routes: tuple[Route, ...] = ()
    """Which requests go where. A request that no route takes is answered 404."""
