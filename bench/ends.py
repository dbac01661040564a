"""Both ends of relayed connections, as programs: ``python -m bench.ends origin`` and ``... load PORT``.

The origin does what the first byte of a connection says: ECHO answers it, FILL sends for as long as somebody takes it.
The load takes a command a line and answers each with a line of JSON (`Seen`):

    bulk CONNECTIONS SECONDS         takes what FILL sends
    connections AT_ONCE SECONDS      opens, gets one byte echoed, closes; over and over
    hold CONNECTIONS                 opens so many, has a byte echoed on each, and keeps them
"""

import asyncio
import contextlib
import socket
import sys
import threading
import time
from typing import Any

import msgspec
import uvloop

ECHO, FILL = b"e", b"f"
PIECE = bytes(256 * 1024)
OPENING = 50  # connections that are opened at once to be held
PATIENCE = 30.0  # seconds for any single byte


class Seen(msgspec.Struct, frozen=True):
    """What came of a command. count: bytes, or connections."""

    count: int
    seconds: float
    errors: int = 0


# The origin.


class Origin(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.filling = False
        self.full = False

    def data_received(self, data: bytes) -> None:
        if data[:1] == FILL:
            self.filling = True
            self.fill()
        else:
            self.transport.write(data)

    def fill(self) -> None:
        if self.filling and not self.full and not self.transport.is_closing():
            self.transport.write(PIECE)
            asyncio.get_running_loop().call_soon(self.fill)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self.fill()

    def connection_lost(self, error: Exception | None) -> None:
        self.filling = False


async def originate() -> None:
    sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(sock.getsockname()[1], flush=True)
    server = await asyncio.get_running_loop().create_server(Origin, sock=sock, backlog=4096)
    await server.serve_forever()


# The load.


def bulk(port: int, connections: int, seconds: float) -> Seen:
    counts = [0] * connections
    failed = [False] * connections
    began = time.monotonic()

    def take(number: int) -> None:
        buffer = bytearray(1 << 20)
        try:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
                sock.sendall(FILL)
                while time.monotonic() < began + seconds:
                    size = sock.recv_into(buffer)
                    counts[number] += size
                    failed[number] |= not size
                    if not size:
                        return
        except OSError:
            failed[number] = True

    threads = [threading.Thread(target=take, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Seen(sum(counts), time.monotonic() - began, sum(failed))


class Client(asyncio.Protocol):
    """One connection that has a byte echoed. over: told when it has come, or can't come any more."""

    def __init__(self, over: "asyncio.Future[bool]", keeps: bool = False) -> None:
        self.over = over
        self.keeps = keeps

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(ECHO)

    def data_received(self, data: bytes) -> None:
        if self.keeps and not self.over.done():
            self.over.set_result(data == ECHO)
        elif not self.keeps:
            self.good = data == ECHO
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(not self.keeps and error is None and getattr(self, "good", False))


async def one(port: int, keeps: bool = False) -> tuple[bool, Client | None]:
    """Whether a connection got its byte; and, when it is kept, the connection."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[bool] = loop.create_future()
    try:
        _, client = await loop.create_connection(lambda: Client(over, keeps), "127.0.0.1", port)
    except OSError:
        return False, None
    return await over, client


async def connections(port: int, at_once: int, seconds: float) -> Seen:
    began = time.monotonic()
    count = errors = 0

    async def again_and_again() -> None:
        nonlocal count, errors
        while time.monotonic() < began + seconds:
            good, _ = await one(port)
            count += good
            errors += not good

    await asyncio.gather(*(again_and_again() for _ in range(at_once)))
    return Seen(count, time.monotonic() - began, errors)


async def hold(port: int, wanted: int) -> tuple[Seen, list[Client]]:
    began = time.monotonic()
    held: list[Client] = []
    errors = 0
    for at in range(0, wanted, OPENING):
        for good, client in await asyncio.gather(*(one(port, keeps=True) for _ in range(min(OPENING, wanted - at)))):
            errors += not good
            if client is not None:
                held.append(client)
    return Seen(len(held), time.monotonic() - began, errors), held


async def load(port: int) -> None:
    loop = asyncio.get_running_loop()
    held: list[Client] = []
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match line.split():
            case ["bulk", number, seconds]:
                seen = await loop.run_in_executor(None, bulk, port, int(number), float(seconds))
            case ["connections", number, seconds]:
                seen = await connections(port, int(number), float(seconds))
            case ["hold", number]:
                seen, more = await hold(port, int(number))
                held += more
            case _:
                raise SystemExit(f"no such command: {line}")
        print(msgspec.json.encode(seen).decode(), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(originate() if sys.argv[1] == "origin" else load(int(sys.argv[2])))
