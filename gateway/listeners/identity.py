"""Who the client is, and how it is introduced to the endpoint. Pure.

A peer that is not in `trusted_proxies` is the client itself, and nothing it says of itself is passed on. One that is
may name whom it speaks for: the list in X-Forwarded-For, or in Forwarded (RFC 7239), is walked from the right, where
our own peer wrote, to the left, as long as whoever wrote is trusted. What stands further to the left anybody may have
written. The walk never invents an address: at what can't be read as one it ends with the last good one to the right.

`forwarded` says which fields are read, and the same ones are written:

    x-forwarded   X-Forwarded-For gets the peer appended; -Proto and -Host say what the client's own hop was asked by
    rfc7239       Forwarded gets an element appended
    both          both are written; X-Forwarded-For is believed, Forwarded only where that is absent
    off           none is read, none is written, and what a trusted peer says is passed on as it came

A field that tells what we read in another one is never passed on unread, not even from a trusted peer: a proxy that
speaks only one of the two dialects hands the other on as some client wrote it. For the same reason a list that does not
lead to the client is not continued but begun anew. All else that a trusted peer says (X-Forwarded-Port, X-Real-IP,
True-Client-IP and the like) is passed on as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from typing import NamedTuple

from gateway.ranges import UNIX, Ranges, read, written
from gateway.wire import IDENTITY, IDENTITY_PREFIXES

MODES = ("x-forwarded", "rfc7239", "both", "off")

# A chain of proxies has two or three; more than this is somebody who wants us to work.
_MOST_HOPS = 64
# Of a list of X-Forwarded-Proto or -Host: beyond this it is not looked at.
_LONGEST_LIST = 4096
_LONGEST_NODE = 64  # an IPv6 address in brackets has 47 characters at the most, a port 5
# An element of Forwarded: a quoted string may hold commas, but not without end.
_LONGEST_ELEMENT, _MOST_COMMAS = 1024, 16

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_PAIR = re.compile(rb"(" + _TOKEN + rb")=(" + _TOKEN + rb"|" + _QUOTED + rb")")
_MAYBE = rb"(?:" + _TOKEN + rb"=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?+"
# RFC 7239, section 4, with the white space around ";" that some write.
_ELEMENT = re.compile(_MAYBE + rb"(?:[ \t]*+;[ \t]*+" + _MAYBE + rb")*+")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_TOKEN_ONLY = re.compile(_TOKEN)
# A node (RFC 7239, section 6), and an IPv6 address without brackets as X-Forwarded-For has it.
_PORT = r"(?::(?:[0-9]{1,5}|_[0-9A-Za-z._-]+))?"
_NODE = re.compile(rf"([0-9.]{{7,15}}){_PORT}|\[([0-9A-Fa-f:.]{{2,45}})\]{_PORT}|([0-9A-Fa-f:.]{{2,45}})")
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[!$&'()*+;=\-._~0-9A-Za-z%]{1,255})(?::[0-9]{1,5})?")
_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}


class Trust(Ranges):
    """The networks whose word is believed."""

    __slots__ = ()


def plain(address: str) -> str:
    """A peer's address as it is written everywhere: IPv4-mapped as IPv4, without a zone. Raises ValueError."""
    return written(read(address)) if ":" in address else address


@lru_cache(maxsize=4096)
def _node(text: str) -> str:
    """The address of a node, without its port; "" for what is none ("unknown", "_hidden", garbage)."""
    match = _NODE.fullmatch(text)
    if match is None:
        return ""
    try:
        return written(IPv4Address(match[1]) if match[1] else IPv6Address(match[2] or match[3]))
    except ValueError:
        return ""


# The walk.


class _Told(NamedTuple):
    """What the trusted say of the client. proto, host: as it was asked by, b"" where nobody says."""

    client: str
    proto: bytes
    host: bytes


def _walk(peer: str, nodes: Iterable[str], trust: Trust) -> tuple[str, int]:
    """The client, and how many of the nodes (from right to left) led to it. peer is trusted."""
    client, steps = peer, 0
    for node in islice(nodes, _MOST_HOPS):
        address = _node(node) if len(node) <= _LONGEST_NODE else ""
        if not address:
            break
        client = address
        steps += 1
        if not trust.covers(address):
            break
    return client, steps


