"""A gateway within a test: the whole data path of a worker in the test's own event loop, before an origin that answers
by a script. Only loopback sockets are used, and no plug-in of a test framework is needed:

    import asyncio
    from gateway import testing

    def test_a_greeting_is_added() -> None:
        async def scene() -> None:
            origin = testing.Origin(testing.Answer(body=[b"hel", b"lo"], headers={"content-type": "text/plain"}))
            layer = {"kind": "hooks", "use": "my_hooks:Hooks", "options": {"greeting": "hi"}}
            async with testing.Gateway(middleware=[layer], origin=origin, python_path=["conf/plugins"]) as gateway:
                response = await gateway.get("/x", headers={"x-tenant": "acme"})
                assert (response.status, response.body) == (200, b"hello")
                assert response["x-greeting"] == "hi"
                assert origin.requests[0].target == "/x"
                assert (await gateway.outcome()).reason == ""

        asyncio.run(scene())

What the gateway has to say, such as why a plug-in failed, it says to the logger "gateway.middleware". There is no
master and no observer: nothing is probed or looked up, and a reload is another `Gateway`, which imports plug-ins anew.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from gateway.config.load import load
from gateway.config.model import Config
from gateway.config.upstreams import Endpoint
from gateway.exchange import Exchange
from gateway.listeners.http1 import Http1Connection
from gateway.metrics.plan import Plan
from gateway.middleware import KINDS
from gateway.scoreboard import Scoreboard
from gateway.worker.assembly import Common, assemble, running_wheel
from gateway.worker.plugins import Plugins

__all__ = ["Answer", "Cut", "Gateway", "Origin", "Outcome", "Recorded", "Response"]

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
_LIMIT = 1 << 20  # bytes of one line or head
_PATIENCE = 10.0  # seconds for what ends in milliseconds unless it hangs


class Cut(Exception):
    """A connection ended before the message on it was whole."""


@dataclass(frozen=True, slots=True)
class _Message:
    """A message as it came. head: its bytes, to the end of the empty line; fields: names in lower case."""

    head: bytes
    fields: tuple[tuple[str, str], ...]
    body: bytes = b""
    trailers: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, name: str) -> str:
        """The first value of a field. Raises KeyError."""
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return values[0]

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for known, value in self.fields if known == name.lower()]

    @property
    def start(self) -> list[str]:
        """The three parts of its first line."""
        return self.head.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)


@dataclass(frozen=True, slots=True)
class Recorded(_Message):
    """A request as the origin got it."""

    @property
    def method(self) -> str:
        return self.start[0]

    @property
    def target(self) -> str:
        return self.start[1]


@dataclass(frozen=True, slots=True)
class Response(_Message):
    """A response as the client got it. interim: the 1xx before it. is_whole: False when it was cut;
    then `body` is what was read before that was heard of, which may be nothing."""

    interim: tuple[int, ...] = ()
    is_whole: bool = True

    @property
    def status(self) -> int:
        return int(self.start[1])


@dataclass(frozen=True, slots=True)
class Answer:
    """What an origin answers.

    body: bytes go with a Content-Length, unless `headers` have one, and a list of them as that many chunks. delay:
    seconds before the head; pause: before each chunk. trailers: behind chunks. cut: the connection ends where the last
    chunk, or the second half of the bytes, would come.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes | Sequence[bytes] = b""
    delay: float = 0.0
    pause: float = 0.0
    trailers: Headers = ()
    cut: bool = False


Script = Answer | Sequence[Answer] | Callable[[Recorded], Answer | Awaitable[Answer]]


class Origin:
    """A server on a free loopback port. script: one answer for all requests, one for each in turn and the last for all
    others, or a function. requests: what it was asked, in order."""

    def __init__(self, script: Script = Answer(body=b"hello\n")) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.requests: list[Recorded] = []
        self.address = ""

    async def __aenter__(self) -> Origin:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=_LIMIT)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception) and error is None:
                raise result  # of the script

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head, fields = await _head(reader)
                body, trailers, _ = await _body(reader, dict(fields), ends=False)
                request = Recorded(head, fields, body, trailers)
                self.requests.append(request)
                answer = await self._answer(request)
                await asyncio.sleep(answer.delay)
                await _send(writer, answer, request.method == "HEAD")
                if answer.cut:
                    return
        except (Cut, OSError):
            pass  # the gateway ended the connection
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _answer(self, request: Recorded) -> Answer:
        script = self._script
        if isinstance(script, Answer):
            return script
        if not callable(script):
            return script[min(len(self.requests), len(script)) - 1]
        made = script(request)
        return await made if inspect.isawaitable(made) else made


