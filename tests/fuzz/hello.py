"""The reader of ClientHellos against one that is as plain as the grammar (RFC 8446, section 4.1.2), byte by byte."""

from __future__ import annotations

from gateway.client_hello import LONGEST, HelloReader, NoHello
from tests.fuzz.acts import SPLIT, acts
from tests.fuzz.loop import Finding, Loop
from tests.support.hellos import alpn, body, extension, hello, message, records, server_name

_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."
_BYTEWISE = 2000  # up to this size an input is also cut into single bytes
Outcome = tuple[str, str, tuple[bytes, ...]]  # whole | more | bad, the name, the protocols

SEEDS: tuple[bytes, ...] = (
    hello(server_name(b"example.com"), alpn(b"h2", b"http/1.1")),
    hello(server_name(b"example.com"), alpn(b"h2"), size=9),
    hello(),
    hello(extension(10, bytes(4)), server_name(b"a_b.example"), extension(43, b"\2\3\4")),
    records(message(body()[:-2])),
    records(message(body(session=bytes(32), suites=bytes(8), compression=b"\1\0"))),
    hello(server_name(b"a.example\0")),
    hello(server_name(b"a.example", b"b.example")),
    b"\x16\x03\x01\x00\x00",
    b"SSH-2.0-x\r\n",
)


class Bad(Exception):
    """This can't become one, whatever follows."""


def _cut(data: bytes, size: int, least: int = 0) -> tuple[bytes, bytes]:
    """What a length of so many bytes stands before, and what follows that."""
    length = int.from_bytes(data[:size], "big")
    if len(data) < size + length or length < least:
        raise Bad
    return data[size : size + length], data[size + length :]


def _hello(data: bytes) -> Outcome:
    if data[0] != 3 or len(data) < 34:
        raise Bad
    session, data = _cut(data[34:] or b"\xff", 1)
    suites, data = _cut(data or b"\xff", 2, 2)
    _, data = _cut(data or b"\xff", 1, 1)
    if len(session) > 32 or len(suites) % 2:
        raise Bad
    found: dict[bytes, bytes] = {}
    if data:
        data, rest = _cut(data.ljust(2, b"\xff") if len(data) < 2 else data, 2)
        if rest:
            raise Bad
    while data:
        if len(data) < 4 or data[:2] in found:
            raise Bad
        kind = data[:2]
        found[kind], data = _cut(data[2:], 2)
    return "whole", _name(found.get(b"\0\0")), _protocols(found.get(b"\0\x10"))


def _name(data: bytes | None) -> str:
    if data is None:
        return ""
    data, rest = _cut(data.ljust(2, b"\0"), 2, 1)
    if rest or data[0] != 0 or len(data) < 3:
        raise Bad
    name, rest = _cut(data[1:], 2, 1)
    if rest or len(name) > 254 or any(byte not in _LETTERS for byte in name):
        raise Bad
    if {name[0], name[-1]} & set(b"-."):
        raise Bad
    return name.decode().lower()


def _protocols(data: bytes | None) -> tuple[bytes, ...]:
    if data is None:
        return ()
    data, rest = _cut(data.ljust(2, b"\0"), 2, 1)
    if rest:
        raise Bad
    found = []
    while data:
        one, data = _cut(data, 1, 1)
        found.append(one)
    return tuple(found)


def reference(data: bytes) -> Outcome:
    try:
        return _records(data)
    except (Bad, IndexError):
        return "bad", "", ()


def _records(data: bytes) -> Outcome:
    content, at = b"", 0
    while True:
        head = data[at : at + 5]
        if head[:2] != b"\x16\x03"[: len(head)]:
            raise Bad
        size = int.from_bytes(head[3:], "big")
        if len(head) == 5 and not 0 < size <= 1 << 14:
            raise Bad
        if len(head) < 5 or len(data) < at + 5 + size:
            if len(data) > 2 * LONGEST:
                raise Bad
            return "more", "", ()
        content += data[at + 5 : at + 5 + size]
        at += 5 + size
        length = int.from_bytes(content[1:4], "big")
        if content[0] != 1 or (len(content) > 3 and length > LONGEST):
            raise Bad
        if 4 <= len(content) >= 4 + length:
            return _hello(content[4 : 4 + length] or b"\0")


def ours(pieces: list[bytes]) -> Outcome:
    reader = HelloReader()
    for index, piece in enumerate(pieces):
        try:
            found = reader.feed(piece)
        except NoHello:
            return "bad", "", ()
        if reader.raw != b"".join(pieces[: index + 1]):
            raise Finding("what came is not kept as it is")
        if found is not None:
            return "whole", found.sni, found.alpn
    return "more", "", ()


def run(loop: Loop, data: bytes) -> Outcome:
    """Read an input as it is cut, in one piece and in single bytes. Raises Finding."""
    pieces = [act.data for act in acts(data) if act.mark == SPLIT]
    whole = b"".join(pieces)
    expected = reference(whole)
    bytewise = [whole[index : index + 1] for index in range(len(whole))] if len(whole) <= _BYTEWISE else [whole]
    for cut in (pieces, [whole], bytewise):
        outcome = ours(cut)
        if outcome != expected and whole:
            raise Finding(f"{whole!r} in {len(cut)} pieces is {outcome}, not {expected}")
    return expected
