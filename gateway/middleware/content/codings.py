"""Content codings (RFC 9110, section 8.4.1): which one a client wants, and bodies in and out of them, piece by piece.

The libraries come in when the first layer that needs them is built. What a response that is under way holds, measured
on a body of 600 KB with a flush every 16 KiB: gzip 0.26 MiB, br 0.9, zstd 1.1; a larger window gains less than 1 % on
such bodies. The most at other levels: br 24 (level 9), zstd 4. An event stream may stay for hours with thousands of its
kind: `light` gives it 0.05, 0.2 and 0.1 MiB.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Protocol

from gateway.errors import StartError

Data = bytes | memoryview

# Clients must be able to take a window of 8 MiB (RFC 9659); ours are 256 KiB. What they send us may have no larger one.
_WINDOW = 18
_LIGHT_WINDOW = 16
_LARGEST_WINDOW = 23
# From this level on zstd would have tables for windows of megabytes, and fill them with zeros for every body: level 12
# takes 30 ms and 30 MiB for 1 KiB, level 19 55 ms and 60 MiB. What finds nothing in our window is left out.
_LARGE_TABLES = 7


# Out of a coding's name. The levels are where a higher one costs more than it gains, by the time for 65 KB of JSON
# (gzip 4, 5, 6: 0.68, 0.94, 1.55 ms for .304, .297, .295 of its size; br 3, 4, 5: 0.43, 0.77, 0.98 ms for .294, .291,
# .285; zstd 3, 6: 0.17, 0.6 ms for .295, .286).
LEVELS = {"gzip": 5, "br": 4, "zstd": 3}
MOST_LEVEL = {"gzip": 9, "br": 11, "zstd": 19}
# How much at the most takes a millisecond or two, by the lowest level for which that holds (JSON, and text that shrinks
# badly; br 9 takes 1 to 2 ms for 1 KiB, br 11 100 ms for 64 KiB, zstd 19 23).
_QUICK = {
    "gzip": ((7, 32 * 1024), (1, 64 * 1024)),
    "br": ((9, 0), (6, 16 * 1024), (1, 64 * 1024)),
    "zstd": ((16, 4 * 1024), (12, 32 * 1024), (1, 64 * 1024)),
}


def quick(coding: str, level: int) -> int:
    """How many bytes are compressed at once without being missed by anybody who waits meanwhile."""
    return next(most for least, most in _QUICK[coding] if level >= least)


class Compressor(Protocol):
    """One body. What `squeeze` returns is all that is known of what it was given: nothing is held back."""

    def squeeze(self, data: Data) -> bytes: ...

    def finish(self, data: Data) -> bytes:
        """The last of it."""


class _Gzip:
    __slots__ = ("_to",)

    def __init__(self, level: int, light: bool) -> None:
        # 16: with the header of gzip. A memory level of 8 is zlib's own choice.
        self._to = zlib.compressobj(level, zlib.DEFLATED, 16 + (12 if light else 15), 5 if light else 8)

    def squeeze(self, data: Data) -> bytes:
        return self._to.compress(data) + self._to.flush(zlib.Z_SYNC_FLUSH)

    def finish(self, data: Data) -> bytes:
        return self._to.compress(data) + self._to.flush()


class _Brotli:
    __slots__ = ("_to",)

    def __init__(self, level: int, light: bool) -> None:
        self._to = _brotli().Compressor(
            quality=min(level, 3) if light else level, lgwin=_LIGHT_WINDOW if light else _WINDOW
        )

    def squeeze(self, data: Data) -> bytes:
        return bytes(self._to.process(data) + self._to.flush())

    def finish(self, data: Data) -> bytes:
        return bytes(self._to.process(data) + self._to.finish())


class _Zstd:
    __slots__ = ("_block", "_frame", "_to")

    def __init__(self, level: int, light: bool) -> None:
        library = _zstd()
        key = library.CompressionParameter
        options = {key.compression_level: 1 if light else level, key.window_log: _LIGHT_WINDOW if light else _WINDOW}
        if level >= _LARGE_TABLES and not light:
            options |= {key.hash_log: _WINDOW + 1, key.chain_log: _WINDOW}
        self._to = library.ZstdCompressor(options=options)
        self._block, self._frame = self._to.FLUSH_BLOCK, self._to.FLUSH_FRAME

    def squeeze(self, data: Data) -> bytes:
        return bytes(self._to.compress(data, self._block))

    def finish(self, data: Data) -> bytes:
        return bytes(self._to.compress(data, self._frame))


COMPRESSORS: dict[str, Callable[[int, bool], Compressor]] = {"zstd": _Zstd, "br": _Brotli, "gzip": _Gzip}


# And in.


class Broken(Exception):
    """Not what its coding says it is."""


class Expander(Protocol):
    """One body. is_whole: it may end here."""

    @property
    def is_whole(self) -> bool: ...

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What data expands to, in pieces of 128 KiB at the most, each made when it is asked for. An empty one says
        that a member ended: each costs work and may hold nothing. Raises Broken."""


