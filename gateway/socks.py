"""SOCKS 5 on the wire (RFC 1928), with user names and passwords (RFC 1929). Pure.

Each `read_` function is given all that came since the message before. It returns the message and where it ends, None
while it isn't whole, and raises Malformed as soon as it can't become one.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from gateway.errors import GatewayError

VERSION = 5
_PASSWORD_VERSION = 1
# Methods (section 3).
NO_AUTH, PASSWORD, NONE_FITS = 0x00, 0x02, 0xFF
# Commands (section 4).
CONNECT, BIND, UDP_ASSOCIATE = 1, 2, 3
_IPV4, _NAME, _IPV6 = 1, 3, 4
_SIZES = {_IPV4: 4, _IPV6: 16}
# Replies (section 6).
SUCCEEDED = 0
FAILURE = 1
NOT_ALLOWED = 2
NETWORK_UNREACHABLE = 3
HOST_UNREACHABLE = 4
REFUSED = 5
EXPIRED = 6
COMMAND_UNKNOWN = 7
ADDRESS_TYPE_UNKNOWN = 8

class Malformed(GatewayError):
    """A message that must not be read.

    reason: a code of the table in `reasons.py`; reply: the code with which a request is answered.
    """

    def __init__(self, message: str, reason: str = "socks_malformed", reply: int = FAILURE) -> None:
        super().__init__(message)
        self.reason = reason
        self.reply = reply


class Greeting(NamedTuple):
    methods: bytes


class Credentials(NamedTuple):
    user: bytes
    password: bytes


class Request(NamedTuple):
    """host: an address, or a name as it came, with what is not UTF-8 replaced."""

    command: int
    host: str
    port: int


class Datagram(NamedTuple):
    """What stands before the data of a datagram (section 7). fragment: 0 for one that stands alone; start: where the
    data begins."""

    fragment: int
    host: str
    port: int
    start: int


def read_greeting(data: bytes) -> tuple[Greeting, int] | None:
    if data[:1] not in (b"", b"\x05"):
        raise Malformed(f"it begins with {_spoken(data)}", "socks_version")
    if len(data) < 2:
        return None
    end = 2 + data[1]
    return (Greeting(data[2:end]), end) if len(data) >= end else None


def read_credentials(data: bytes) -> tuple[Credentials, int] | None:
    """RFC 1929, section 2. Who the empty ones belong to is not asked here."""
    if data[:1] not in (b"", b"\x01"):
        raise Malformed(f"user name and password come in version {data[0]}")
    if len(data) < 2:
        return None
    middle = 2 + data[1]
    if len(data) <= middle:
        return None
    end = middle + 1 + data[middle]
    return (Credentials(data[2:middle], data[middle + 1 : end]), end) if len(data) >= end else None


def read_request(data: bytes) -> tuple[Request, int] | None:
    if data[:1] not in (b"", b"\x05"):
        raise Malformed(f"the request is of version {data[0]}")
    if data[2:3] not in (b"", b"\0"):
        raise Malformed("the reserved byte of the request is not 0")
    found = _read_address(data, 3)
    if found is None:
        return None
    host, port, end = found
    return Request(data[1], host, port), end


def read_datagram(data: bytes) -> Datagram:
    """Raises Malformed for one that isn't whole, too."""
    if data[:2] != b"\0\0":
        raise Malformed("the reserved bytes of the datagram are not 0")
    found = _read_address(data, 3)
    if found is None:
        raise Malformed("the datagram ends in the middle of its address")
    return Datagram(data[2], *found)


def _read_address(data: bytes, at: int) -> tuple[str, int, int] | None:
    """The address and port that begin there, and where they end (section 5)."""
    if len(data) <= at:
        return None
    kind = data[at]
    start = at + 1
    if kind == _NAME:
        if len(data) <= start:
            return None
        size = data[start]
        start += 1
        if not size:
            raise Malformed("the name is empty")
    elif kind in _SIZES:
        size = _SIZES[kind]
    else:
        raise Malformed(f"there is no address type {kind}", "socks_address_type", ADDRESS_TYPE_UNKNOWN)
    end = start + size
    if len(data) < end + 2:
        return None
    return _host(kind, data[start:end]), int.from_bytes(data[end : end + 2], "big"), end + 2


def _host(kind: int, raw: bytes) -> str:
    if kind == _NAME:
        return raw.decode(errors="replace")
    return str(IPv4Address(raw) if kind == _IPV4 else IPv6Address(raw))


def method(chosen: int) -> bytes:
    """The answer to a greeting."""
    return bytes((VERSION, chosen))


def verdict(is_right: bool) -> bytes:
    """The answer to user name and password."""
    return bytes((_PASSWORD_VERSION, 0 if is_right else 1))


def reply(code: int, host: str = "0.0.0.0", port: int = 0) -> bytes:
    """The answer to a request. host, port: where the connection that was made begins, or where datagrams are taken."""
    return bytes((VERSION, code, 0)) + _written(host, port)


def datagram(host: str, port: int) -> bytes:
    """What stands before the data of a datagram from there."""
    return b"\0\0\0" + _written(host, port)


def _written(host: str, port: int) -> bytes:
    """host: an address, perhaps with a zone, which nobody else can read."""
    if ":" in host:
        kind, raw = _IPV6, IPv6Address(host.partition("%")[0]).packed
    else:
        kind, raw = _IPV4, IPv4Address(host).packed
    return bytes((kind,)) + raw + port.to_bytes(2, "big")


def _spoken(data: bytes) -> str:
    """What somebody speaks who doesn't speak SOCKS 5."""
    if data[0] == 4:
        return "SOCKS 4"
    if data[0] == 0x16:
        return "TLS"
    return "HTTP" if data[:1].isalpha() else f"the byte {data[0]}"