def _from_right(value: bytes) -> Iterator[str]:
    """The members of a list, the last one first."""
    end = len(value)
    while end >= 0:
        start = value.rfind(b",", 0, end)
        yield value[max(start + 1, end - 2 * _LONGEST_NODE) : end].strip(b" \t").decode("latin-1")
        end = start


def _member(value: bytes, steps: int) -> bytes:
    """Of a list that grows along with X-Forwarded-For, the member that the client's own hop is told by. Most lists
    have one member only."""
    if b"," not in value:
        return value.strip(b" \t")
    if len(value) > _LONGEST_LIST:
        return b""
    members = value.split(b",")
    return members[-min(max(steps, 1), len(members))].strip(b" \t")


def _told_by_x_forwarded(special: Mapping[bytes, bytes], peer: str, trust: Trust) -> _Told:
    value = special.get(b"x-forwarded-for")
    client, steps = (peer, 0) if value is None else _walk(peer, _from_right(value), trust)
    return _Told(
        client,
        _member(special.get(b"x-forwarded-proto", b""), steps).lower(),
        _member(special.get(b"x-forwarded-host", b""), steps),
    )


def _told_by_forwarded(value: bytes, peer: str, trust: Trust) -> _Told:
    seen: list[dict[bytes, bytes]] = []

    def nodes() -> Iterator[str]:
        for _, element in _elements(value):
            seen.append(element)
            yield element.get(b"for", b"").decode("latin-1")

    client, steps = _walk(peer, nodes(), trust)
    if not steps:
        return _Told(client, b"", b"")
    element = seen[steps - 1]
    return _Told(client, element.get(b"proto", b"").lower(), element.get(b"host", b""))


def _elements(value: bytes) -> Iterator[tuple[int, dict[bytes, bytes]]]:
    """The elements of a Forwarded field, the last one first: where each begins, and what it says by lower-case name.

    Read from the right as well: read from the left, a quote that a client opens and never closes would swallow what
    the proxies behind it have written. An element is the shortest end of the list that is one; no end of a list that
    begins inside of a quoted string is, for it holds an odd number of quotes.
    """
    end = len(value)
    while end >= 0:
        start = end
        for _ in range(_MOST_COMMAS):
            start = value.rfind(b",", 0, start)
            if end - start > _LONGEST_ELEMENT:
                return
            text = value[start + 1 : end].strip(b" \t")
            if _ELEMENT.fullmatch(text):
                break
            if start < 0:
                return
        else:
            return
        pairs = _PAIR.findall(text)
        element = {name.lower(): _unquoted(said) for name, said in pairs}
        if len(element) < len(pairs):  # a name occurs once (RFC 7239, section 4)
            return
        yield start + 1, element
        end = start


def _unquoted(text: bytes) -> bytes:
    return _ESCAPE.sub(rb"\1", text[1:-1]) if text.startswith(b'"') else text


