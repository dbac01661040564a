"""Accounts that several gateways keep together, and what becomes of them while the store is away."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from pydantic import ValidationError
from redis.asyncio.connection import parse_url

from gateway.errors import StartError
from gateway.middleware.limits import redis_store
from gateway.middleware.limits.redis_store import RedisStore
from gateway.middleware.rate_limit import Options
from tests.middleware.rig import Layers, hello
from tests.support.redis_server import PASSWORD, RedisServer
from tests.upstream.peer import live

SECOND = 10**9


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as one:
        yield one


def layer(url: str, **more: Any) -> dict[str, Any]:
    # A busy machine may take its time where a test is not about that.
    return {"kind": "rate_limit", "rate": "1/h", "burst": 3, "store": url, "store_timeout": "10s", **more}


def test_gateways_count_together(server: RedisServer) -> None:
    @live
    async def run() -> None:
        here, there = Layers(hello, layer(server.url)), Layers(hello, layer(server.url))
        told = [await one.ask() for one in (here, there, here, there, here)]
        assert [one.status for one in told] == [200] * 3 + [429] * 2
        assert [one[b"ratelimit"] for one in told[:3]] == [
            b'"rate_limit";r=2;t=3600',
            b'"rate_limit";r=1;t=7200',
            b'"rate_limit";r=0;t=10800',
        ]
        assert 3590 < int(told[3][b"retry-after"]) <= 3600
        assert (await there.ask(client="192.0.2.2")).status == 200
        await here.close()
        await there.close()

    run()


def test_what_a_later_limit_refuses_is_given_back(server: RedisServer) -> None:
    @live
    async def run() -> None:
        layers = Layers(hello, layer(server.url), {"kind": "rate_limit", "rate": "1/h", "burst": 1})
        assert [(await layers.ask()).status for _ in range(6)] == [200] + [429] * 5
        assert layers.refused(0) == 0 and layers.refused(1) == 5
        await layers.close()

    run()


def test_the_script_is_the_ledger(server: RedisServer) -> None:
    """The same answers for the same spending, by another clock."""

    @live
    async def run() -> None:
        store = RedisStore(server.url, 10, "app/0", "here")
        hour = 3600 * SECOND
        for depth, cost, left in (
            (10 * hour, 3 * hour, 7),
            (10 * hour, 3 * hour, 4),
            (10 * hour, 5 * hour, -1),
            (10 * hour, 4 * hour, 0),
            (2 * hour, hour, -1),  # narrower: it becomes an empty one of those, and no worse
            (10 * hour, hour, 7),
            (10 * hour, 7 * hour, 0),
        ):
            found = await store.spend(b"k", cost, depth)
            assert found is not None and left * hour <= found < left * hour + hour / 2
        await store.refund(b"k", 6 * hour)
        found = await store.spend(b"k", hour, 10 * hour)
        assert found is not None and round(found / hour) == 5
        await store.refund(b"nobody", hour)
        await store.close()

    run()


def test_who_was_refused_comes_back_at_the_rate_of_now(server: RedisServer) -> None:
    @live
    async def run() -> None:
        store = RedisStore(server.url, 10, "app/0", "here")
        for _ in range(5):
            await store.spend(b"k", 3600 * SECOND, 5 * 3600 * SECOND)
        assert await store.spend(b"k", SECOND // 100, SECOND) == -SECOND // 100
        name = server.command("KEYS", "*").split(b"\r\n")[2].decode()
        assert 0 < int(server.command("PTTL", name)[1:]) <= 1001
        await asyncio.sleep(0.02)
        found = await store.spend(b"k", SECOND // 100, SECOND)
        assert found is not None and found >= 0
        await store.close()

    run()


def test_a_key_is_kept_as_long_as_it_says_something_and_is_not_to_be_read(server: RedisServer) -> None:
    @live
    async def run() -> None:
        store = RedisStore(server.url, 10, "web/api", "here")
        await store.spend(b"a secret token", 60 * SECOND, 600 * SECOND)
        keys = server.command("KEYS", "*")
        assert b"gateway:web/api:" in keys and b"secret" not in keys
        name = keys.split(b"\r\n")[2].decode()
        assert 59_000 < int(server.command("PTTL", name)[1:]) <= 60_001
        await store.refund(b"a secret token", 30 * SECOND)
        assert 0 < int(server.command("PTTL", name)[1:]) <= 60_001
        await store.close()

    run()


def test_while_the_store_is_away_this_machine_counts_alone(
    server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(redis_store, "monotonic", lambda: now)
    caplog.set_level(logging.WARNING)

    @live
    async def run() -> None:
        nonlocal now
        layers = Layers(hello, layer(server.url))
        assert (await layers.ask()).status == 200
        server.stop()
        assert [(await layers.ask()).status for _ in range(5)] == [200] * 3 + [429] * 2
        server.start()
        assert (await layers.ask()).status == 429  # not asked again so soon
        now += 10
        assert [(await layers.ask()).status for _ in range(4)] == [200] * 3 + [429]  # it has forgotten all
        server.stop()
        assert (await layers.ask()).status == 429
        await layers.close()

    run()
    told = [record.getMessage() for record in caplog.records if record.name == "gateway.middleware"]
    assert [("is away" in text, "is back" in text) for text in told] == [(True, False), (False, True), (True, False)]
    assert PASSWORD not in caplog.text and server.path in told[0]


def test_who_waits_for_nothing_is_not_waited_for() -> None:
    """A server that takes connections and never answers."""

    @live
    async def run() -> None:
        asked = 0

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            asked += 1
            await reader.read()
            writer.close()

        other = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = other.sockets[0].getsockname()[1]
        layers = Layers(hello, layer(f"redis://127.0.0.1:{port}/0", store_timeout="20ms"))
        assert [(await layers.ask()).status for _ in range(4)] == [200] * 3 + [429]
        assert asked <= 2  # the connection, and one more for the second try
        await layers.close()
        other.close()

    run()


def test_a_wrong_password_is_said_without_showing_it(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    @live
    async def run() -> None:
        layers = Layers(hello, layer(server.url.replace(PASSWORD, "mistaken")))
        assert (await layers.ask()).status == 200
        await layers.close()

    run()
    assert "AuthenticationError" in caplog.text and "mistaken" not in caplog.text


def test_the_address_is_a_secret() -> None:
    options = Options.model_validate(layer("redis://me:secret@localhost:6379/0"))
    assert "secret@" not in repr(options)
    with pytest.raises(ValidationError) as wrong:
        Options.model_validate(layer("redis//me:secret@localhost"))
    assert "secret" not in wrong.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "http://a",
        "redis://a:99999/0",
        "unix://relative",
        "redis://[::1",
        "redis://a/abc",
        "redis://a/0/1",
        "redis://a/-1",
        "redis://a?bogus=1",
        "redis://a/0?db=1",
        "redis://a?db=x",
        "redis://a?db=",
        "redis://a?db=1&timeout=1",
        "redis://a/0?timeout=zz",
        "redis://a/0#1",
        "unix://host/path",
        "unix:///path?protocol=3",
    ],
)
def test_what_is_no_address_of_a_store(url: str) -> None:
    with pytest.raises(ValidationError, match="expected an address"):
        Options.model_validate(layer(url))


@pytest.mark.parametrize(
    "url",
    [
        "redis://a",
        "redis://a/",
        "redis://a:1/15",
        "redis://a?db=3",
        "rediss://me:p%40ss@a/2",
        "unix:///run/redis.sock",
        "unix://:p@/run/redis.sock?db=7",
    ],
)
def test_what_is_an_address_is_so_to_the_library(url: str) -> None:
    assert Options.model_validate(layer(url)).store == url
    parse_url(url)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"store_timeout": "1s"}, "store_timeout says nothing without store"),
        ({"store_ca": "/ca.pem"}, "store with TLS"),
        ({"store": "redis://a", "store_ca": "/ca.pem"}, "store with TLS"),
    ],
)
def test_what_goes_together(options: dict[str, str], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        Options.model_validate({"kind": "rate_limit", "rate": "1/s", **options})


# What counts as away.


class Scripted(RedisStore):
    """A store whose script is told what to do."""

    def __init__(self, script: Callable[[], Awaitable[int]], timeout: float) -> None:
        super().__init__("redis://localhost", timeout, "app/0", "here")
        self.script = script

    def _connect(self) -> None:
        async def run(keys: list[bytes], args: list[int]) -> int:
            return await self.script()

        self._client = cast(Any, self)
        self._spend = self._refund = run

    async def asked(self) -> int | None:
        return await self.spend(b"k", 1, 10)


async def _answers() -> int:
    return 7


async def _never() -> int:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


@live
async def test_one_late_answer_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    store = Scripted(_never, 0.02)
    together = await asyncio.gather(*(store.asked() for _ in range(10)))
    assert together == [None] * 10 and not store._is_away
    store.script = _answers
    assert await store.asked() == 7
    store.script = _never
    assert [await store.asked() for _ in range(2)] == [None] * 2 and store._is_away
    assert [record.message for record in caplog.records] == [
        "here: the store localhost:6379 is away (TimeoutError): this machine counts alone"
    ]


@live
async def test_a_wait_for_a_connection_is_not_the_stores() -> None:
    async def slow() -> int:
        await asyncio.sleep(0.1)
        return 7

    store = Scripted(slow, 0.3)
    assert await asyncio.gather(*(store.asked() for _ in range(80))) == [7] * 80


@live
async def test_a_busy_event_loop_is_not_the_stores() -> None:
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    here.setblocking(False)

    async def answered() -> int:
        def busy() -> None:
            there.send(b"!")
            time.sleep(0.1)

        loop.call_soon(busy)
        return len(await loop.sock_recv(here, 1))

    assert await Scripted(answered, 0.02).asked() == 1
    here.close()
    there.close()


@live
async def test_whatever_the_library_fails_with_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(redis_store, "monotonic", lambda: now)

    async def fails() -> int:
        raise AttributeError("of the library")

    store = Scripted(fails, 10)
    assert await store.asked() is None and store._is_away
    store.script = _answers
    assert await store.asked() is None
    now += 2
    assert await store.asked() == 7 and not store._is_away


@live
async def test_a_store_that_comes_and_goes_is_told_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(redis_store, "monotonic", lambda: now)
    caplog.set_level(logging.WARNING)

    async def fails() -> int:
        raise OSError

    store = Scripted(fails, 10)
    for _ in range(8):
        store.script = fails
        await store.asked()
        now += 2
        store.script = _answers
        await store.asked()
    assert [" is away " in record.message for record in caplog.records] == [True, False] * 2


def test_the_problem_of_a_certificate_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, ca = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    asked: list[bytes] = []

    async def redis(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(1000))
        writer.close()

    @live
    async def run() -> None:
        server = await asyncio.start_server(redis, "127.0.0.1", 0, ssl=context)
        url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for more in ({}, {"store_ca": str(ca)}):
            layers = Layers(hello, layer(url, **more))
            assert (await layers.ask()).status == 200
            await layers.close()
            assert bool(asked) == bool(more)
        server.close()

    run()
    told = [record.message for record in caplog.records if record.name == "gateway.middleware"]
    assert "(its certificate: unable to get local issuer certificate)" in told[0]
    assert "certificate" not in told[1]


def test_a_file_without_certificates_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("none")
    with pytest.raises(StartError, match=r"store_ca .*ca\.pem: no certificates"):
        Layers(hello, layer("rediss://localhost", store_ca=str(tmp_path / "ca.pem")))


@pytest.mark.parametrize("rate", [30_000, 300_000])
def test_rates_are_as_exact_as_here(server: RedisServer, rate: int) -> None:
    """By what is written down in the end: it rises by the cost of each, and by no time that passes."""

    @live
    async def run() -> None:
        store, cost = RedisStore(server.url, 10, "app/0", "here"), round(SECOND / rate)
        await store.spend(b"k", 3600 * SECOND, 7200 * SECOND)  # so that there is always something to add to
        name = server.command("KEYS", "*").split(b"\r\n")[2].decode()

        def written() -> int:
            return int(server.command("GET", name).split(b"\r\n")[1])

        before = written()
        for _ in range(1000):
            await store.spend(b"k", cost, 7200 * SECOND)
        assert written() - before == pytest.approx(1000 * cost, rel=0.01)
        await store.close()

    run()


def test_without_its_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(StartError, match=r"install gateway\[redis\]"):
        Layers(hello, layer("redis://localhost"))
