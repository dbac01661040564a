"""What a configuration says, as frozen values.

The docstrings below the fields are the reference: `gateway schema` prints them. What concerns one value alone is
checked by its type in `fields.py`; what concerns several places at once stands in `checks.py`. Only `load` runs both.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, model_serializer, model_validator

from gateway.config.fields import (
    AT_LEAST_ONE,
    Count,
    CountOrZero,
    Duration,
    EndpointAddress,
    ErrorLogTarget,
    Fields,
    FieldValue,
    FilePath,
    Host,
    ListenAddress,
    LogTarget,
    Method,
    Name,
    Network,
    NonEmpty,
    Priority,
    Regex,
    Size,
    SocketPath,
    Status,
    UrlPath,
    Weight,
    Workers,
)
from gateway.config.values import parse_duration as _time
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
    """Where it listens."""
    weight: Weight = 1
    """Its share of the requests, relative to the other endpoints."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"address": value} if isinstance(value, str) else value


class UpstreamTimeouts(Section):
    """How long to wait for an endpoint."""

    connect: Duration = _time("3s")
    """For the connection."""
    response: Duration = _time("30s")
    """For the first byte of the response head."""
    idle: Duration = _time("60s")
    """Between two reads or writes while a body moves."""


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


class Upstream(Section):
    """A group of endpoints that all give the same answers."""

    balance: Literal["round_robin"] = "round_robin"
    """How the endpoint for a request is chosen. "round_robin" is the smooth weighted kind."""
    endpoints: Annotated[tuple[Endpoint, ...], *AT_LEAST_ONE]
    """The origin servers; each a bare address or a table."""
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    """How long to wait for an endpoint."""
    pool: Pool = Pool()
    """The connections kept to each endpoint."""


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
    upstream: str | None = None
    """The upstream that answers. Either this or `respond` is given."""
    respond: Respond | None = None
    """The answer itself. Either this or `upstream` is given."""


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
