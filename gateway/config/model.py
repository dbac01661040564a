"""What a configuration says, as frozen values.

The docstrings below the fields are the reference: `gateway schema` prints them. What concerns one value alone is
checked by its type (`fields.py`, `quantities.py`, `addresses.py`, `http.py`); what concerns several places at once
stands in `checks.py`. Only `load` runs both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_serializer,
    model_validator,
)

from gateway.config.addresses import Host, ListenAddress, Network, SocketPath
from gateway.config.fields import (
    AT_LEAST_ONE,
    GUARDED,
    ErrorLogTarget,
    FilePath,
    Flag,
    LogTarget,
    Name,
    NonEmpty,
    Regex,
)
from gateway.config.http import (
    Attribute,
    ErrorStatus,
    Fields,
    FieldValue,
    HashKey,
    Location,
    Method,
    RedirectStatus,
    Status,
    TargetPath,
    Upgrade,
    UrlPath,
)
from gateway.config.layers import Layer, Layers, Standing, standing
from gateway.config.listeners import (
    NO_EGRESS,
    AnyListener,
    Egress,
    ForwardListener,
    HttpListener,
    Socks5Listener,
    TcpListener,
    TcpRoute,
)
from gateway.config.paths import DEFAULT_CONTROL
from gateway.config.quantities import Count, Duration, Percent, Priority, Size, WeightOrZero, Workers
from gateway.config.section import Section, or_table
from gateway.config.upstreams import Upstream
from gateway.config.values import parse_duration as _time
from gateway.config.values import parse_replacement, shown
from gateway.config.values import parse_size as _size
from gateway.documents import Wanted


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
    python_path: tuple[FilePath, ...] = ()
    """Directories in which plug-ins are looked for ("module:Name" of the kinds asgi and hooks), before those that
    Python knows. A relative path starts at the directory of the configuration file."""


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


class PathMatch(Section):
    """Which paths a route takes. Exactly one of its keys is given."""

    model_config = ConfigDict(
        json_schema_extra=or_table(pattern="^/[^?#]*$", description="A prefix; the same as { prefix = ... }."),
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
    Field(json_schema_extra=or_table(description="One upstream that gets all.")),
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
    query: Annotated[dict[NonEmpty, str], GUARDED] = {}
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
    middleware: Layers = ()
    """Layers around this route, outermost first, inside those that wrap every route: tables with a `kind`, or names of
    `middleware_sets`. `gateway middleware` lists the kinds."""

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


class MiddlewareSet(Section):
    """Layers that several routes use."""

    middleware: Annotated[tuple[Layer, ...], *AT_LEAST_ONE]
    """The layers, outermost first."""


class Config(Section):
    """The whole configuration of a gateway."""

    process: Process = Process()
    """The master and its workers."""
    log: Log = Log()
    """What is written where."""
    admin: Admin | None = None
    """The admin listener; none when absent."""
    listeners: Annotated[tuple[AnyListener, ...], *AT_LEAST_ONE]
    """Where clients connect, and what is spoken there."""
    upstreams: dict[Name, Upstream] = {}
    """Groups of origin servers, by name."""
    middleware: Layers = ()
    """Layers around everything, outermost first: also around what the gateway answers itself when no route takes a
    request."""
    middleware_sets: dict[Name, MiddlewareSet] = {}
    """Layers under a name, for the `middleware` of routes."""
    routes: tuple[Route, ...] = ()
    """Which requests go where. A request that no route takes is answered 404."""
    tcp_routes: tuple[TcpRoute, ...] = ()
    """Which TLS connections of listeners of kind "tcp" go where."""
    egress: dict[Name, Egress] = {}
    """Where clients of listeners of kind "forward" and "socks5" may go, by name."""

    @property
    def http_listeners(self) -> tuple[HttpListener, ...]:
        """Those whose requests go to routes."""
        return tuple(one for one in self.listeners if isinstance(one, HttpListener))

    @property
    def most_tunnels(self) -> int:
        """Connections of a worker's clients each of which may need another one, beside those that upstreams keep."""
        kinds = TcpListener | ForwardListener | Socks5Listener
        return sum(one.most_connections for one in self.listeners if isinstance(one, kinds))

    @property
    def egresses(self) -> dict[str, Egress]:
        """Those that listeners name, and that of listeners which name none."""
        names = (one.egress for one in self.listeners if isinstance(one, ForwardListener | Socks5Listener))
        return {name or NO_EGRESS: self.egress[name] if name is not None else Egress() for name in names}

    def tcp_routes_of(self, listener: str) -> tuple[TcpRoute, ...]:
        """Those that are for a listener."""
        return tuple(one for one in self.tcp_routes if not one.listeners or listener in one.listeners)

    def documents(self) -> Iterator[Wanted]:
        """What its layers need from URLs, each as often as it is needed."""
        for route in (None, *self.routes):
            for one in self.onion(route):
                yield from one.options.documents()

    def onion(self, route: Route | None) -> list[Standing]:
        """The layers of a route, outermost first, without those around everything; for None just those."""
        given, where = (self.middleware, "all") if route is None else (route.middleware, f"route {route.name}")
        own = iter(standing([item for item in given if not isinstance(item, str)], where))
        found: list[Standing] = []
        for item in given:
            if isinstance(item, str):
                found += standing(self.middleware_sets[item].middleware, f"set {item}")
            else:
                found.append(next(own))
        return found

    def takes_preflights(self, route: Route) -> bool:
        """Whether preflights (CORS) of what a route takes are for one of the layers around it."""
        return any(one.options.PREFLIGHTS for one in (*self.onion(None), *self.onion(route)))
