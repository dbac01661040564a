"""Inputs made from seeds, always the same ones: what a fuzzer would try first."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.fuzz.acts import MARKS, SPLIT

# What means something to one parser or another.
WORDS: tuple[bytes, ...] = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b";", b",", b"\x00", b"\x0b", b"\x7f", b"\x80", b"0", b"1",
    b"-1", b"+1", b"0x1", b"00", b"1e1", b"a", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"ffffffff",
    b"chunked", b"identity", b"gzip, chunked", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n",
    b"content-length: 0\r\n", b"Host: a\r\n", b"host: b\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Connection: content-length\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n",
    b"TE: trailers\r\n", b"Trailer: x\r\n", b"Max-Forwards: 0\r\n", b"X-Forwarded-For: 1.2.3.4\r\n", b"x_y: z\r\n",
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"GET ", b"HEAD ", b"POST ", b"OPTIONS * ", b"CONNECT a:1 ", b"http://b/",
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n", b"/early", b"/parts", b"/large", b"/bare",
)  # fmt: skip


def mutated(seeds: Sequence[bytes], count: int, number: int = 1) -> Iterator[bytes]:
    """`count` inputs. number: which of the series."""
    chance = random.Random(number)
    for _ in range(count):
        data = chance.choice(seeds)
        for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
            data = _one(data, seeds, chance)
        yield data[:4096]


def _one(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
    kind = chance.randrange(8)
    if kind == 0 and data:
        return data[:at] + bytes((chance.randrange(256),)) + data[min(len(data), at + 1) :]
    if kind == 1:
        return data[:at] + data[end:]
    if kind == 2:
        return data[:end] + data[at:end] + data[end:]
    if kind == 3:
        return data[:at] + SPLIT + data[at:]
    if kind == 4:
        return data[:at] + chance.choice(MARKS) + data[at:]
    if kind == 5:
        other = chance.choice(seeds)
        return data[:at] + other[chance.randint(0, len(other)) :]
    if kind == 6:
        lines = data.split(b"\r\n")
        line = lines.pop(chance.randrange(len(lines)))
        lines.insert(chance.randint(0, len(lines)), line)
        return b"\r\n".join(lines)
    return data[:at] + chance.choice(WORDS) + data[at:]
