"""The relay's bounds: what a tunnel may carry, and who is asked about it. How it relays, the listeners' tests show."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from gateway import relay as relaying
from gateway.relay import Bounds, End, Relay
from gateway.worker.assembly import running_wheel
from tests.listeners.site import until
from tests.listeners.test_tcp import hold
from tests.upstream.peer import Peer, live


class Pipe:
    """A relay between two pairs of sockets: what a test holds are the far ends."""

    def __init__(self, relay: Relay, peers: list[Peer], ends: list[End]) -> None:
        self.relay = relay
        self.ends = ends
        self.left, self.right = peers
        self.done = asyncio.ensure_future(relay.run(*ends))


@asynccontextmanager
async def pipe(
    bounds: Bounds,
    idle: float = 60.0,
    rest: bytes = b"",
    room: int = 0,
    listen: Callable[[bytes], bool] | None = None,
) -> AsyncIterator[Pipe]:
    """room: bytes that the kernel's buffers have on the left, 0 for its own choice."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        peers: list[Peer] = []
        ends: list[End] = []
        for _ in range(2):
            near = socket.create_connection(server.getsockname())
            far, _ = server.accept()
            for sock in (near, far) if room and not ends else ():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
            transport.pause_reading()
            ends.append(End(transport, b""))
            peers.append(Peer(*await asyncio.open_connection(sock=far, limit=1 << 20)))
    ends[0] = ends[0]._replace(rest=rest)
    one = Pipe(Relay(running_wheel(), idle, bounds, listen), peers, ends)
    yield one
    for peer in peers:
        peer.writer.transport.abort()
    await one.done


@live
async def test_the_most_bytes_are_those_of_both_directions() -> None:
    async with pipe(Bounds(most=1000)) as one:
        await one.left.send(bytes(600))
        await one.right.reader.readexactly(600)
        await one.right.send(bytes(400))
        await one.left.reader.readexactly(400)
        assert one.relay.sent == (600, 400)
        await one.left.send(b"x")
        for peer in (one.left, one.right):
            with pytest.raises(ConnectionResetError):
                await peer.reader.read()
        await one.done
        assert one.relay.reason == "tunnel_too_large"
        assert one.relay.sent == (600, 400)


@live
async def test_bytes_that_came_before_count() -> None:
    async with pipe(Bounds(most=2), rest=b"abc") as one:
        await one.done
        assert (one.relay.reason, one.relay.sent) == ("tunnel_too_large", (0, 0))


@pytest.mark.parametrize("bounds", [Bounds(), Bounds(most=1000), Bounds(bandwidth=1e6)])
@live
async def test_the_first_side_is_listened_to_for_as_long_as_that_is_wanted(bounds: Bounds) -> None:
    heard: list[bytes] = []

    def listen(data: bytes) -> bool:
        heard.append(data)
        return len(heard) < 3

    async with pipe(bounds, rest=b"a", listen=listen) as one:
        for data in (b"a", b"b", b"c", b"d"):
            if data != b"a":
                await one.left.send(data)
            assert await one.right.reader.readexactly(1) == data
            await one.right.send(b"x")
            await one.left.reader.readexactly(1)
        assert heard == [b"a", b"b", b"c"]


@live
async def test_a_quota_is_asked_now_and_then_and_at_the_end() -> None:
    charged: list[tuple[int, float]] = []

    def charge(count: int, seconds: float) -> bool:
        charged.append((count, seconds))
        return True

    began = monotonic()
    async with pipe(Bounds(charge=charge)) as one:
        await one.left.send(bytes(300))
        await one.right.reader.readexactly(300)
        await until(lambda: charged)
        assert charged[0][0] == 300 and charged[0][1] >= 1.0
        await one.right.send(bytes(7))
        await one.left.reader.readexactly(7)
        one.left.close()
        one.right.close()
        await one.done
    assert sum(count for count, _ in charged) == 307
    assert sum(seconds for _, seconds in charged) <= monotonic() - began
    assert one.relay.reason == ""


@live
async def test_a_quota_that_is_used_up() -> None:
    async with pipe(Bounds(charge=lambda count, seconds: False)) as one:
        for peer in (one.left, one.right):
            with pytest.raises(ConnectionResetError):
                await peer.reader.read()
        await one.done
        assert one.relay.reason == "quota_exhausted"


@live
async def test_it_may_be_ended() -> None:
    async with pipe(Bounds()) as one:
        await one.left.send(b"x")
        await one.right.reader.readexactly(1)
        one.relay.end("drain_timeout")
        one.relay.end("too late")
        for peer in (one.left, one.right):
            with pytest.raises(ConnectionResetError):
                await peer.reader.read()
        await one.done
        assert one.relay.reason == "drain_timeout"


@live
async def test_it_may_be_ended_before_it_begins() -> None:
    async with pipe(Bounds()) as one:
        one.relay.end("drain_timeout")
        await one.done
        assert one.relay.reason == "drain_timeout"
        with pytest.raises(ConnectionResetError):
            await one.left.reader.read()


