"""WebSocket through the gateway, spoken by others: the `websockets` library on both ends, and a browser."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support import access_log
from tests.support.browser import looking_at
from tests.support.chat import PLAIN, Chat, Ended
from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client
from tests.support.metrics import Metrics
from tests.support.settings import Settings
from tests.support.waiting import eventually

IDLE = '[upstreams.app.timeouts]\ntunnel_idle = "%s"\n'
MEGABYTE = 1_000_000


@pytest.fixture
def chat() -> Iterator[Chat]:
    with Chat() as one:
        yield one


@pytest.fixture
def settings(chat: Chat) -> Settings:
    return Settings(chat.address)


def opened(one: Gateway, path: str = "/echo", **more: Any) -> AbstractContextManager[ClientConnection]:
    url = f"ws://{one.address()}{path}"
    to_be: AbstractContextManager[ClientConnection] = connect(
        url, proxy=None, max_size=None, ping_interval=None, **more
    )
    return to_be


def lines(one: Gateway, count: int) -> list[dict[str, Any]]:
    """The access log, once it has this many lines; they are written a moment after the fact."""
    log = one.folder / "access.log"
    eventually(lambda: len(access_log.lines(log)) >= count, f"{count} lines in the access log")
    return access_log.lines(log)


def open_tunnels(one: Gateway) -> float:
    return Metrics(one.admin)("gateway_tunnels_open", listener="web")


def test_messages_pings_and_fragments(gateway: Start, settings: Settings) -> None:
    with opened(gateway(settings)) as socket:
        for message in ("grüße", "", b"\x00\xff" * 1000, b"", "x" * 100_000):
            socket.send(message)
            assert socket.recv(10) == message
        assert socket.ping(b"are you there").wait(10)
        socket.send(iter(["in ", "three ", "parts"]))
        assert socket.recv(10) == "in three parts"


def test_compression_is_between_the_two_ends(gateway: Start, settings: Settings, chat: Chat) -> None:
    one = gateway(settings)
    text = "all work and no play " * 50_000
    with opened(one) as socket:
        assert [extension.name for extension in socket.protocol.extensions] == ["permessage-deflate"]
        eventually(lambda: chat.extensions == [["permessage-deflate"]], "the other end has heard of it")
        socket.send(text)
        assert socket.recv(10) == text
    [line] = lines(one, 1)
    assert line["bytes_in"] < len(text) / 50 and line["bytes_out"] < len(text) / 50


def test_no_compression_where_none_was_asked_for(gateway: Start, settings: Settings, chat: Chat) -> None:
    with opened(gateway(settings), compression=None) as socket:
        assert not socket.protocol.extensions
        eventually(lambda: chat.extensions == [[]], "the other end has heard of it")


def test_a_message_of_100_megabytes_each_way(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    [worker] = one.pids()
    message = random.Random(1).randbytes(100 * MEGABYTE)
    with opened(one, compression=None) as socket:
        socket.send("warm")
        assert socket.recv(10) == "warm"
        before = psutil.Process(worker).memory_info().rss
        sending = threading.Thread(target=socket.send, args=(message,))
        sending.start()
        echo = socket.recv(60)
        sending.join()
    assert hashlib.sha256(echo if isinstance(echo, bytes) else b"").digest() == hashlib.sha256(message).digest()
    assert most_memory(worker) - before < 32 * MEGABYTE
    [line] = lines(one, 1)
    assert line["bytes_in"] > 100 * MEGABYTE and line["bytes_out"] > 100 * MEGABYTE


def most_memory(pid: int) -> int:
    """The largest resident size a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel doesn't say")


def test_the_client_ends_it(gateway: Start, settings: Settings, chat: Chat) -> None:
    with opened(gateway(settings)) as socket:
        socket.close(4001, "bye")
        assert (socket.close_code, socket.close_reason) == (4001, "bye")
    eventually(lambda: chat.ended == [Ended("/echo", 4001, "bye")])


def test_the_server_ends_it(gateway: Start, settings: Settings) -> None:
    with opened(gateway(settings), "/leave") as socket:
        socket.send("anything")
        with pytest.raises(ConnectionClosedError) as error:
            socket.recv(10)
        assert error.value.rcvd is not None
        assert (error.value.rcvd.code, error.value.rcvd.reason) == (4002, "enough")


