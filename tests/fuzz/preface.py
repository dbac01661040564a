"""A connection that begins with a PROXY header, or doesn't: what is spoken behind it gets the client that a plain
reading of the document finds, and all that follows, however it is cut."""

from __future__ import annotations

import asyncio
import socket
import struct
from functools import partial
from typing import Any

from uvicorn.server import ServerState

from gateway.listeners.admission import Admission
from gateway.listeners.identity import Trust, plain
from gateway.listeners.listener import Entry
from gateway.listeners.preface import Expected, Preface
from gateway.proxy_protocol import Address, Header
from gateway.scoreboard import Fact
from tests.fuzz.acts import END, LATE, LOST, SPLIT, acts
from tests.fuzz.loop import Finding, Line, Loop, wheel
from tests.fuzz.site import holds

_TIMEOUT = 2.0
_PATIENCE = 4  # seconds, after which nobody waits for a header any more
_MOST_HELD = 8192  # of a header, and a segment behind it
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1 = b"PROXY "

_FOUR = bytes((192, 0, 2, 7, 198, 51, 100, 1, 18, 103, 1, 187))
_SIX = bytes.fromhex("20010db8000000000000000000000007 00000000000000000000ffffc6336401 1267 01bb")


def _binary(command: int, kind: int, rest: bytes) -> bytes:
    return _SIGNATURE + struct.pack("!BBH", command, kind, len(rest)) + rest


def _summed(before: bytes, after: bytes) -> bytes:
    """IPv4 with a checksum between these."""
    blank = _binary(0x21, 0x11, _FOUR + before + b"\3\0\4\0\0\0\0" + after)
    at = 16 + len(_FOUR) + len(before) + 3
    return blank[:at] + struct.pack("!I", _checksum(blank)) + blank[at + 4 :]


