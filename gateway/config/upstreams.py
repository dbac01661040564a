"""What a configuration says of upstreams, as frozen values: who belongs to one, and how it is spoken to.

The docstrings below the fields are the reference, as in `model.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from gateway.config.addresses import DnsName, EndpointAddress, HostSent, IPAddress, IPAddressAndPort, Port
from gateway.config.fields import AT_LEAST_ONE, FilePath, Flag, NonEmpty, Secret
from gateway.config.http import CookieName, HashKey, Method, RetryOn, StatusRange, TargetPath, UrlPath
from gateway.config.quantities import Count, CountOrZero, Duration, HedgeAfter, Percentage, Size, Weight
from gateway.config.section import Section, or_table
from gateway.config.values import parse_duration as _time
from gateway.config.values import parse_size as _size


class Endpoint(Section):
    """One origin server of an upstream."""

    model_config = ConfigDict(
        json_schema_extra=or_table(description="The address alone; the same as { address = ... }."),
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
    """For the response head, all attempts and the pauses between them together; as long as they take when absent.
    For a connection of a listener of kind "tcp": for dialling, all endpoints together."""
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
    proxy_protocol: Literal["off", "v1", "v2"] = "off"
    """Whether each connection of a probe begins with a header of the PROXY protocol, before TLS as well, for endpoints
    that require one. It says that the gateway itself asks: UNKNOWN in version 1, LOCAL in version 2."""


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