@pytest.mark.parametrize("rate", [2000.0, 150_000.0])
@live
async def test_an_end_comes_behind_what_is_held_back(rate: float) -> None:
    data = bytes(range(250)) * int(rate / 1000)
    async with pipe(Bounds(bandwidth=rate)) as one:
        await one.left.send(data)
        one.left.writer.write_eof()
        assert await one.right.ends() == data
        await one.right.send(b"answer")
        one.right.writer.write_eof()
        assert await one.left.ends() == b"answer"
        await one.done
        assert (one.relay.reason, one.relay.sent) == ("", (len(data), 6))


@live
async def test_a_slow_one_is_not_idle() -> None:
    """Bytes that wait for their turn are under way, though none comes."""
    async with pipe(Bounds(bandwidth=2000.0), idle=0.4) as one:
        await one.left.send(bytes(2000))
        assert len(await one.right.reader.readexactly(2000)) == 2000


@live
async def test_one_byte_a_second_and_less() -> None:
    async with pipe(Bounds(bandwidth=20.0), idle=5.0) as one:
        await one.left.send(b"abcdef")
        assert await one.right.reader.readexactly(6) == b"abcdef"


@live
async def test_a_reset_of_one_that_is_held_back() -> None:
    async with pipe(Bounds(bandwidth=1000.0)) as one:
        await one.left.send(bytes(100_000))
        await one.right.reader.readexactly(1)
        one.left.reset()
        with pytest.raises(ConnectionResetError):
            while True:
                await one.right.reader.readexactly(1)
        await one.done
        assert one.relay.reason == "tunnel_reset"


@live
async def test_one_that_takes_nothing_is_waited_for_beneath_the_bandwidth() -> None:
    sent = 0

    async def fill(peer: Peer) -> None:
        nonlocal sent
        while True:
            await peer.send(bytes(1 << 16))
            sent += 1 << 16

    async with pipe(Bounds(bandwidth=1e9)) as one:
        hold(one.right)
        filling: Any = asyncio.ensure_future(fill(one.left))
        stood = -1
        while stood != sent:
            stood = sent
            await asyncio.sleep(0.1)
        filling.cancel()
        hold(one.right, False)
        one.left.writer.write_eof()
        assert len(await one.right.ends()) >= sent


@live
async def test_an_end_that_is_not_read_yet_is_no_reset() -> None:
    """Both have finished sending, and the one takes its time with what the other has said: none of it is lost."""
    size = 200_000
    async with pipe(Bounds(), room=1 << 14) as one:
        hold(one.left)
        one.left.writer.write_eof()
        assert await one.right.reader.read() == b""
        writer: Any = one.right.writer.transport
        writer.write(bytes(size))
        writer.write_eof()
        assert one.relay._sides is not None
        [_, far] = one.relay._sides
        await until(lambda: far.unread)
        await asyncio.sleep(3 * relaying._WATCH)
        hold(one.left, False)
        assert len(await one.left.ends()) == size
        await one.done
        assert one.relay.reason == ""


@live
async def test_one_that_takes_nothing_for_too_long_has_not_all() -> None:
    async with pipe(Bounds(), idle=0.3, room=1 << 14) as one:
        hold(one.left)
        writer: Any = one.right.writer.transport
        writer.write(bytes(1 << 20))
        await one.done
        assert one.relay.reason == "tunnel_idle_timeout"
        hold(one.left, False)
        with pytest.raises(ConnectionResetError):
            while await one.left.reader.read(1 << 16):
                pass


def asked(end: End) -> list[int]:
    """What the kernel was told of keepalive: whether, after how long, how often, and how many times."""
    sock = end.transport.get_extra_info("socket")
    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    whether = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return [whether, *(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names)]


@live
async def test_in_a_long_tunnel_it_is_noticed_who_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel, on both sides, while what is sent goes on."""
    async with pipe(Bounds()) as one:
        await one.left.send(b"x")
        await one.right.reader.readexactly(1)
        assert [asked(end)[0] for end in one.ends] == [0, 0]
    monkeypatch.setattr(relaying, "_SHORT", 0.01)
    async with pipe(Bounds()) as one:
        await until(lambda: [asked(end) for end in one.ends] == [[1, 60, 15, 4]] * 2)
        await one.left.send(b"x")
        assert await one.right.reader.readexactly(1) == b"x"
        assert one.relay.deadline


@live
async def test_a_unix_socket_cannot_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_SHORT", 0.01)
    loop = asyncio.get_running_loop()
    ends, peers = [], []
    for _ in range(2):
        near, far = socket.socketpair()
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=near)
        transport.pause_reading()
        ends.append(End(transport, b""))
        peers.append(Peer(*await asyncio.open_unix_connection(sock=far)))
    one = Pipe(Relay(running_wheel(), 60.0, Bounds()), peers, ends)
    await until(lambda: one.relay.deadline - monotonic() > 50)  # it is no short one any more
    await one.left.send(b"x")
    assert await one.right.reader.readexactly(1) == b"x"
    for peer in peers:
        peer.writer.transport.abort()
    await one.done
