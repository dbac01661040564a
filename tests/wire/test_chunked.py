"""The chunked coding, decoded strictly and from any pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import ChunkedBody, WireError
from tests.wire.test_properties import A_FEW, Steps


def decode(*pieces: bytes) -> tuple[bytes, ChunkedBody]:
    body = ChunkedBody()
    taken = b""
    for index, piece in enumerate(pieces):
        if body.done:
            body.rest += b"".join(pieces[index:])
            break
        taken += b"".join(body.feed(piece))
    return taken, body


@pytest.mark.parametrize(
    ("data", "expected", "rest", "trailers"),
    [
        (b"0\r\n\r\n", b"", b"", []),
        (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET", []),
        (b"00005\r\nhello\r\n000\r\n\r\n", b"hello", b"", []),
        (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789", b"", []),
        (b"2;a\r\nok\r\n0;b\r\n\r\n", b"ok", b"", []),
        (b'2 ; a = b ; c="d;\\"e"\r\nok\r\n0\r\n\r\n', b"ok", b"", []),
        (b"2\r\nok\r\n0\r\nX-T: a \r\nx-u:b\r\n\r\nrest", b"ok", b"rest", [(b"x-t", b"a"), (b"x-u", b"b")]),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b"", []),
    ],
)
def test_chunks(data: bytes, expected: bytes, rest: bytes, trailers: list[tuple[bytes, bytes]]) -> None:
    for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
        taken, body = decode(*pieces)
        assert body.done
        assert (taken, body.rest, body.trailers) == (expected, rest, trailers)


BAD_CHUNKS = [
    b"5\nhello\r\n",
    b"5\rhello\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5\r\nhelloo\r\n0\r\n\r\n",
    b"5\r\nhello\r\r\n",
    b"\r\n",
    b"x\r\n",
    b" 5\r\nhello\r\n",
    b"+5\r\nhello\r\n",
    b"-5\r\nhello\r\n",
    b"0x5\r\nhello\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"5 5\r\nhello\r\n",
    b"5_0\r\n",
    b"5,5\r\n",
    b"10000000000000000\r\n",
    b"fffffffffffffffff\r\n",
    b"5;\r\nhello\r\n",
    b"5;=x\r\nhello\r\n",
    b"5;a=\r\nhello\r\n",
    b'5;a="b\r\nhello\r\n',
    b"5;a=b c\r\nhello\r\n",
    b"5;a\0\r\nhello\r\n",
    b"5;a\nb\r\nhello\r\n",
    b"5;" + b"a" * 600 + b"\r\nhello\r\n",
    b"0" * 16 + b"\r\n\r\n",
    b"0\r\nX : a\r\n\r\n",
    b"0\r\n folded\r\n\r\n",
    b"0\r\nX: a\n\r\n\r\n",
    b"0\r\nX: \0\r\n\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\n" + b"X: y\r\n" * 4000 + b"\r\n",
]


@pytest.mark.parametrize("data", BAD_CHUNKS, ids=lambda data: repr(data[:24]))
def test_bad_chunks(data: bytes) -> None:
    for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
        with pytest.raises(WireError) as raised:
            decode(*pieces, b"5\r\nhello\r\n0\r\n\r\n" * 2)
        assert raised.value.status == 400


@pytest.mark.parametrize("cut", range(1, len(b"2\r\nok\r\n0\r\n\r\n")))
def test_a_body_without_its_last_bytes_is_not_whole(cut: int) -> None:
    _, body = decode(b"2\r\nok\r\n0\r\n\r\n"[:-cut])
    assert not body.done


@pytest.mark.parametrize("data", [b"5;" + b"a" * 511, b"1" * 16, b"0\r\n" + b"X: y\r\n" * 4000])
def test_what_an_unfinished_line_makes_us_hold_is_bounded(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    st.lists(st.integers(0, 400), max_size=8),
    st.binary(max_size=8),
)
def test_chunks_survive_any_split(pieces: list[bytes], cuts: list[int], rest: bytes) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n" + rest
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    taken, body = decode(*(data[start:end] for start, end in pairwise(edges) if start < end))
    assert body.done
    assert (taken, body.rest) == (b"".join(pieces), rest)


def test_no_body_costs_more_than_a_few_steps_for_each_byte() -> None:
    data = b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
    with Steps() as steps:
        decode(data)
    assert steps.count <= A_FEW * len(data)
