"""Content codings: which one a client wants, and bodies in and out of them."""

from __future__ import annotations

import sys
from typing import Any
from zlib import compressobj, decompressobj

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.middleware.content import codings
from gateway.middleware.content.codings import COMPRESSORS, EXPANDERS, LEVELS, MOST_LEVEL, Broken, chosen, quick

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OURS = (b"zstd", b"br", b"gzip")


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        # What browsers and tools send.
        (b"gzip, deflate, br, zstd", b"zstd"),
        (b"gzip, deflate, br", b"br"),
        (b"gzip,deflate", b"gzip"),
        (b"gzip", b"gzip"),
        (b"deflate", b""),
        # RFC 9110, section 12.5.3.
        (b"", b""),
        (b"identity", b""),
        (b"*", b"zstd"),
        (b"compress, gzip", b"gzip"),
        (b"compress;q=0.5, gzip;q=1.0", b"gzip"),
        (b"gzip;q=1.0, identity; q=0.5, *;q=0", b"gzip"),
        (b"br;q=1, gzip;q=0.8, zstd;q=0.8", b"br"),
        (b"gzip;q=0.9, zstd;q=0.8", b"gzip"),
        (b"gzip;q=0.5, br;q=0.5", b"br"),
        (b"x-gzip", b"gzip"),
        (b"GZIP;Q=1", b"gzip"),
        # Not acceptable, or liked less than the body as it is.
        (b"gzip;q=0", b""),
        (b"gzip;q=0.000", b""),
        (b"*;q=0", b""),
        (b"zstd;q=0, *", b"br"),
        (b"zstd;q=0, br;q=0, *;q=0.1", b"gzip"),
        (b"identity;q=1, gzip;q=0.5", b""),
        (b"identity;q=0.5, gzip;q=0.5", b"gzip"),
        (b"identity;q=0", b""),
        # What is malformed counts for nothing, and spoils nothing.
        (b"gzip;q=2", b""),
        (b"gzip;q=", b""),
        (b"gzip;q", b""),
        (b"gzip;q=0.1234", b""),
        (b"gzip;q=-1, br", b"br"),
        (b"gzip;level=9", b""),
        (b",, gzip ,\t,", b"gzip"),
        (b"gz ip, br", b"br"),
        (b"gzip ; q=0.5", b"gzip"),
        (b"gzip;q=0, gzip", b""),
    ],
)
def test_negotiation(accept: bytes, coding: bytes) -> None:
    assert chosen(accept, OURS) == coding


def test_the_servers_order_decides_between_equals() -> None:
    for offered in ((b"gzip", b"br"), (b"br", b"gzip")):
        assert chosen(b"gzip, br", offered) == offered[0]


def test_a_long_list_is_read_up_to_a_bound() -> None:
    assert chosen(b"gzip" + b", a" * 10_000, OURS) == b"gzip"
    assert chosen(b"a, " * 10_000 + b"gzip", OURS) == b""


def plain(coding: str, data: bytes) -> bytes:
    """As far as it came."""
    if coding == "gzip":
        return decompressobj(31).decompress(data)
    made: Any = brotli.Decompressor().process(data) if coding == "br" else zstd.ZstdDecompressor().decompress(data)
    return bytes(made)


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("coding", COMPRESSORS)
def test_nothing_is_held_back(coding: str, light: bool) -> None:
    parts = [b"data: %d\n\n" % number for number in range(20)]
    for level in (1, LEVELS[coding], MOST_LEVEL[coding]):
        one = COMPRESSORS[coding](level, light)
        sent = b""
        for number, part in enumerate(parts):
            sent += one.squeeze(memoryview(part))
            assert plain(coding, sent) == b"".join(parts[: number + 1])
        sent += one.finish(b"end")
        assert plain(coding, sent) == b"".join(parts) + b"end"


@pytest.mark.parametrize("coding", COMPRESSORS)
def test_a_high_level_is_quick_for_less(coding: str) -> None:
    most = [quick(coding, level) for level in range(1, MOST_LEVEL[coding] + 1)]
    assert most == sorted(most, reverse=True) and most[0] == quick(coding, LEVELS[coding]) == 64 * 1024 > most[-1]


