"""What the observer makes of what is found, and how the master hears of it. Discoveries are scripted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from gateway.child import hear, tell
from gateway.config.model import Config
from gateway.config.upstreams import Endpoint
from gateway.errors import DiscoveryError
from gateway.findings import Findings, read
from gateway.observer import lookups
from gateway.observer.lookups import Lookups
from gateway.upstream.discovery import Discovery, Found

DNS = {"discovery": {"kind": "dns", "name": "app.test", "port": 80}}


def endpoints(*addresses: str) -> tuple[Endpoint, ...]:
    return tuple(map(Endpoint.model_validate, addresses))


class Scripted(Discovery):
    """Finds one thing after the other, each with the next turn of the event loop, and then waits for ever."""

    def __init__(self, *script: Found | Exception) -> None:
        self._script = list(script)

    async def find(self) -> Found:
        if not self._script:
            await asyncio.Event().wait()
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


class Observer:
    """Lookups of upstreams that are called like their discoveries, and the master's end of the channel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (self.ours, self.theirs):
            sock.setblocking(False)
        self._patch = monkeypatch
        self.findings = Findings()

    def run(
        self,
        work: Callable[[Lookups], Coroutine[Any, Any, None]],
        **discoveries: Discovery,
    ) -> None:
        config = Config.model_validate(
            {"listeners": [{"name": "web", "listen": ":8080"}], "upstreams": dict.fromkeys(discoveries, DNS)}
        )
        waiting = list(discoveries.values())
        self._patch.setattr(lookups, "discovery_of", lambda upstream: waiting.pop(0))

        async def live() -> None:
            one = Lookups(config, self.findings, self.theirs)
            try:
                await work(one)
            finally:
                one.stop()

        asyncio.run(live())

    def heard(self) -> list[dict[str, Any]]:
        """What the master has been told and not read yet: the parts of each message."""
        messages: list[dict[str, Any]] = []
        while True:
            try:
                message, _ = hear(self.ours)
            except BlockingIOError:
                return messages
            assert message is not None and message["say"] == "endpoints"
            messages.append(message["found"])


@pytest.fixture
def observer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Observer]:
    one = Observer(monkeypatch)
    yield one
    one.ours.close()
    one.theirs.close()


def addresses(part: dict[str, Any]) -> list[str]:
    return [str(one.address) for one in read(part["endpoints"])]


def test_everything_is_looked_up_and_told_before_we_are_ready(observer: Observer) -> None:
    async def work(one: Lookups) -> None:
        await one.start(10)
        [parts] = observer.heard()
        assert addresses(parts["a"]) == ["10.0.0.1:80", "10.0.0.2:80"]
        assert parts["b"] == {"endpoints": None, "trouble": "it is so"}

    found = Found(endpoints("10.0.0.2:80", "10.0.0.1:80"))
    both = Scripted(found), Scripted(DiscoveryError("it is so", 60))
    observer.run(work, a=both[0], b=both[1])


def test_who_takes_too_long_is_not_waited_for(observer: Observer) -> None:
    async def work(one: Lookups) -> None:
        await one.start(0.05)
        [parts] = observer.heard()
        assert parts.keys() == {"a"}

    observer.run(work, a=Scripted(Found(endpoints("a:1"))), b=Scripted())