async def _send(writer: asyncio.StreamWriter, answer: Answer, is_head: bool) -> None:
    fields = _pairs(answer.headers)
    names = {name.lower() for name, _ in fields}
    body = answer.body
    bodyless = answer.status in (204, 304) or answer.status < 200
    if isinstance(body, bytes):
        if not bodyless and "content-length" not in names:
            fields.append(("content-length", str(len(body))))
        body = body[: len(body) // 2] if answer.cut else body
        parts = [body] if body else []
    else:
        fields.append(("transfer-encoding", "chunked"))
        parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in body if part]
        if not answer.cut:
            parts.append(b"0\r\n" + _lines(_pairs(answer.trailers)) + b"\r\n")
    writer.write(f"HTTP/1.1 {answer.status} Scripted\r\n".encode() + _lines(fields) + b"\r\n")
    for part in parts if not (bodyless or is_head) else ():
        await writer.drain()
        if answer.pause:
            await asyncio.sleep(answer.pause)
        writer.write(part)
    await writer.drain()


class Outcome(NamedTuple):
    """What the gateway itself says of a request that is over, as its access log would."""

    route: str
    status: int
    reason: str
    retries: int
    user: str


@dataclass(slots=True)
class _State:
    """What uvicorn keeps of its connections."""

    connections: set[Any] = field(default_factory=set)
    tasks: set[Any] = field(default_factory=set)
    total_requests: int = 0


class Gateway:
    """The data path of one worker, and a client of it. An async context manager."""

    def __init__(
        self,
        config: Mapping[str, Any] | str | Path | None = None,
        *,
        origin: Origin | None = None,
        middleware: Sequence[Mapping[str, Any]] = (),
        python_path: Sequence[str | Path] = (),
    ) -> None:
        """config: a configuration, as a file or as what a file would say, of which the listener, the upstream "origin"
        and a route to it may be left out. origin: stands behind every upstream, instead of the endpoints there; the
        gateway starts and stops it. middleware: around all routes, inside what the configuration has. python_path:
        directories besides those of the configuration. Raises ValueError and ConfigErrors."""
        self.origin = origin or Origin()
        self._config = _config(config, middleware)
        self._python_path = [*self._config.process.python_path, *(str(Path(one).absolute()) for one in python_path)]
        self._state = _State()
        self._told: asyncio.Queue[Exchange] = asyncio.Queue()
        self._clients: set[asyncio.StreamWriter] = set()
        self._stack = AsyncExitStack()
        self._port = 0

    async def __aenter__(self) -> Gateway:
        """Raises StartError for what can't be assembled, such as a plug-in that can't be imported."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.origin)
            config = _behind(self._config, self.origin.address)
            board = Scoreboard.create()
            stack.callback(board.close)
            plan = Plan()
            plan.cover(config)
            made = assemble(
                config,
                plan,
                board,
                board.take(1, []),
                running_wheel(),
                self._told.put_nowait,
                common=Common(plugin=Plugins(self._python_path)),
            )
            made.clock.date = formatdate(usegmt=True).encode()
            await stack.enter_async_context(made.app.router.lifespan_context(made.app))
            [entry] = made.http_entries
            entry.begin(asyncio.get_running_loop())
            make = partial(Http1Connection, None, self._state, {}, entry)
            server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
            self._port = server.sockets[0].getsockname()[1]
            stack.push_async_callback(self._over)
            stack.callback(server.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, at)

    async def _over(self) -> None:
        """Every client leaves, and nothing is under way any more."""
        for writer in self._clients:
            writer.transport.abort()
        async with asyncio.timeout(_PATIENCE):
            while self._state.connections or self._state.tasks:  # noqa: ASYNC110 (they tell nobody)
                await asyncio.sleep(0.001)

    async def get(self, target: str = "/", headers: Headers = ()) -> Response:
        return await self.request("GET", target, headers)

    async def post(self, target: str = "/", body: bytes | Sequence[bytes] = b"", headers: Headers = ()) -> Response:
        return await self.request("POST", target, headers, body)

    async def request(
        self, method: str, target: str = "/", headers: Headers = (), body: bytes | Sequence[bytes] = b""
    ) -> Response:
        """One request on a connection of its own. body: bytes, or a list of them that go out as chunks, each once what
        came before it was read. Raises Cut when there is no answer at all."""
        fields = _pairs(headers)
        names = {name.lower() for name, _ in fields}
        if "host" not in names:
            fields.insert(0, ("host", "example.com"))
        parts: list[bytes] = []
        if not isinstance(body, bytes):
            fields.append(("transfer-encoding", "chunked"))
            parts = [*(b"%x\r\n%b\r\n" % (len(part), part) for part in body if part), b"0\r\n\r\n"]
        elif body or method in ("POST", "PUT", "PATCH"):
            fields.append(("content-length", str(len(body))))
            parts = [body]
        return await self.raw(
            f"{method} {target} HTTP/1.1\r\n".encode("latin-1") + _lines(fields) + b"\r\n", *parts, method=method
        )

    async def raw(self, *parts: bytes, method: str = "GET") -> Response:
        """The response to these bytes. Raises Cut."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT)
        self._clients.add(writer)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            return await _response(reader, method)
        except ConnectionError as error:
            raise Cut(str(error)) from None
        finally:
            self._clients.discard(writer)
            writer.close()

    async def outcome(self) -> Outcome:
        """What became of the next request, in the order in which they ended."""
        async with asyncio.timeout(_PATIENCE):
            exchange = await self._told.get()
        route = "" if exchange.route is None else exchange.route.name
        return Outcome(route, exchange.status, exchange.reason, exchange.retries, exchange.user)