def test_subprotocols(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    names = [Subprotocol(name) for name in ("chat.v1", "chat.v2", "other")]
    for offered, chosen in ((names, "chat.v2"), (names[:1], "chat.v1"), (None, None)):
        with opened(one, subprotocols=offered) as socket:
            assert socket.subprotocol == chosen


def test_two_hundred_at_once(gateway: Start, settings: Settings, chat: Chat) -> None:
    one = gateway(settings.but(workers=2))
    address, count, rounds = one.address(), 200, 20

    async def talk(number: int, all_open: asyncio.Barrier, looked: asyncio.Event) -> None:
        async with connect_async(f"ws://{address}/echo", proxy=None, ping_interval=None, open_timeout=60) as socket:
            await all_open.wait()
            for turn in range(rounds):
                message = f"{number} says {turn}"
                await socket.send(message)
                assert await socket.recv() == message
            await looked.wait()

    async def main() -> float:
        all_open, looked = asyncio.Barrier(count), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(talk(number, all_open, looked))
            await asyncio.to_thread(eventually, lambda: chat.open == count)
            seen = await asyncio.to_thread(open_tunnels, one)
            looked.set()
        return seen

    assert asyncio.run(main()) == count
    eventually(lambda: open_tunnels(one) == 0)
    found = lines(one, count)
    assert len(found) == count
    assert {(line["status"], line["reason"]) for line in found} == {(101, "")}


def test_a_tunnel_is_one_line_and_one_in_the_gauge(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    with opened(one, compression=None) as socket:
        began = time.monotonic()
        assert open_tunnels(one) == 1
        assert (one.folder / "access.log").read_text() == ""
        socket.send("x" * 1000)
        assert socket.recv(10) == "x" * 1000
        open_for = time.monotonic() - began
    eventually(lambda: open_tunnels(one) == 0)
    one.stop()
    [line] = lines(one, 1)
    assert (line["status"], line["method"], line["target"], line["route"], line["reason"]) == (
        101, "GET", "/echo", "app", "",
    )  # fmt: skip
    # A frame's head is 2 bytes, 2 more for a length above 125, 4 more for the mask of a client; a close says 2.
    assert line["bytes_in"] == (4 + 4 + 1000) + (2 + 4 + 2)
    assert line["bytes_out"] == (4 + 1000) + (2 + 2)
    assert line["duration_us"] >= open_for * 1e6


def test_a_tunnel_in_which_nothing_moves_is_cut(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(more=IDLE % "1s"))
    with opened(one) as socket:
        for _ in range(30):  # longer than a second in all, and never idle for as long
            socket.send("still here")
            assert socket.recv(10) == "still here"
            time.sleep(0.05)
        with pytest.raises(ConnectionClosedError) as error:
            socket.recv(30)
        assert error.value.rcvd is None
    [line] = lines(one, 1)
    assert (line["status"], line["reason"]) == (101, "tunnel_idle_timeout")


def test_a_reload_leaves_open_tunnels_to_the_old_worker(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(process={"drain_timeout": "6s"}))
    with ExitStack() as stack:
        old = [stack.enter_context(opened(one)) for _ in range(5)]
        for number, socket in enumerate(old):
            socket.send(f"before {number}")
        one.signal(signal.SIGHUP)
        eventually(lambda: one.generation() == 2)
        new = stack.enter_context(opened(one))
        new.send("new")
        assert new.recv(10) == "new"
        for number, socket in enumerate(old):
            assert socket.recv(10) == f"before {number}"
            socket.send(f"after {number}")
            assert socket.recv(10) == f"after {number}"
        eventually(lambda: {worker.generation: worker.connections for worker in one.all_workers()} == {1: 5, 2: 1})
        for socket in old:  # until the old worker's time is up
            with pytest.raises(ConnectionClosed):
                socket.recv(30)
        new.send("still")
        assert new.recv(10) == "still"
        one.settled(1)
        assert open_tunnels(one) == 1
    found = lines(one, 6)
    assert len(found) == 6 and all(line["status"] == 101 for line in found)


def test_a_tunnel_that_ends_lets_the_old_worker_go(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(process={"drain_timeout": "60s"}))
    with opened(one) as socket:
        one.signal(signal.SIGHUP)
        eventually(lambda: one.generation() == 2)
        socket.send("last")
        assert socket.recv(10) == "last"
        assert len(one.all_workers()) == 2
    one.settled(1)


def test_a_stop_ends_tunnels_with_its_deadline(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(process={"drain_timeout": "1s"}))
    with opened(one) as socket:
        one.stop()
        with pytest.raises(ConnectionClosed):
            socket.recv(10)


@pytest.mark.parametrize(
    ("path", "token"), [("/plain?never", "websocket"), ("/plain?listed", "h2c"), ("/plain?listed", "websocket2")]
)
def test_what_may_not_be_upgraded_is_a_request_like_any_other(
    gateway: Start, settings: Settings, chat: Chat, path: str, token: str
) -> None:
    never = '[[routes]]\nname = "never"\nquery = { never = "" }\nupstream = "app"\nupgrade = []\n'
    one = gateway(settings.but(more=never))
    fields = {
        "connection": "Upgrade",
        "upgrade": token,
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with Client(one.address()) as client:
        for _ in range(2):
            client.send("GET", path, fields=fields)
            answer = client.answer()
            assert (answer.status, answer.body) == (200, PLAIN)
    assert [asked for asked, _ in chat.asked] == [path] * 2
    for _, seen in chat.asked:
        assert "upgrade" not in seen and "upgrade" not in seen.get("connection", "").lower()
    assert [line["status"] for line in lines(one, 2)] == [200, 200]


def test_a_browser(gateway: Start, settings: Settings, chat: Chat, tmp_path: Path) -> None:
    """Its page and its socket come through the gateway, and so does what it has to say about them."""
    one = gateway(settings)
    with looking_at(f"http://{one.address()}/page", tmp_path) as log:
        eventually(lambda: chat.reports, f"the browser says what came of it; {log}", 60)
    [said] = chat.reports
    assert said.pop("extensions").startswith("permessage-deflate")
    assert said == {"text": "hello", "same": "true", "code": "4001", "clean": "true"}
    [tunnel] = [line for line in lines(one, 3) if line["status"] == 101]
    assert (tunnel["target"], tunnel["reason"]) == ("/echo", "")
