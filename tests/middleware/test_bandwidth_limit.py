"""Limits of bandwidth: what passes at once, what waits, and for how long, by a clock that only turns when somebody
waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.middleware import bandwidth_limit
from gateway.middleware.bandwidth_limit import Options
from tests.listeners.site import Site, chunked, get, post
from tests.middleware.rig import Answer, Layers
from tests.upstream.peer import Origin, Peer, live, ok

SECOND = 10**9


class Clock:
    """Seconds that pass while somebody sleeps, and only then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000 * SECOND
        self.slept: list[float] = []
        monkeypatch.setattr(bandwidth_limit, "monotonic_ns", lambda: self.now)
        monkeypatch.setattr("gateway.ledger.monotonic_ns", lambda: self.now)
        monkeypatch.setattr("asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += int(seconds * SECOND)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def answering(*pieces: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, piece in enumerate(pieces, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})

    return app


async def reading(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the sizes of the pieces that came."""
    sizes, more = [], True
    while more:
        message = await receive()
        sizes.append(b"%d" % len(message["body"]))
        more = message["more_body"]
    await answering(b" ".join(sizes))(scope, receive, send)


async def post_to(layers: Layers, *pieces: bytes) -> Answer:
    return await layers.ask(b"transfer-encoding: chunked", method=b"POST", body=pieces)


def test_a_response_passes_at_its_rate(clock: Clock) -> None:
    @live
    async def run() -> None:
        layers = Layers(answering(b"a" * 100, b"b" * 350), {"kind": "bandwidth_limit", "response": "100B/s"})
        told = await layers.ask()
        assert told.body == b"a" * 100 + b"b" * 350
        assert clock.slept == [1, 1, 1, 0.5]  # the first second's worth passes at once
        sizes = [len(message["body"]) for message in told.messages[1:]]
        assert sizes == [100, 100, 100, 100, 50] and max(sizes) <= 100
        assert [message["more_body"] for message in told.messages[1:]] == [True] * 4 + [False]

    run()


def test_a_request_passes_at_its_rate(clock: Clock) -> None:
    @live
    async def run() -> None:
        layers = Layers(reading, {"kind": "bandwidth_limit", "request": "100B/s", "burst": "50B"})
        told = await post_to(layers, b"a" * 20, b"b" * 130, b"")
        assert told.body == b"20 50 50 30 0"
        assert clock.slept == [0.2, 0.5, 0.3]  # 30 of the 50 were left when the second piece came

    run()


def test_pauses_of_others_are_not_paid_twice(clock: Clock) -> None:
    @live
    async def run() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(3):
                clock.now += SECOND  # the endpoint takes its time
                await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        layers = Layers(app, {"kind": "bandwidth_limit", "response": "100B/s"})
        assert len((await layers.ask()).body) == 300
        assert clock.slept == []

    run()


@pytest.mark.parametrize(("key", "slept"), [({}, []), ({"key": "client_ip"}, [1])])
def test_who_shares_a_rate(clock: Clock, key: dict[str, str], slept: list[float]) -> None:
    @live
    async def run() -> None:
        layer = {"kind": "bandwidth_limit", "response": "100B/s", **key}
        layers = Layers(answering(b"a" * 100), layer)
        other = Layers(answering(b"a" * 100), layer, ledger=layers.ledger)
        await layers.ask()
        await other.ask()
        assert [round(sum(clock.slept), 6)] == (slept or [0])
        await other.ask(client="192.0.2.2")
        assert [round(sum(clock.slept), 6)] == (slept or [0])

    run()


def test_who_leaves_gives_back_what_never_passed(clock: Clock) -> None:
    @live
    async def run() -> None:
        layer = {"kind": "bandwidth_limit", "response": "100B/s", "key": "client_ip"}
        layers = Layers(answering(b"a" * 200), layer)

        async def leaves(seconds: float) -> None:
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("asyncio.sleep", leaves)
            with pytest.raises(asyncio.CancelledError):
                await layers.ask()
        clock.now += SECOND
        await layers.ask()
        assert sum(clock.slept) == pytest.approx(1)  # of its own second piece

    run()


def test_a_line_that_others_have_left_serves_at_once(clock: Clock) -> None:
    """Many wait for a shared rate in this worker and one in another, and leave."""

    @live
    async def run() -> None:
        layer = {"kind": "bandwidth_limit", "response": "100B/s", "key": "client_ip"}
        layers = Layers(answering(b"a" * 100), layer)
        other = Layers(answering(b"a" * 100), layer, ledger=layers.ledger)
        await layers.ask()  # and the burst is used up
        asleep = asyncio.Event()
        patch = pytest.MonkeyPatch()
        napping = clock._sleep

        async def forever(seconds: float) -> None:
            asleep.set()
            await asyncio.get_running_loop().create_future()

        patch.setattr("asyncio.sleep", forever)
        tasks = [asyncio.create_task(one.ask()) for one in [other] + [layers] * 20]
        await asleep.wait()
        await _turns()
        [account] = [key for key in layers.ledger._known if b"response" in key]
        assert layers.ledger.owed(account) == 3 * SECOND  # one piece for each worker, beside what has passed
        last = asyncio.create_task(layers.ask())
        await _turns()
        patch.setattr("asyncio.sleep", napping)
        for task in tasks:
            task.cancel()
        assert (await last).body == b"a" * 100
        assert sum(clock.slept) == pytest.approx(1)
        assert layers.ledger.owed(account) == SECOND
        assert layers.layers[0]._lines == other.layers[0]._lines == {}
        patch.undo()

    run()


def test_who_waits_looks_whether_another_worker_has_given_back(clock: Clock) -> None:
    @live
    async def run() -> None:
        layer = {"kind": "bandwidth_limit", "response": "100B/s", "key": "client_ip"}
        layers = Layers(answering(b"a" * 100), layer)
        await layers.ask()
        [account] = [key for key in layers.ledger._known if b"response" in key]
        layers.ledger.owe(account, 50 * SECOND, SECOND)
        napping = clock._sleep

        async def leaves(seconds: float) -> None:
            await napping(seconds)
            if len(clock.slept) == 3:
                layers.ledger.refund(account, 50 * SECOND)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("asyncio.sleep", leaves)
            await layers.ask()
        assert sum(clock.slept) == pytest.approx(1)

    run()


async def _turns() -> None:
    """Let the others go on until they wait. Not by sleeping, which is another thing here."""
    for _ in range(10):
        turn = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn


@live
async def test_a_request_without_a_key() -> None:
    layer = {"kind": "bandwidth_limit", "response": "100B/s", "key": "header:x-tenant"}
    assert (await Layers(answering(b"a"), layer | {"missing": "refuse"}).ask()).status == 400
    assert (await Layers(answering(b"a"), layer | {"missing": "pass"}).ask()).status == 200
    assert (await Layers(answering(b"a"), layer).ask()).status == 200


@live
async def test_in_a_gateway_both_ways() -> None:
    async def echo(peer: Peer) -> None:
        while True:
            await peer.send(ok((await peer.request()).body))

    layer = {"kind": "bandwidth_limit", "request": "10MiB/s", "response": "10MiB/s", "burst": "10KiB"}
    async with Origin(echo) as origin, Site(origin, middleware=[layer]) as site:
        body = bytes(range(256)) * 400
        assert (await site.ask(post(body))).body == body
        chunks = get(b"/", b"transfer-encoding: chunked\r\n", b"POST")
        assert (await site.ask(chunks + chunked(body[:50000], body[50000:]))).body == body


@live
async def test_a_client_that_leaves_ends_it() -> None:
    async def much(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"x" * 100_000))
        await peer.ends()

    layer = {"kind": "bandwidth_limit", "response": "1KiB/h", "burst": "1KiB"}
    async with Origin(much) as origin, Site(origin, middleware=[layer]) as site:
        client = await site.client(get())
        await client.head()
        client.close()
        assert (await site.exchange()).reason == "client_gone"


@pytest.mark.parametrize(
    "wrong", [{}, {"response": "0B/s"}, {"request": "1B/h", "burst": "1GiB"}, {"response": "1KiB/s", "key": "nobody"}]
)
def test_what_can_not_be_is_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"kind": "bandwidth_limit", **wrong})
