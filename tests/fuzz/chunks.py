"""The chunked decoder against one that is as plain as the grammar (RFC 9112, section 7.1), a byte at a time."""

from __future__ import annotations

from gateway.wire import ChunkedBody, WireError
from tests.fuzz.acts import SPLIT, acts
from tests.fuzz.loop import Finding, Loop

_LONGEST_SIZE_LINE = 512
_LONGEST_TRAILERS = 8192
_BYTEWISE = 1200  # up to this size an input is also cut into single bytes
_HEX = b"0123456789abcdefABCDEF"
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
Outcome = tuple[str, bytes, bytes, list[tuple[bytes, bytes]]]  # whole | more | bad, payload, rest, trailers


class Bad(Exception):
    """This can't be the chunked coding, whatever follows."""


class More(Exception):
    """It ends too early."""


class Reader:
    """The reference: reads from a whole input by one byte or line at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.payload = b""

    def read(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """What follows the body, and its trailers. Raises Bad, More."""
        while size := self._size():
            piece = self._data[self._at : self._at + size]
            self.payload += piece
            self._at += len(piece)
            if len(piece) < size:
                raise More
            self._end_of_line()
        trailers = self._trailers()
        return self._data[self._at :], trailers

    def _peek(self) -> int:
        if self._at >= len(self._data):
            raise More
        return self._data[self._at]

    def _byte(self) -> int:
        byte = self._peek()
        self._at += 1
        return byte

    def _end_of_line(self) -> None:
        if self._byte() != 13 or self._byte() != 10:
            raise Bad

    def _spaces(self) -> None:
        while self._peek() in b" \t":
            self._at += 1

    def _token(self) -> None:
        if self._byte() not in _TOKEN:
            raise Bad
        while self._peek() in _TOKEN:
            self._at += 1

    def _quoted(self) -> None:
        self._at += 1
        while (byte := self._byte()) != 0x22:
            if byte == 0x5C:
                byte = self._byte()
            if byte != 9 and (byte < 0x20 or byte == 0x7F):
                raise Bad

    def _size(self) -> int:
        began = self._at
        digits = b""
        while self._peek() in _HEX:
            digits += bytes((self._byte(),))
            if len(digits) > 15:
                raise Bad
        if not digits:
            raise Bad
        while self._peek() != 13:
            self._spaces()
            if self._byte() != 0x3B:
                raise Bad
            self._spaces()
            self._token()
            before = self._at
            self._spaces()
            if self._peek() == 0x3D:
                self._at += 1
                self._spaces()
                if self._peek() == 0x22:
                    self._quoted()
                else:
                    self._token()
            elif self._at != before and self._peek() != 0x3B:
                raise Bad
        self._end_of_line()
        if self._at - began > _LONGEST_SIZE_LINE:
            raise Bad
        return int(digits, 16)

    def _trailers(self) -> list[tuple[bytes, bytes]]:
        began = self._at
        found = []
        while self._peek() != 13:
            start = self._at
            self._token()
            name = self._data[start : self._at].lower()
            if self._byte() != 0x3A:
                raise Bad
            start = self._at
            while (byte := self._peek()) != 13:
                if byte != 9 and (byte < 0x20 or byte == 0x7F):
                    raise Bad
                self._at += 1
            value = self._data[start : self._at].strip(b" \t")
            self._end_of_line()
            found.append((name, value))
        self._end_of_line()
        if self._at - began > _LONGEST_TRAILERS:
            raise Bad
        return found


def reference(data: bytes) -> Outcome:
    reader = Reader(data)
    try:
        rest, trailers = reader.read()
    except Bad:
        return "bad", reader.payload, b"", []
    except More:
        return "more", reader.payload, b"", []
    return "whole", reader.payload, rest, trailers


def ours(pieces: list[bytes]) -> Outcome:
    body = ChunkedBody()
    payload = b""
    try:
        for index, piece in enumerate(pieces):
            payload += b"".join(body.feed(piece))
            if body.done:
                return "whole", payload, body.rest + b"".join(pieces[index + 1 :]), body.trailers
    except WireError as refused:
        if refused.status != 400 or not refused.reason:
            raise Finding(f"refused with {refused.status} {refused.reason!r}") from None
        return "bad", b"", b"", []
    return "more", payload, b"", []


def run(loop: Loop, data: bytes) -> Outcome:
    """Decode an input as it is cut, in one piece and in single bytes. Raises Finding."""
    pieces = [act.data for act in acts(data) if act.mark == SPLIT]
    whole = b"".join(pieces)
    expected = reference(whole)
    bytewise = [whole[index : index + 1] for index in range(len(whole))] if len(whole) <= _BYTEWISE else []
    for cut in (pieces, [whole], bytewise or [whole]):
        outcome = ours(cut)
        if outcome == expected or outcome[0] == expected[0] == "bad":
            continue
        if (outcome[0], expected[0]) == ("bad", "more") and len(whole) > _LONGEST_SIZE_LINE:
            continue  # a line may yet end, but not within its limit
        if (outcome[0], expected[0]) == ("more", "bad") and ours([*cut, b"\r\n\r\n"])[0] == "bad":
            continue  # refused at the end of the line, if not before
        raise Finding(f"{whole!r} in {len(cut)} pieces is {outcome}, not {expected}")
    return expected