def test_only_changes_are_told_and_only_once_in_the_log(observer: Observer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway")
    a, ab, other = endpoints("a:1"), endpoints("b:1", "a:1"), endpoints("b:1")
    backup = (Endpoint.model_validate({"address": "b:1", "backup": True}),)
    ill = DiscoveryError("it is so", 0)
    steps: list[Found | Exception] = [
        Found(a, 0),
        Found(a, 0),
        ill,
        ill,
        Found(ab, 0),
        Found(ab[::-1], 0),
        Found(other, 0),
        Found(backup),
    ]
    told: list[dict[str, Any]] = []

    async def work(one: Lookups) -> None:
        await one.start(10)
        while not told or not told[-1]["app"]["endpoints"][0].get("backup"):
            told.extend(observer.heard())
            await asyncio.sleep(0.005)

    class Slow(Scripted):
        async def find(self) -> Found:
            await asyncio.sleep(0.03)  # so that each change is a message of its own
            return await super().find()

    observer.run(work, app=Slow(*steps))
    assert [(addresses(parts["app"]), parts["app"]["trouble"]) for parts in told] == [
        (["a:1"], ""),
        (["a:1"], "it is so"),
        (["a:1", "b:1"], ""),
        (["b:1"], ""),
        (["b:1"], ""),
    ]
    assert [record.getMessage() for record in caplog.records if record.name == "gateway"] == [
        "app: 1 endpoints: + a:1",
        "app: looking up endpoints fails: it is so; its last 1 endpoints stay",
        "app: 2 endpoints: + b:1",
        "app: looking up endpoints works again, 2 are there",
        "app: 1 endpoints: - a:1",
        "app: 1 endpoints: ~ b:1",
    ]


def test_what_the_master_knows_already_is_not_told_again(observer: Observer, caplog: pytest.LogCaptureFixture) -> None:
    observer.findings = Findings({"a": endpoints("a:1"), "b": endpoints("b:1")})
    observer.findings.trouble = {"b": "it is so", "c": "it is so"}

    async def work(one: Lookups) -> None:
        await one.start(10)
        [parts] = observer.heard()
        assert parts.keys() == {"c"} and parts["c"]["trouble"] == ""

    ill = Scripted(DiscoveryError("it is so", 60))
    observer.run(work, a=Scripted(Found(endpoints("a:1"))), b=ill, c=Scripted(Found(())))
    assert "fails" not in caplog.text


def test_a_mistake_of_ours_is_trouble_like_any_other(observer: Observer, caplog: pytest.LogCaptureFixture) -> None:
    async def work(one: Lookups) -> None:
        await one.start(10)
        [parts] = observer.heard()
        assert parts["app"] == {"endpoints": None, "trouble": "looking up broke; the error log says how"}

    observer.run(work, app=Scripted(ZeroDivisionError("oh")))
    assert "app: looking up its endpoints broke" in caplog.text and "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("length", "taken"), [(5, 512), (200, 300)])
def test_what_is_too_much_is_left_out_and_named_once(
    observer: Observer, caplog: pytest.LogCaptureFixture, length: int, taken: int
) -> None:
    label = "x" * 60 + "."
    many = endpoints(*(f"{label * (length // 61)}n{number:04d}:80" for number in range(700)))

    async def work(one: Lookups) -> None:
        await one.start(10)
        [parts] = observer.heard()
        there = addresses(parts["app"])
        assert there == [str(each.address) for each in many[: len(there)]]
        assert len(there) == 512 if taken == 512 else len(there) < 512

    observer.run(work, app=Scripted(Found(many, 0), Found(many)))
    said = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(said) == 1 and said[0].startswith("app: more than ") and " more" in said[0]


def test_a_master_that_does_not_read_is_told_the_last_when_it_does(observer: Observer) -> None:
    steps = [Found(endpoints(f"a:{number + 1}"), 0) for number in range(50)]

    async def work(one: Lookups) -> None:
        tell(observer.theirs, {"say": "endpoints", "found": {}})  # something that was not read yet
        await one.start(0.3)
        assert observer.heard() == [{}]
        told: list[dict[str, Any]] = []
        while not told:
            await asyncio.sleep(0.005)
            told = observer.heard()
        assert addresses(told[-1]["app"]) == ["a:50"]

    observer.run(work, app=Scripted(*steps))


def test_lists_of_the_configuration_are_nothing_to_tell(observer: Observer) -> None:
    config = Config.model_validate(
        {"listeners": [{"name": "web", "listen": ":8080"}], "upstreams": {"app": {"endpoints": ["b:1", "a:1"]}}}
    )

    async def live() -> None:
        await Lookups(config, Findings(), observer.theirs).start(10)

    asyncio.run(live())
    assert observer.heard() == []


def test_a_sentence_that_quotes_what_can_not_be_sent(observer: Observer) -> None:
    async def work(one: Lookups) -> None:
        await one.start(10)
        [parts] = observer.heard()
        assert parts["app"]["trouble"] == "it is \\ud800" + "x" * 493

    observer.run(work, app=Scripted(DiscoveryError("it is \ud800" + "x" * 1000, 60)))