def test_zstd_has_no_tables_for_larger_windows_than_ours() -> None:
    """At the levels that would have them they are named, each smaller than what level 19 takes by itself."""
    given = []

    class Library:
        CompressionParameter = zstd.CompressionParameter

        @staticmethod
        def ZstdCompressor(options: dict[int, int]) -> Any:
            given.append(options)
            return zstd.ZstdCompressor(options=options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codings, "_zstd", lambda: Library)
        for level in (6, 7, 19):
            assert plain("zstd", COMPRESSORS["zstd"](level, False).finish(TEXT)) == TEXT
    key = zstd.CompressionParameter
    assert [options.get(key.hash_log) for options in given] == [None, 19, 19]
    assert [options.get(key.chain_log) for options in given] == [None, 18, 18]


def coded(coding: bytes, data: bytes) -> bytes:
    if coding in (b"br", b"zstd"):
        return bytes(brotli.compress(data, quality=5) if coding == b"br" else zstd.compress(data))
    one = compressobj(6, wbits=15 if coding == b"deflate" else 31)
    return one.compress(data) + one.flush()


def expanded(coding: bytes, *parts: bytes) -> tuple[bytes, bool]:
    one = EXPANDERS[coding]()
    pieces = [piece for part in parts for piece in one.pieces(part)]
    assert all(len(piece) <= 128 * 1024 for piece in pieces)
    return b"".join(pieces), one.is_whole


TEXT = b"".join(b"%d " % (number * number) for number in range(20_000))


@pytest.mark.parametrize("coding", EXPANDERS)
def test_a_body_in_parts_of_any_size(coding: bytes) -> None:
    for text in (b"", b"x", TEXT, bytes(1_000_000)):
        body = coded(coding, text)
        assert expanded(coding, body) == (text, True)
        for size in (1, 7, 1000) if len(body) < 5000 else (1000, 65536):
            assert expanded(coding, *[body[at : at + size] for at in range(0, len(body), size)]) == (text, True)


@pytest.mark.parametrize("coding", EXPANDERS)
def test_a_body_that_is_cut_is_not_whole(coding: bytes) -> None:
    body = coded(coding, b"hello " * 30)
    for end in range(1, len(body)):
        assert not expanded(coding, body[:end])[1]


@pytest.mark.parametrize("coding", EXPANDERS)
def test_what_follows_the_end_is_broken(coding: bytes) -> None:
    body = coded(coding, b"hello")
    for parts in ([body + b"garbage"], [body, b"garbage"], [body + bytes(8)]):
        with pytest.raises(Broken):
            expanded(coding, *parts)
    with pytest.raises(Broken):
        expanded(coding, b"this is no such thing")


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
def test_several_bodies_behind_one_another(coding: bytes) -> None:
    one, other = coded(coding, b"one "), coded(coding, b"other")
    assert expanded(coding, one + other) == (b"one other", True)
    assert expanded(coding, one, other) == (b"one other", True)
    many = EXPANDERS[coding]().pieces((coded(coding, b"") + one) * 100)
    assert [*many] == [b"", b"one ", b""] * 100, "the end of each is told"


def test_deflate_is_one_body_only() -> None:
    with pytest.raises(Broken):
        expanded(b"deflate", coded(b"deflate", b"one") * 2)


def test_a_checksum_that_is_wrong() -> None:
    body = coded(b"gzip", b"hello")
    with pytest.raises(Broken):
        expanded(b"gzip", body[:-8] + bytes(4) + body[-4:])


def test_a_window_that_is_too_large() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 24}
    to = zstd.ZstdCompressor(options=options)
    with pytest.raises(Broken):
        expanded(b"zstd", to.compress(bytes(32 << 20)) + to.flush())


@given(st.binary(max_size=600))
def test_any_accept_encoding_can_be_read(accept: bytes) -> None:
    assert chosen(accept, OURS) in (*OURS, b"")


@pytest.mark.parametrize("coding", EXPANDERS)
@given(st.data())
def test_any_body_is_expanded_or_broken(coding: bytes, data: st.DataObject) -> None:
    """Bytes that were changed, taken out or put in somewhere, in parts of any size."""
    body = bytearray(coded(coding, data.draw(st.binary(max_size=300))) * data.draw(st.integers(1, 3)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    cut = data.draw(st.integers(0, len(body)))
    try:
        expanded(coding, bytes(body[:cut]), bytes(body[cut:]))
    except Broken:
        pass
