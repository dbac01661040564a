"""The listeners of a configuration: places where clients connect, and what is spoken there.

Each kind is a section of its own in the table `LISTENERS`; a listener that names none speaks HTTP.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.config.addresses import (
    Host,
    IPAddress,
    IPAddressAndPort,
    ListenAddress,
    Network,
    PortRange,
    TargetNetwork,
    TrustedProxy,
)
from gateway.config.fields import FilePath, Flag, Name
from gateway.config.http import ErrorStatus, FieldValue
from gateway.config.layers import UNKNOWN_KIND
from gateway.config.quantities import ByteRate, Count, CountOrZero, Duration, Size
from gateway.config.section import Section
from gateway.config.values import parse_byte_rate as _byte_rate
from gateway.config.values import parse_duration as _time
from gateway.config.values import parse_size as _size
from gateway.config.values import shown


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


class Accepting(Section):
    """The PROXY protocol (version 1 and 2), in which a proxy in front says whose connection it hands on."""

    accept: Literal["off", "optional", "require"] = "off"
    """Whether a connection from one of `from` begins with such a header: never, perhaps, or always. The address in it
    is the client's from then on. With "require" nobody else may connect."""
    networks: tuple[TrustedProxy, ...] = Field(default=(), alias="from")
    """Whose header is believed: networks or addresses, and "unix" for whoever connects by a unix socket. What others
    send is read as what the listener speaks."""
    timeout: Duration = _time("5s")
    """How long the header may take. With "optional" one that has not begun by then does not come."""


class Passing(Accepting):
    """The PROXY protocol (version 1 and 2), in both directions."""

    send: Literal["off", "v1", "v2"] = "off"
    """Whether the endpoint is told in such a header whose connection it gets."""