def _config(config: Mapping[str, Any] | str | Path | None, middleware: Sequence[Mapping[str, Any]]) -> Config:
    if isinstance(config, str | Path):
        read = load(config, kinds=KINDS)
        if not middleware:
            return read
        alone = {"middleware": middleware, "listeners": [{"name": "web", "listen": "127.0.0.1:0"}]}
        more = Config.model_validate(alone, context=KINDS).middleware
        return read.model_copy(update={"middleware": (*read.middleware, *more)})
    data: dict[str, Any] = {
        "listeners": [{"name": "web", "listen": "127.0.0.1:0"}],
        "upstreams": {"origin": {"endpoints": ["127.0.0.1:1"]}},
        **(config or {}),
    }
    data.setdefault("routes", [{"name": "all", "upstream": next(iter(data["upstreams"]))}])
    data["middleware"] = [*data.get("middleware", ()), *middleware]
    return Config.model_validate(data, context=KINDS)


def _behind(config: Config, address: str) -> Config:
    """The same with this one endpoint behind every upstream."""
    one = (Endpoint.model_validate(address),)
    moved = {
        name: upstream.model_copy(update={"endpoints": one, "discovery": None, "health": None})
        for name, upstream in config.upstreams.items()
    }
    return config.model_copy(update={"upstreams": moved})


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    return [*(headers.items() if isinstance(headers, Mapping) else headers)]


def _lines(fields: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")


async def _head(reader: asyncio.StreamReader) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Cut(f"no whole head: {error}") from None
    return head, _fields(head.split(b"\r\n")[1:-2])


def _fields(lines: Iterable[bytes]) -> tuple[tuple[str, str], ...]:
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return tuple((name.lower(), value.strip(" \t")) for name, _, value in pairs)


async def _response(reader: asyncio.StreamReader, method: str) -> Response:
    interim: list[int] = []
    while True:
        head, fields = await _head(reader)
        status = int(head.split(b" ", 2)[1])
        if status >= 200 or status == 101:
            break
        interim.append(status)
    if method == "HEAD" or status in (101, 204, 304):
        return Response(head, fields, interim=tuple(interim))
    body, trailers, is_whole = await _body(reader, dict(fields), ends=True)
    return Response(head, fields, body, trailers, tuple(interim), is_whole)


async def _body(
    reader: asyncio.StreamReader, fields: Mapping[str, str], ends: bool
) -> tuple[bytes, tuple[tuple[str, str], ...], bool]:
    """A body as its head frames it: (body, trailers, whether it is whole). ends: whether one that is not framed goes on
    until the connection ends; else there is none."""
    if "chunked" in fields.get("transfer-encoding", ""):
        return await _chunks(reader)
    if "content-length" not in fields and not ends:
        return b"", (), True
    wanted = int(fields.get("content-length", -1))
    try:
        return await (reader.readexactly(wanted) if wanted >= 0 else reader.read()), (), True
    except asyncio.IncompleteReadError as error:
        return error.partial, (), False
    except ConnectionError:
        return b"", (), False


async def _chunks(reader: asyncio.StreamReader) -> tuple[bytes, tuple[tuple[str, str], ...], bool]:
    body = bytearray()
    try:
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        lines = []
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            lines.append(line[:-2])
    except (asyncio.IncompleteReadError, ConnectionError):
        return bytes(body), (), False
    return bytes(body), _fields(lines), True