_PIECE = 64 * 1024


class _Members:
    """A coding whose bodies may be several, one behind the other: members of gzip (RFC 1952), frames of zstd (RFC
    8878). make: for each of them."""

    __slots__ = ("_from", "_has_begun", "_make")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._has_begun = False
        self._from: Any = None

    @property
    def is_whole(self) -> bool:
        return self._from is None and self._has_begun

    def _next(self) -> Any:
        self._has_begun = True
        self._from = self._make()
        return self._from


class _FromZlib(_Members):
    """wbits: as zlib has it. several: whether it is gzip."""

    __slots__ = ("_several",)

    def __init__(self, wbits: int, several: bool) -> None:
        super().__init__(lambda: zlib.decompressobj(wbits))
        self._several = several

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self.is_whole and not self._several:
                raise Broken
            one = self._from or self._next()
            try:
                piece = one.decompress(data, _PIECE)
                while piece:
                    yield piece
                    piece = one.decompress(one.unconsumed_tail, _PIECE)
            except zlib.error:
                raise Broken from None
            data = one.unused_data
            if one.eof:
                self._from = None
                yield b""


class _FromZstd(_Members):
    __slots__ = ()

    def __init__(self) -> None:
        library = _zstd()
        options = {library.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
        super().__init__(lambda: library.ZstdDecompressor(options=options))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        broken = _zstd().ZstdError
        while data:
            one = self._from or self._next()
            try:
                piece = one.decompress(data, _PIECE)
                while piece:
                    yield piece
                    piece = b"" if one.eof else one.decompress(b"", _PIECE)
            except broken:
                raise Broken from None
            data = b""
            if one.eof:
                data = one.unused_data
                self._from = None
                yield b""


class _FromBrotli:
    __slots__ = ("_broken", "_from")

    def __init__(self) -> None:
        library = _brotli()
        self._from = library.Decompressor()
        self._broken = library.error

    @property
    def is_whole(self) -> bool:
        return bool(self._from.is_finished())

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            piece = self._from.process(data, output_buffer_limit=_PIECE)
            while piece or not self._from.can_accept_more_data():
                if piece:
                    yield piece
                piece = self._from.process(b"", output_buffer_limit=_PIECE)
        except self._broken:
            raise Broken from None


EXPANDERS: dict[bytes, Callable[[], Expander]] = {
    b"gzip": lambda: _FromZlib(31, True),
    b"x-gzip": lambda: _FromZlib(31, True),
    b"deflate": lambda: _FromZlib(15, False),  # zlib's format, as the RFC has it
    b"br": _FromBrotli,
    b"zstd": _FromZstd,
}


def need(coding: str) -> None:
    """Raises StartError where the library of a coding is missing."""
    try:
        if coding == "br":
            _brotli()
        elif coding == "zstd":
            _zstd()
    except ImportError as error:
        raise StartError(f'the content coding "{coding}" needs the package {error.name}, which is not there') from None


def _brotli() -> Any:
    import brotli

    return brotli


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


# Content negotiation (RFC 9110, section 12.5.3).

_QUALITY = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_CODING = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_LONGEST_ACCEPT = 512  # of Accept-Encoding; browsers send some 25 bytes. Also what one remembered value may cost.
_WEIGHT = re.compile(rb"[ \t]*;[ \t]*q=")


def chosen(accept: bytes, offered: tuple[bytes, ...]) -> bytes:
    """The coding for a client: of those that are offered, in the server's order, the one it likes best, b"" when it
    likes the body as it is better, or none of them. accept: its Accept-Encoding."""
    if len(accept) > _LONGEST_ACCEPT:
        accept = accept[:_LONGEST_ACCEPT].rpartition(b",")[0]
    return _chosen(accept, offered)


@lru_cache(maxsize=1024)
def _chosen(accept: bytes, offered: tuple[bytes, ...]) -> bytes:
    liked: dict[bytes, float] = {}
    for member in accept.lower().split(b","):
        name, *weight = _WEIGHT.split(member.strip(b" \t"), maxsplit=1)
        if not _CODING.fullmatch(name) or (weight and not _QUALITY.fullmatch(weight[0])):
            continue  # malformed
        liked.setdefault(b"gzip" if name == b"x-gzip" else name, float(weight[0]) if weight else 1.0)
    other = liked.get(b"*", 0.0)
    best, most = b"", 0.0
    for coding in offered:
        likes = liked.get(coding, other)
        if likes > most:
            best, most = coding, likes
    # As it is: always acceptable unless it says otherwise, and preferred only where it says so.
    return best if liked.get(b"identity", 0.0) <= most else b""