class Listener(Section):
    """A place where clients connect."""

    DATAGRAMS: ClassVar[bool] = False
    """Whether it takes UDP datagrams, and not connections."""
    IS_HTTP: ClassVar[bool] = False
    """Whether what it takes are requests."""
    FILES: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Where the path of a file stands."""

    name: Name
    """Its name in logs, metrics and messages."""
    kind: str
    """What is spoken here."""
    listen: ListenAddress
    """The address."""
    backlog: Count = 4096
    """How many connections may wait to be accepted, per worker. The kernel cuts it to net.core.somaxconn."""
    max_connections_per_client: Count | None = None
    """The most connections, or sessions, that one client has open at a time, over all workers. No limit when absent.
    Of IPv6 a client is a /64."""
    on_reload: Literal["drain", "close"] = "drain"
    """What becomes of tunnels when a reload replaces the workers: "drain" lets them go on until `process.drain_timeout`
    is over, "close" ends them at once."""

    @property
    @abstractmethod
    def most_connections(self) -> int:
        """Per worker."""

    @property
    def most_descriptors(self) -> int:
        """Per worker, beside those of connections to upstreams and destinations."""
        return self.most_connections


class HttpListener(Listener):
    """HTTP/1.1, for routes."""

    IS_HTTP: ClassVar[bool] = True

    kind: Literal["http"] = "http"
    """What is spoken here."""
    limits: Limits = Limits()
    """What one client may ask."""
    timeouts: ListenerTimeouts = ListenerTimeouts()
    """How long to wait for clients."""
    proxy_protocol: Accepting = Accepting()
    """Whether a proxy in front says whose connection it hands on."""
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

    @property
    def most_connections(self) -> int:
        return self.limits.connections


class TcpListener(Listener):
    """Connections of any protocol, handed on to an upstream as they are."""

    kind: Literal["tcp"] = "tcp"
    """What is spoken here."""
    upstream: str | None = None
    """Where connections go: those that no entry of `tcp_routes` takes, where there are any. Connections are what
    `least_requests` and the like count here."""
    idle_timeout: Duration = _time("10m")
    """A connection on which nothing is sent either way for this long is closed."""
    max_duration: Duration | None = None
    """A connection is closed after this time. Any time when absent."""
    bandwidth: ByteRate | None = None
    """What a connection may send in each direction. Any amount when absent."""
    max_connections: Count = 20_000
    """The most open connections, per worker."""
    proxy_protocol: Passing = Passing()
    """Whether a proxy in front says whose connection it hands on, and whether the endpoint is told."""
    hello_timeout: Duration = _time("10s")
    """With `tcp_routes`: how long the client's first message may take. Who sends no TLS ClientHello, or nothing at all
    in this time, goes to `upstream`; who has sent a part of one by then is cut off."""

    @property
    def most_connections(self) -> int:
        return self.max_connections


class Telling(Section):
    """The PROXY protocol, version 2."""

    send: Literal["off", "v2"] = "off"
    """Whether each datagram tells the endpoint in such a header whose it is."""


class UdpListener(Listener):
    """Datagrams, handed on to an upstream. All that come from one address and port are a session; what its endpoint
    answers goes back to there."""

    DATAGRAMS: ClassVar[bool] = True

    kind: Literal["udp"] = "udp"
    """What is spoken here."""
    upstream: str
    """Where datagrams go. A session keeps its endpoint."""
    idle_timeout: Duration = _time("30s")
    """A session in which nothing is sent either way for this long is over."""
    max_sessions: Count = 10_000
    """The most sessions, per worker. A further one takes the place of the one that was idle for longest."""
    max_responses: Count | None = None
    """A session is over when so many answers have come to each of its datagrams: 1 for DNS. When absent it ends by its
    idle_timeout."""
    proxy_protocol: Telling = Telling()
    """Whether the endpoint is told who the client is."""

    @property
    def most_connections(self) -> int:
        return self.max_sessions


class Auth(Section):
    """Who may use a proxy."""

    htpasswd: FilePath
    """A file of users and hashed passwords, as for the layer `basic_auth`. Its changes are seen."""
    realm: FieldValue = "proxy"
    """What people are told that the password is for."""


class ForwardListener(Listener):
    """HTTP/1.1 as a forward proxy: requests in absolute-form (`GET http://host/`), and CONNECT tunnels."""

    FILES = (("auth", "htpasswd"),)
    IS_HTTP = True

    kind: Literal["forward"] = "forward"
    """What is spoken here."""
    auth: Auth | None = None
    """Who may use it. Anybody when absent."""
    clients: tuple[TrustedProxy, ...] = ()
    """Whose clients may use it: networks or addresses, and "unix" for whoever connects by a unix socket; those of any
    when empty. Where a PROXY header is believed the address in it counts."""
    egress: str | None = None
    """Where its clients may go: one of `[egress]`. Web ports of public addresses when absent."""
    connect_timeout: Duration = _time("10s")
    """For a connection to a destination, its name being looked up included."""
    response_timeout: Duration = _time("60s")
    """For the head of a response."""
    idle_timeout: Duration = _time("10m")
    """A tunnel through which nothing is sent either way for this long is closed; so is an exchange."""
    max_idle: CountOrZero = 256
    """The most connections to origins that are kept when they are idle, to all origins together, per worker. A further
    one takes the place of the one that was idle for longest."""
    bandwidth: ByteRate | None = None
    """What a tunnel, or the bodies of a request, may send in each direction. Any amount when absent."""
    forwarded: Literal["x-forwarded", "rfc7239", "both", "off"] = "off"
    """How origins are told who the client is, for requests that are not tunnels."""
    limits: Limits = Limits()
    """What one client may ask."""
    timeouts: ListenerTimeouts = ListenerTimeouts()
    """How long to wait for clients."""
    proxy_protocol: Accepting = Accepting()
    """Whether a proxy in front says whose connection it hands on."""
    reason_header: Flag = False
    """Whether answers of the gateway itself carry their reason code in an x-gateway-reason field."""

    @property
    def most_connections(self) -> int:
        return self.limits.connections


class Socks5Listener(Listener):
    """SOCKS 5 (RFC 1928): CONNECT and, if it is let, UDP ASSOCIATE."""

    FILES = (("auth", "htpasswd"),)

    kind: Literal["socks5"] = "socks5"
    """What is spoken here."""
    auth: Auth | None = None
    """Who may use it (RFC 1929). Anybody when absent."""
    clients: tuple[TrustedProxy, ...] = ()
    """Whose clients may use it: networks or addresses, and "unix" for whoever connects by a unix socket; those of any
    when empty. Where a PROXY header is believed the address in it counts."""
    egress: str | None = None
    """Where its clients may go: one of `[egress]`. Web ports of public addresses when absent."""
    udp_associate: Flag = False
    """Whether datagrams are relayed, too."""
    udp_address: IPAddress | None = None
    """The address that clients are told to send datagrams to, where they reach this machine by another one than it
    knows: behind a NAT that leaves ports as they are. The one that they have connected to when absent."""
    handshake_timeout: Duration = _time("10s")
    """For each step of the handshake."""
    connect_timeout: Duration = _time("10s")
    """For a connection to a destination, its name being looked up included."""
    idle_timeout: Duration = _time("10m")
    """A tunnel through which nothing is sent either way for this long is closed."""
    bandwidth: ByteRate | None = None
    """What a tunnel may send in each direction. Any amount when absent."""
    max_connections: Count = 20_000
    """The most open connections, per worker."""
    proxy_protocol: Accepting = Accepting()
    """Whether a proxy in front says whose connection it hands on."""

    @property
    def most_connections(self) -> int:
        return self.max_connections

    @property
    def most_descriptors(self) -> int:
        # Of an association also the socket that the client sends to, and one for the other family of destinations.
        return self.max_connections * (3 if self.udp_associate else 1)


LISTENERS: dict[str, type[Listener]] = {
    "http": HttpListener,
    "tcp": TcpListener,
    "udp": UdpListener,
    "forward": ForwardListener,
    "socks5": Socks5Listener,
}


def listener_kind(written: Any) -> type[Listener] | None:
    """The section of a listener that is written so; None when there is no such kind."""
    kind = written.get("kind", "http") if isinstance(written, dict) else None
    return LISTENERS.get(kind) if isinstance(kind, str) else None


def _listener(value: Any, info: ValidationInfo) -> Listener:
    if isinstance(value, Listener):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"expected a table, got {shown(value)}")
    kind = listener_kind(value)
    if kind is None:
        context = {"kind": value["kind"], "known": sorted(LISTENERS), "of": "listener"}
        raise PydanticCustomError(UNKNOWN_KIND, "unknown kind", context)
    return kind.model_validate(value, context=info.context)


# What stands for a listener in the JSON Schema until `dump.schema` puts all kinds there.
SCHEMA = {"$comment": "a listener"}

AnyListener = Annotated[
    Listener, PlainValidator(_listener), PlainSerializer(lambda one: one.model_dump()), WithJsonSchema(SCHEMA)
]


class TcpRoute(Section):
    """TLS connections that go by the name their client asks for (SNI). They are not decrypted."""

    name: Name
    """Its name in logs and messages."""
    listeners: tuple[Name, ...] = ()
    """The listeners of kind "tcp" that it is for. All of them when empty."""
    sni: tuple[Host, ...]
    """"example.com", or "*.example.com" for one or more labels below it. An exact name goes before a wildcard, a longer
    one before a shorter one."""
    upstream: str
    """Where they go."""


# What stands in `allow` for all that may be reached without it.
PUBLIC = "public"
# What the egress of listeners that name none is called, in metrics and where it counts something.
NO_EGRESS = "-"


class Egress(Section):
    """Where clients of a forward proxy may go. Judged is the address that is dialled, after its name was looked up; and
    the gateway's own listeners are never one."""

    allow: tuple[TargetNetwork, ...] = ()
    """Networks they may go to, and "public" for everywhere but loopback, private, link-local, multicast, reserved and
    metadata addresses, in whatever form these are written. When empty: "public" alone. A network that is listed here
    may be one of those."""
    deny: tuple[Network, ...] = ()
    """Networks they may not go to, whatever `allow` says."""
    ports: tuple[PortRange, ...] = ("80", "443")
    """Ports they may go to: 443, or "1024-65535"."""
    resolver: IPAddressAndPort | None = None
    """The name server that is asked; what this machine asks when absent."""
    max_tunnels_per_client: Count | None = None
    """The most tunnels that one client has open at a time, over all workers."""
    max_tunnels_per_user: Count | None = None
    """The same for one user."""
    max_bytes: Size | None = None
    """A tunnel is closed after so many bytes, of both directions together; so is a request through a forward proxy."""
    max_duration: Duration | None = None
    """The same after this time."""
    window: Duration = _time("1h")
    """The time for which the quotas are."""
    bytes_per_client: Size | None = None
    """The quota of bytes of one client in a `window`, over all workers. It comes back evenly."""
    bytes_per_user: Size | None = None
    """The same for one user."""
    time_per_client: Duration | None = None
    """The quota of time in tunnels and requests of one client in a `window`: two at a time use it up twice as fast."""
    time_per_user: Duration | None = None
    """The same for one user."""
