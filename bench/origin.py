"""The origin behind every proxy: fixed answers, as cheap as Python can give them.

``python -m bench.origin`` binds a free loopback port, prints it on one line and serves until it is ended.
``GET /large`` is 1 MiB, any other GET a small document; a POST is read to its end and answered with its length,
so that a generator which knows what it sent sees at once when a proxy lost a byte.
"""

import asyncio
import contextlib
import gc
import re
from typing import cast

import uvloop

BACKLOG = 4096
LARGE_LENGTH = 1 << 20
HEAD_END = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)


def answer(content_type: str, body: bytes) -> bytes:
    """A whole response with the ten fields an application behind a framework usually sends."""
    fields = (
        ("Server", "origin"),
        ("Date", "Sat, 21 Nov 2026 08:00:00 GMT"),
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "private, max-age=0, must-revalidate"),
        ("ETag", '"5f3c-62b1f0a9c4d80"'),
        ("Last-Modified", "Fri, 20 Nov 2026 17:31:08 GMT"),
        ("Vary", "Accept-Encoding, Cookie"),
        ("X-Request-Id", "0b8f6a1e-7d0c-4e55-9a53-1f2f6f0c9d21"),
        ("X-Content-Type-Options", "nosniff"),
    )
    head = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    return head.encode() + body


SMALL_BODY = b'{"id": 42, "name": "A small document", "tags": ["one", "two", "three"], "text": "%s"}\n' % (b"x" * 216)
SMALL = answer("application/json; charset=utf-8", SMALL_BODY)
LARGE = answer("application/octet-stream", b"\x2a" * LARGE_LENGTH)


class Origin(asyncio.Protocol):
    """One connection; requests are answered one after the other."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.held = b""  # a head that has not ended yet
        self.missing = 0  # bytes of a counted body still to come
        self.length = 0  # of the body being read
        self.chunks: ChunkedBody | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        # Nearly always: one whole GET in one piece.
        if data.startswith(b"GET ") and data.endswith(HEAD_END) and not self.held:
            self.transport.write(LARGE if data.startswith(b"GET /large") else SMALL)
            return
        while data:
            data = self.take(data)

    def take(self, data: bytes) -> bytes:
        """Use up what belongs to the current message and return the rest."""
        if self.missing:
            used = min(self.missing, len(data))
            self.missing -= used
            if not self.missing:
                self.confirm()
            return data[used:]
        if self.chunks is not None:
            rest = self.chunks.feed(data)
            if self.chunks.ended:
                self.length, self.chunks = self.chunks.length, None
                self.confirm()
            return rest
        return self.begin(self.held + data)

    def begin(self, data: bytes) -> bytes:
        end = data.find(HEAD_END)
        if end < 0:
            self.held = data
            return b""
        self.held = b""
        head, rest = data[:end], data[end + len(HEAD_END) :]
        if head.startswith(b"GET "):
            self.transport.write(LARGE if head.startswith(b"GET /large") else SMALL)
        elif counted := CONTENT_LENGTH.search(head):
            self.length = self.missing = int(counted[1])
            if not self.missing:
                self.confirm()
        else:
            self.chunks = ChunkedBody()
        return rest

    def confirm(self) -> None:
        self.transport.write(answer("text/plain", b"%d\n" % self.length))


class ChunkedBody:
    """The length of a chunked body without trailers, for proxies that send an upload on that way."""

    def __init__(self) -> None:
        self.held = b""
        self.missing = 0  # of the current chunk, with its line end
        self.length = 0
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Read on; once ``ended``, what is returned belongs to the next message."""
        data, self.held = self.held + data, b""
        while data:
            if self.missing:
                used = min(self.missing, len(data))
                self.missing -= used
                data = data[used:]
                continue
            end = data.find(b"\r\n")
            if end < 0:
                self.held = data
                return b""
            size = int(data[:end].split(b";")[0], 16)
            if size == 0:
                if len(data) < end + 4:  # the empty line that ends the body is still on its way
                    self.held = data
                    return b""
                self.ended = True
                return data[end + 4 :]
            self.length += size
            self.missing = size + 2
            data = data[end + 2 :]
        return b""


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    gc.disable()  # nothing here makes cycles; a pause would show up as a proxy's p99
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())
