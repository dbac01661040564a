"""A WebSocket server to stand behind the gateway: a thread with an event loop of its own on a free loopback port.

/echo           every message comes back
/length         every message is answered with its length
/leave          the first message is answered with the end: code 4002
/page           a page whose script opens /echo, and says at /report what came of it
/plain          a line of text, upgrade or not
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

PLAIN = b"plain\n"
SUBPROTOCOLS = ("chat.v2", "chat.v1")

PAGE = b"""<!doctype html><title>chat</title><script>
const heard = {text: "", same: false, error: ""};
const sent = new Uint8Array(1 << 20).map((_, index) => index * 31);
const socket = new WebSocket(`ws://${location.host}/echo`);
socket.binaryType = "arraybuffer";
socket.onopen = () => socket.send("hello");
socket.onerror = () => heard.error = "error";
socket.onmessage = event => {
  if (typeof event.data === "string") {
    heard.text += event.data;
    socket.send(sent);
  } else {
    const came = new Uint8Array(event.data);
    heard.same = came.length === sent.length && came.every((byte, index) => byte === sent[index]);
    socket.close(4001, "bye");
  }
};
socket.onclose = event => fetch("/report?" + new URLSearchParams(
  {...heard, code: event.code, clean: event.wasClean, extensions: socket.extensions}));
</script>
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A socket that is over: its path, and how the client has closed it."""

    path: str
    code: int | None
    reason: str | None


class Chat:
    """asked: the path and fields of every request. extensions: those in use on each socket, in the order of their
    opening. A context manager."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.extensions: list[list[str]] = []
        self.ended: list[Ended] = []
        self.reports: list[dict[str, str]] = []
        self.open = 0
        self._thread = threading.Thread(target=self._run, name="chat", daemon=True)
        self._up = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._server: Server

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Chat:
        self._thread.start()
        assert self._up.wait(10), "the chat did not come up"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._server.close, True)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = await serve(
            self._talk,
            "127.0.0.1",
            0,
            process_request=self._asked,
            subprotocols=[Subprotocol(name) for name in SUBPROTOCOLS],
            select_subprotocol=_first_known,
            max_size=None,
            ping_interval=None,
            close_timeout=1,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._up.set()
        await self._server.wait_closed()

    def _asked(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to what is no socket; None for one."""
        parts = urlsplit(request.path)
        self.asked.append((request.path, {name.lower(): value for name, value in request.headers.raw_items()}))
        if parts.path == "/page":
            return _response(PAGE, "text/html; charset=utf-8")
        if parts.path == "/report":
            self.reports.append({name: values[0] for name, values in parse_qs(parts.query).items()})
            return _response(b"")
        if parts.path == "/plain":
            return _response(PLAIN)
        if parts.path == "/favicon.ico":
            return _response(b"", status=HTTPStatus.NOT_FOUND)
        return None

    async def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path = connection.request.path
        self.extensions.append([extension.name for extension in connection.protocol.extensions])
        self.open += 1
        try:
            async for message in connection:
                if path == "/leave":
                    await connection.close(4002, "enough")
                else:
                    await connection.send(message if path == "/echo" else str(len(message)))
        except ConnectionClosed:
            pass
        finally:
            self.open -= 1
            self.ended.append(Ended(path, connection.close_code, connection.close_reason))


def _first_known(connection: ServerConnection, offered: object) -> Subprotocol | None:
    """A client may offer none; else the first of ours."""
    assert isinstance(offered, list | tuple)
    return next((Subprotocol(name) for name in SUBPROTOCOLS if name in offered), None)


def _response(body: bytes, kind: str = "text/plain", status: HTTPStatus = HTTPStatus.OK) -> Response:
    fields = Headers([("Content-Type", kind), ("Content-Length", str(len(body))), ("Connection", "close")])
    return Response(status, status.phrase, fields, body)