def _checksum(data: bytes) -> int:
    """CRC-32C, a bit at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            out = (register ^ byte >> bit) & 1
            register = register >> 1 ^ (0x82F63B78 if out else 0)
    return register ^ 0xFFFFFFFF


SEEDS: tuple[bytes, ...] = (
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nhello",
    b"PROXY TCP4 192.0.2.7 198.51.\xff|100.1 4711 443\r\xff|\nhello\xffE",
    b"PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 4711 443\r\nhello\xffX",
    b"PROXY TCP6 " + b":".join([b"ffff"] * 8) + b" " + b":".join([b"ffff"] * 8) + b" 65535 65535\r\n",
    b"PROXY UNKNOWN\r\nhello",
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\nhello",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 65536\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 04711 443\r\n",
    b"PROXY TCP4 192.0.2.7\xffL\xffL\xffL",
    b"PROXY TCP4 192.0.2.7\xffE",
    b"PROXY\xffE",
    b"PROPFIND / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"\xffE",
    b"\xffL\xffL\xffLhello",
    _binary(0x21, 0x11, _FOUR) + b"hello",
    _binary(0x21, 0x12, _FOUR) + b"\xffLhello\xffE",
    _binary(0x21, 0x21, _SIX) + b"hello",
    _binary(0x21, 0x22, _SIX + b"\2\0\x0bexample.com") + b"hello",
    _binary(0x21, 0x31, bytes(216)) + b"hello",
    _binary(0x20, 0x00, b"") + b"hello",
    _binary(0x20, 0x00, b"\3\0\4\xa9\xb8\x7e\x8f") + b"hello",
    _binary(0x21, 0x00, b"what nobody reads") + b"hello",
    _binary(0x21, 0x11, _FOUR + b"\4\0\5hel"),
    _binary(0x21, 0x11, _FOUR + b"\3\0\4sums"),
    _binary(0x21, 0x11, _FOUR + b"\5\0\x81" + bytes(129)),
    _binary(0x21, 0x11, _FOUR)[:14] + b"\xfe\xff" + bytes(100),
    _summed(b"", b"") + b"hello",
    _summed(b"\1\0\2h2", b"\5\0\4abcd") + b"hello",
)

# What a plain reading finds: "whole" with the client and where the header ends, "more", "none" or "malformed".
Reading = tuple[str, Address | None, int]
_MALFORMED: Reading = ("malformed", None, 0)
_MORE: Reading = ("more", None, 0)


def reference(data: bytes) -> Reading:
    if data[:6] == _V1:
        return _reference_v1(data)
    if data[:12] == _SIGNATURE:
        return _reference_v2(data)
    is_begun = data == _V1[: len(data)] or data == _SIGNATURE[: len(data)]
    return _MORE if is_begun else ("none", None, 0)


def _reference_v1(data: bytes) -> Reading:
    line, found, _ = data[:107].partition(b"\r\n")
    if not found:
        return _MORE if len(data) < 107 else _MALFORMED
    if b"\n" in line or b"\r" in line:
        return _MALFORMED
    end = len(line) + 2
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":
        return "whole", None, end
    families = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}
    if words[1] not in families or len(words) != 6:
        return _MALFORMED
    hosts = [word.decode("latin-1") for word in words[2:4]]
    ports = [word.decode("latin-1") for word in words[4:]]
    try:
        for host in hosts:
            socket.inet_pton(families[words[1]], host)
    except (OSError, ValueError):  # a NUL is a ValueError
        return _MALFORMED
    if not all(port in _PORTS for port in ports):
        return _MALFORMED
    return "whole", (plain(hosts[0]) if ":" in hosts[0] else hosts[0], int(ports[0])), end


_PORTS = frozenset(map(str, range(65536)))


def _reference_v2(data: bytes) -> Reading:
    fixed = data[12:16]
    if fixed[:1] not in (b"", b"\x20", b"\x21"):
        return _MALFORMED
    is_local = fixed[:1] == b"\x20"
    if len(fixed) > 1 and not is_local and (fixed[1] >> 4 > 3 or fixed[1] % 16 > 2):
        return _MALFORMED
    if len(fixed) < 4:
        return _MORE
    end = 16 + fixed[2] * 256 + fixed[3]
    family = 0 if is_local or fixed[1] % 16 == 0 else fixed[1] >> 4
    size = (0, 12, 36, 216)[family]
    if end > 4096 or end < 16 + size:
        return _MALFORMED
    if len(data) < end:
        return _MORE
    if family == 0:
        return "whole", None, end
    sums, at = [], 16 + size
    while at < end:
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        if at + 3 > end or at + 3 + length > end or (data[at] == 5 and length > 128):
            return _MALFORMED
        if data[at] == 3:
            sums.append((at + 3, length))
        at += 3 + length
    for start, length in sums:
        blank = data[:start] + bytes(4) + data[start + 4 : end]
        if len(sums) > 1 or length != 4 or data[start : start + 4] != struct.pack("!I", _checksum(blank)):
            return _MALFORMED
    if family == 3:
        return "whole", None, end
    width, kind = (4, socket.AF_INET) if family == 1 else (16, socket.AF_INET6)
    host = socket.inet_ntop(kind, data[16 : 16 + width])
    port = int.from_bytes(data[16 + 2 * width : 18 + 2 * width], "big")
    return "whole", (plain(host), port), end


class _Inner(asyncio.Protocol):
    """What is spoken behind the header: it only listens."""

    def __init__(self, made: list[_Inner], told: Header | None = None) -> None:
        made.append(self)
        self.peer = told and told.source
        self.heard = bytearray()
        self.ended = self.lost = False

    def data_received(self, data: bytes) -> None:
        if self.ended or self.lost or not data:
            raise Finding("data after the end, or none")
        self.heard += data

    def eof_received(self) -> bool:
        self.ended = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self.lost:
            raise Finding("lost twice")
        self.lost = True


class _Rig:
    """One connection."""

    def __init__(self, loop: Loop, is_required: bool) -> None:
        cells: Any = [0] * (Fact.SERIES + 4)
        self.loop = loop
        self.state = ServerState()
        self.made: list[_Inner] = []
        self.refused: list[str] = []
        self.entry = Entry(
            name="web", protocol=_Inner, wheel=wheel(loop), cells=cells, open_cell=Fact.SERIES,
            idle_cell=Fact.SERIES + 1, accepted_cell=Fact.SERIES + 2, tunnels_cell=Fact.SERIES + 3, backlog=1,
            admission=Admission(cells, 0), max_connections=10,
        )  # fmt: skip
        self.entry.begin(loop)
        expected = Expected(Trust(["192.0.2.1"]), is_required, _TIMEOUT, self._told)
        self.preface = Preface(self.entry, expected, self.state, partial(_Inner, self.made))
        self.line = Line(loop, self.preface, lambda data: None)

    def _told(self, entry: Any, client: str, port: int, started: float, reason: str) -> None:
        if (client, port) != ("192.0.2.1", 1234):
            raise Finding(f"the peer is told to be {client}:{port}")
        self.refused.append(reason)

    def play(self, data: bytes) -> None:
        for act in acts(data):
            self.line.does(act)
            if act.mark == LATE:
                self.loop.passes(1.0)
            self.loop.settle()
            if holds(self.preface) > _MOST_HELD:
                raise Finding(f"{holds(self.preface)} bytes are held for a header")
        for _ in range(_PATIENCE):
            self.loop.passes(1.0)
        self.loop.settle()
        cells, entry = self.entry.cells, self.entry
        if self.state.connections or entry.connections or cells[entry.open_cell] or not self.preface.closed:
            raise Finding("something of it is left")
        if len(self.made) + cells[entry.accepted_cell] != 1 or len(self.made) + len(self.refused) > 1:
            raise Finding("it does not count once")
        self.loop.quiet()


def run(loop: Loop, data: bytes) -> object:
    """Play an input where a header is required and where it is not. Raises Finding."""
    return [_judged(loop, data, is_required) for is_required in (True, False)]


def _judged(loop: Loop, data: bytes, is_required: bool) -> object:
    done = list(acts(data))
    marks = {act.mark for act in done}
    last = next((at for at, act in enumerate(done) if act.mark in (END, LOST)), len(done))
    whole = b"".join(act.data for act in done[:last] if act.mark == SPLIT)
    found, client, end = reference(whole)
    rig = _Rig(loop, is_required)
    rig.play(data)
    if rig.made:
        [inner] = rig.made
        heard = bytes(inner.heard)
        if found == "whole" and inner.peer == client and heard == whole[end:][: len(heard)]:
            pass
        elif is_required or inner.peer is not None or heard != whole[: len(heard)]:
            raise Finding(f"{whole!r} ({found}) is {inner.peer} and {heard!r}")
        elif found in ("whole", "malformed") and not marks & {LATE, END}:
            raise Finding(f"{whole!r} ({found}) was taken for no header")
        if len(heard) < len(whole) - end and not marks & {LOST, END, LATE}:
            raise Finding(f"of {whole!r} only {heard!r} was heard")
    elif found == "whole" and not marks & {LOST, END, LATE}:
        raise Finding(f"{whole!r} was not taken for a header: {rig.refused}")
    elif not is_required and found == "none" and not marks & {LOST}:
        raise Finding(f"{whole!r} was not let through: {rig.refused}")
    for reason in rig.refused:
        cannot = found == "more" and not _can_go_on(whole)
        may = {
            "proxy_header_missing": found == "none" and is_required,
            "proxy_header_malformed": found == "malformed" or END in marks or cannot,
            "proxy_header_timeout": found == "more" or LATE in marks,
        }
        if not may.get(reason):
            raise Finding(f"{whole!r} ({found}) was refused for {reason}")
    if not rig.made and not rig.refused and not marks & {LOST, END}:
        raise Finding(f"nothing became of {whole!r}")
    return found, rig.refused, len(rig.made)


_TAILS = (
    b"TCP4 192.0.2.7 198.51.100.1 4711 443\r\n",
    b"TCP6 ::1 ::2 1 2\r\n",
    b"UNKNOWN\r\n",
    b"UNKNOWN \r\n",
)


def _can_go_on(data: bytes) -> bool:
    """Whether one of a few ways to go on makes a header of it."""
    if data.startswith(_SIGNATURE):
        ways = [data + bytes(16 + int.from_bytes(data[14:16], "big") - len(data))] if len(data) >= 16 else []
    else:
        ways = [data + tail[start:] for tail in _TAILS for start in range(len(tail))]
    return any(reference(way)[0] == "whole" for way in ways)
