"""Request heads as a forward proxy gets them: their target says where they go (RFC 9112, sections 3.2.2 and 3.2.3).

What a target is read as is what will be connected to, so its host is taken more strictly than a Host field is: a name
of letters, digits, "-", "_" and ".", an IPv4 address, or an IPv6 address in brackets and without a zone.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address

from gateway.wire.fields import Fields
from gateway.wire.framing import keeps_alive
from gateway.wire.grammar import LONGEST_AUTHORITY, WireError
from gateway.wire.heads import RequestHead, read_request

_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*+)://([^/?]*+)(.*)", re.DOTALL)
_DESTINATION = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z._\-]++))(?::([0-9]{0,5}))?")
_PORT = 80


class ProxyHead(RequestHead):
    """A request in absolute-form, or CONNECT. target: what the next hop is asked for, in origin-form; of CONNECT the
    host and port as they came. destination: the host, without brackets, and the port."""

    __slots__ = ("destination",)

    def __init__(self, line: bytes, fields: Fields) -> None:
        self.destination = ("", 0)
        super().__init__(line, fields)
        if not self.destination[1]:  # in origin-form: for nobody here
            raise WireError(400, "target_form_not_served")
        special = self.special
        if b"proxy-authorization" in special and b"," in special[b"proxy-authorization"]:
            _refuse_repeated(fields)
        asked = special.get(b"proxy-connection")
        if asked is not None:  # what old clients call Connection when they talk to a proxy
            said = special.get(b"connection")
            self.keep_alive = keeps_alive(asked if said is None else said + b", " + asked, self.minor)

    @property
    def is_connect(self) -> bool:
        return self.method == b"CONNECT"

    def _normalise(self) -> None:
        if self.is_connect:
            if self.length:  # a length of 0, which old clients send, could be misread by nobody
                raise WireError(400, "connect_with_body")
            authority = self.target
            self.destination = _named(authority, None)
        else:
            absolute = _ABSOLUTE.fullmatch(self.target)
            if absolute is None:
                raise WireError(400, "target_form_not_served")
            scheme, authority, rest = absolute.groups()
            if scheme.lower() != b"http":
                raise WireError(501, "scheme_not_served")
            self.destination = _named(authority, _PORT)
            if not rest:
                rest = b"*" if self.method == b"OPTIONS" else b"/"
            self.target = b"/" + rest if rest.startswith(b"?") else rest
        self.special = {**self.special, b"host": authority.removesuffix(b":")}
        self.start = self.start_to(self.target)


def read_proxied(data: bytes, before: Fields | None = None) -> tuple[RequestHead, int] | None:
    """As `read_request`; the head is a ProxyHead."""
    return read_request(data, before, ProxyHead)


def without_userinfo(target: bytes) -> bytes:
    """A target that was refused, whatever it is, without a name and password before its host. A password may hold what
    would end an authority, so all before the last "@" goes."""
    return _USERINFO.sub(rb"\1", target)


_USERINFO = re.compile(rb"\A((?:[A-Za-z][A-Za-z0-9+.\-]*+://)?)(?!/).*@", re.DOTALL)


def _named(authority: bytes, port: int | None) -> tuple[str, int]:
    """The host and port that an authority names. port: the one meant where none is given; None: one must be."""
    found = destination(authority) if len(authority) <= LONGEST_AUTHORITY else None
    if found is None or (not found[1] and port is None):
        raise WireError(400, "target_form_not_served" if b"@" in authority else "destination_invalid")
    return found[0], found[1] or port or 0


@lru_cache(maxsize=4096)
def destination(authority: bytes) -> tuple[str, int] | None:
    """The host, without brackets, and the port, 0 for none; None for what names none. Remembered, for clients come
    back to where they were."""
    match = _DESTINATION.fullmatch(authority)
    if match is None:
        return None
    bracketed, name, digits = match.groups()
    port = int(digits) if digits else 0
    if port > 65535 or (digits and not port):
        return None
    if bracketed is None:
        return name.decode(), port
    try:
        return str(IPv6Address(bracketed.decode())), port
    except ValueError:
        return None


def _refuse_repeated(fields: Fields) -> None:
    """No credentials have a comma in them but those that are two fields, or a list that nobody should read."""
    if (b"\r\n" + fields.block.lower()).count(b"\r\nproxy-authorization:") > 1:
        raise WireError(400, "repeated_field")
