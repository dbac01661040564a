"""The example of upstreams, taken as it is: each line of it does what it says."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import access_log
from tests.support.endpoints import condition
from tests.support.gateway_process import Gateway, Start
from tests.upstream.peer import Message, Origin, Peer, dial, live

EXAMPLE = Path(__file__).parents[3] / "shared/examples/upstreams.toml"


class App:
    """An endpoint that says its name. sick: its probes fail; failing: what it answers other requests with."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_sick = False
        self.failing = 0
        self.seen: list[Message] = []
        self.origin: Origin

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            is_probe = request.start.startswith(b"GET /healthz ")
            if not is_probe:
                self.seen.append(request)
            status = (503 if self.is_sick else 200) if is_probe else self.failing or 200
            body = self.name.encode()
            await peer.send(b"HTTP/1.1 %d -\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


class Example:
    """The example between a client and its endpoints: four of "app", the canary, and the one that a name leads to."""

    def __init__(self, gateway: Gateway, apps: dict[str, App]) -> None:
        self.gateway = gateway
        self.apps = apps
        self._port = int(gateway.address().rpartition(":")[2])

    async def ask(self, path: str = "/", fields: str = "", method: str = "GET", body: bytes = b"") -> Message:
        client = await dial(self._port)
        length = f"content-length: {len(body)}\r\n" if body else ""
        await client.send(f"{method} {path} HTTP/1.1\r\nhost: a\r\n{fields}{length}\r\n".encode() + body)
        try:
            return await client.response(method.encode())
        finally:
            client.close()

    async def names(self, count: int, path: str = "/") -> Counter[str]:
        """Who answers so many requests of clients without cookies."""
        return Counter([(await self.ask(path)).body.decode() for _ in range(count)])

    async def until(self, look: Callable[[], object]) -> None:
        while not await asyncio.to_thread(look):  # noqa: ASYNC110 (a process of its own; it tells nobody)
            await asyncio.sleep(0.05)

    def condition(self, name: str) -> str:
        return condition(self.gateway, self.apps[name].origin.address)

    def logged(self) -> list[dict[str, Any]]:
        return access_log.lines(self.gateway.folder / "stdout.txt")


Check = Callable[[Example], Awaitable[None]]


async def weights_and_backup(example: Example) -> None:
    names = await example.names(50)
    assert "e4" not in names
    # Two workers, each exact over its own cycles of five.
    assert abs(names["e1"] - 30) <= 4 and abs(names["e2"] - 10) <= 4 and abs(names["e3"] - 10) <= 4


async def retries(example: Example) -> None:
    example.apps["e2"].failing = 503
    for _ in range(20):
        answer = await example.ask(method="PUT", body=b"body")
        assert answer.status == 200
    failed = [request for request in example.apps["e2"].seen if request.body == b"body"]
    assert 1 <= len(failed) <= 6  # two requests at the same time may both be the third
    await example.until(lambda: len(example.logged()) >= 20)
    retried = [line for line in example.logged() if line["retries"]]
    assert len(retried) == len(failed)
    for line in retried:
        first, last = line["attempts"]
        assert first["endpoint"] == example.apps["e2"].origin.address and first["reason"] == "destination_unavailable"
        assert last["endpoint"] == line["upstream"] and last["reason"] == ""
    await example.until(lambda: example.condition("e2") == "ejected")


async def a_post_is_not_repeated(example: Example) -> None:
    for app in example.apps.values():
        app.failing = 503
    assert (await example.ask(method="POST", body=b"once")).status == 503
    assert sum(request.body == b"once" for app in example.apps.values() for request in app.seen) == 1


async def sticky(example: Example) -> None:
    first = await example.ask()
    cookie = first[b"set-cookie"].partition(b";")[0].decode()
    assert cookie.startswith("gw_app=") and b"127.0.0.1" not in first[b"set-cookie"]
    for _ in range(10):
        again = await example.ask(fields=f"cookie: {cookie}\r\n")
        assert again.body == first.body and b"set-cookie" not in again


async def probes(example: Example) -> None:
    example.apps["e1"].is_sick = True
    await example.until(lambda: example.condition("e1") == "down")
    assert set(await example.names(20)) == {"e2", "e3"}
    example.apps["e1"].is_sick = False
    await example.until(lambda: example.condition("e1") == "probation")
    names = await example.names(40)
    assert example.condition("e1") == "up"
    assert 1 <= names["e1"] <= 12  # of 24 without slow start


async def backup_and_fallback(example: Example) -> None:
    for name in ("e1", "e2", "e3"):
        example.apps[name].is_sick = True
    await example.until(lambda: all(example.condition(name) == "down" for name in ("e1", "e2", "e3")))
    assert set(await example.names(5)) == {"e4"}
    example.apps["e4"].is_sick = True
    await example.until(lambda: example.condition("e4") == "down")
    assert set(await example.names(5)) == {"canary"}
    assert (await example.ask("/mirror")).status == 503  # a route without fallback


async def split(example: Example) -> None:
    sides = {}
    for user in range(200):
        cookie = f"cookie: uid={user}\r\n"
        sides[user] = (await example.ask("/split", cookie)).body == b"canary"
    assert 8 <= sum(sides.values()) <= 36  # of 20, by four standard deviations
    for user in range(0, 200, 10):
        assert ((await example.ask("/split", f"cookie: uid={user}\r\n")).body == b"canary") is sides[user]


async def mirror(example: Example) -> None:
    for number in range(5):
        answer = await example.ask("/mirror", method="POST", body=b"copy %d" % number)
        assert (answer.status, answer.body != b"canary") == (200, True)
    await example.until(lambda: len(example.apps["canary"].seen) >= 5)
    assert sorted(request.body for request in example.apps["canary"].seen) == [b"copy %d" % at for at in range(5)]


async def named(example: Example) -> None:
    assert (await example.ask("/named")).body == b"named"


@pytest.mark.parametrize(
    "check",
    [weights_and_backup, retries, a_post_is_not_repeated, sticky, probes, backup_and_fallback, split, mirror, named],
)
def test_the_example(gateway: Start, tmp_path: Path, check: Check) -> None:
    # The example decides on the port of the name; an address of its own for each process that runs tests.
    loopback = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"

    @live
    async def run() -> None:
        async with AsyncExitStack() as stack:
            apps = {name: App(name) for name in ("e1", "e2", "e3", "e4", "canary", "named")}
            for name, app in apps.items():
                where: dict[str, Any] = {"host": loopback, "port": 9001} if name == "named" else {}
                app.origin = await stack.enter_async_context(Origin(app, **where))
            env = {f"E{number}": apps[f"e{number}"].origin.address for number in range(1, 5)}
            env |= {"E5": apps["canary"].origin.address, "DNS_NAME": loopback, "ADMIN": "127.0.0.1:0"}
            env |= {"RUN_DIR": str(tmp_path / "g0"), "WEB": "127.0.0.1:0"}
            started = await asyncio.to_thread(gateway, EXAMPLE.read_text(), tmp_path / "g0", env=env)
            await check(Example(started, apps))

    run()
