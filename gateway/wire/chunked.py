"""The chunked coding (RFC 9112, section 7.1) and the trailers behind it."""

from __future__ import annotations

import re

from gateway.wire.grammar import TOKEN, WireError, find_bare_line_ending, match_token, tokens
from gateway.wire.heads import Head
from gateway.wire.lines import Pair, pair_of
from gateway.wire.names import HOP_BY_HOP, IDENTITY, IDENTITY_PREFIXES, SPOOF

_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})"
    rb"(?:[ \t]*+;[ \t]*+" + TOKEN + rb"++(?:[ \t]*+=[ \t]*+"
    rb"(?:" + TOKEN + rb'++|"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"))?+)*+\r\n'
)
_SIZE_START = re.compile(rb"[0-9A-Fa-f]{1,15}(?:\r|[ \t;].*)?", re.DOTALL)
_TRAILERS = re.compile(rb"((?:" + TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n")
# A size line with its extensions: HAProxy caps it at its buffer, we at what a person could mean. It also bounds
# what an incomplete line makes us hold.
_MAX_SIZE_LINE = 512
_MAX_TRAILERS = 8192


class ChunkedBody:
    """A decoder of the chunked coding (RFC 9112, section 7.1): exact CRLFs, bounded size lines, trailers apart.

    `feed` returns the payload in pieces. After `done`, `trailers` holds the trailer fields and `rest` what follows.
    """

    __slots__ = ("_held", "_left", "_state", "done", "rest", "trailers")

    _SIZE, _DATA, _CRLF, _TRAILERS = range(4)

    def __init__(self) -> None:
        self._state = self._SIZE
        self._left = 0
        self._held = b""
        self.done = False
        self.trailers: list[Pair] = []
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Payload found in data. Raises WireError(400, ...) on anything but an exact chunk."""
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        size = len(data)
        while at < size:
            if self._state == self._DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = self._CRLF
            elif self._state == self._CRLF:
                if size - at < 2 and data[at] == 13:
                    break
                if data[at : at + 2] != b"\r\n":
                    raise WireError(400, "chunk_end_missing")
                at += 2
                self._state = self._SIZE
            elif self._state == self._SIZE:
                match = _SIZE_LINE.match(data, at)
                if match is None:
                    if b"\r\n" in data[at:] or size - at > _MAX_SIZE_LINE or not _may_be_size(data[at:]):
                        raise WireError(400, "chunk_size_malformed")
                    break
                if match.end() - at > _MAX_SIZE_LINE:
                    raise WireError(400, "chunk_size_malformed")
                at = match.end()
                self._left = int(match[1], 16)
                self._state = self._DATA if self._left else self._TRAILERS
            else:
                match = _TRAILERS.match(data, at)
                if match is None:
                    if b"\r\n\r\n" in data[at:] or size - at > _MAX_TRAILERS or find_bare_line_ending(data, at):
                        raise WireError(400, "trailer_malformed")
                    break
                if match.end() - at > _MAX_TRAILERS:
                    raise WireError(400, "trailer_malformed")
                self.trailers = [pair_of(line) for line in match[1].split(b"\r\n")[:-1]]
                self.rest = data[match.end() :]
                self.done = True
                return pieces
        self._held = data[at:]
        return pieces


def _may_be_size(data: bytes) -> bool:
    return _SIZE_START.fullmatch(data) is not None and not find_bare_line_ending(data)


# Fields that must not come after the body: they frame, route, authenticate or modify the message (RFC 9110, section
# 6.5.1; Go's list, with cookies and Via).
_NEVER_TRAILING = HOP_BY_HOP | IDENTITY | frozenset(
    (
        b"authorization", b"cache-control", b"content-encoding", b"content-length", b"content-range", b"content-type",
        b"cookie", b"date", b"expect", b"host", b"location", b"max-forwards", b"pragma", b"range", b"set-cookie",
        b"via", b"www-authenticate",
    )
)  # fmt: skip


def passable_trailers(trailers: list[Pair], head: Head) -> list[Pair]:
    """The trailer fields that may be handed on behind a message with this head."""
    not_these = head.fields.named | head.dropped
    return [pair for pair in trailers if _may_trail(pair[0]) and pair[0] not in not_these]


def announced_trailers(head: Head) -> bytes:
    """The value of Trailer for the next hop, b"" for none."""
    announced = head.special.get(b"trailer")
    if announced is None or head.length != -1:
        return b""
    names = [name for name in tokens(announced) if match_token(name) and _may_trail(name)]
    return b", ".join([name for name in names if name not in head.dropped])


def _may_trail(name: bytes) -> bool:
    return name not in _NEVER_TRAILING and not name.startswith((b"if-", *IDENTITY_PREFIXES)) and SPOOF not in name


def trailer_section(trailers: list[Pair]) -> bytes:
    """The last chunk, these fields behind it, and the end (RFC 9112, section 7.1)."""
    return b"".join((b"0\r\n", *[b"%b: %b\r\n" % pair for pair in trailers], b"\r\n"))