def _quoted(text: bytes) -> bytes:
    """A value of Forwarded: as a token where it is one."""
    if _TOKEN_ONLY.fullmatch(text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _readable(value: bytes) -> bytes:
    """The end of a Forwarded list that everybody reads alike: all of it, unless somebody wrote garbage."""
    starts = [start for start, _ in islice(_elements(value), _MOST_HOPS)]
    return value[starts[-1] :].strip(b" \t") if starts else b""


# The introduction.


class Introduction(NamedTuple):
    """client: its address, or "unix". scheme: what it spoke, "http" or "https". lines: what the endpoint is told of
    it, CRLF before each."""

    client: str
    scheme: str
    lines: bytes


class Introducer:
    """What the connections of one listener have in common: who is believed, and what is written."""

    __slots__ = ("reads", "scheme", "trust", "writes_forwarded", "writes_x_forwarded")

    def __init__(self, mode: str, trust: Trust, scheme: str) -> None:
        """mode: one of MODES. scheme: what is spoken on the listener."""
        self.trust = trust
        self.scheme = scheme
        self.reads = mode != "off"
        self.writes_x_forwarded = mode in ("x-forwarded", "both")
        self.writes_forwarded = mode in ("rfc7239", "both")

    def meet(self, address: str) -> Peer:
        """For each connection: address is that of the other side, "unix" for a unix socket."""
        return Peer(self, plain(address))


class Peer:
    """The other side of one connection: a client, or a proxy that speaks for some; `trusted` when it is believed."""

    __slots__ = ("_by", "_last", "_last_host", "_last_special", "address", "trusted")

    def __init__(self, by: Introducer, address: str) -> None:
        self.address = address
        self._by = by
        self.trusted = by.trust.covers(address)
        self._last: Introduction | None = None
        self._last_host = b""
        self._last_special: Mapping[bytes, bytes] | None = None

    def introduce(self, special: Mapping[bytes, bytes], host: bytes) -> Introduction:
        """Who a request's client is; what is the same as before is not worked out again. special: the fields that
        matter, as wire's Fields has them, not changed afterwards; host: what the request is for, b"" for unknown."""
        if self._last is None or host != self._last_host or (self.trusted and special is not self._last_special):
            self._last = self._introduced(special, host)
            self._last_host = host
            if self.trusted:
                self._last_special = special
        return self._last

    def _introduced(self, special: Mapping[bytes, bytes], host: bytes) -> Introduction:
        by = self._by
        said = {name: value for name, value in special.items() if _is_identity(name)} if self.trusted else {}
        if not said:
            nothing = _Told(self.address, b"", b"")
            return Introduction(self.address, by.scheme, self._lines(nothing, b"", b"", host))
        if by.reads:
            return self._speaks_for(said, host)
        return Introduction(self.address, by.scheme, _as_they_came(said))

    def _speaks_for(self, said: dict[bytes, bytes], host: bytes) -> Introduction:
        by = self._by
        listed, elements = said.get(b"x-forwarded-for"), said.get(b"forwarded")
        if elements is not None and by.writes_forwarded and (listed is None or not by.writes_x_forwarded):
            told = _told_by_forwarded(elements, self.address, by.trust)
            listed = None
        elif by.writes_x_forwarded:
            told = _told_by_x_forwarded(said, self.address, by.trust)
        else:
            told = _Told(self.address, b"", b"")
        if told.proto not in _SCHEMES:
            told = told._replace(proto=b"")
        if not _HOST.fullmatch(told.host):
            told = told._replace(host=b"")
        client = told.client
        came = b""
        if elements is not None and by.writes_forwarded:
            leads_to = client if listed is None else _told_by_forwarded(elements, self.address, by.trust).client
            came = _readable(elements) if leads_to == client else b""
        lines = self._lines(told, b"" if listed is None else listed, came, host)
        for name in _DIALECTS:
            said.pop(name, None)
        scheme = _SCHEMES[told.proto] if told.proto else by.scheme
        return Introduction(client, scheme, lines + _as_they_came(said))

    def _lines(self, told: _Told, listed: bytes, elements: bytes, host: bytes) -> bytes:
        """What we write. listed, elements: the lists that are continued; where they are empty one is begun, with the
        client if it is not the peer."""
        by = self._by
        lines = []
        client = b"" if told.client == self.address else told.client.encode()
        if by.writes_x_forwarded:
            # A unix socket's peer has no address to add: Go and HAProxy leave it out too.
            hops = [listed or client, b"" if self.address == UNIX else self.address.encode()]
            if any(hops):
                lines.append(b"\r\nx-forwarded-for: " + b", ".join(filter(None, hops)))
            lines.append(b"\r\nx-forwarded-proto: " + (told.proto or by.scheme.encode()))
            if told.host or host:
                lines.append(b"\r\nx-forwarded-host: " + (told.host or host))
        if by.writes_forwarded:
            if not elements and client:
                elements = _element(told.client, told.proto, told.host)
            ours = _element(self.address, by.scheme.encode(), host)
            lines.append(b"\r\nforwarded: " + (elements + b", " + ours if elements else ours))
        return b"".join(lines)


# What two dialects say of the same thing.
_DIALECTS = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded")


def _is_identity(name: bytes) -> bool:
    return (name in IDENTITY or name.startswith(IDENTITY_PREFIXES)) and b"_" not in name


def _as_they_came(said: Mapping[bytes, bytes]) -> bytes:
    return b"".join([b"\r\n%b: %b" % pair for pair in said.items()])


def _element(address: str, proto: bytes, host: bytes) -> bytes:
    """An element of Forwarded; a node that has no address is "unknown" (RFC 7239, section 6.2)."""
    if address == UNIX:
        text = b"for=unknown"
    else:
        text = b'for="[%b]"' % address.encode() if ":" in address else b"for=" + address.encode()
    if proto:
        text += b";proto=" + proto
    if host:
        text += b";host=" + _quoted(host)
    return text
