"""Limits of what is under way at once: held and released exactly once, waited for in turn."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from time import monotonic_ns
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.ledger import Ledger
from gateway.middleware.concurrency_limit import Options
from gateway.scoreboard import Fact, Scoreboard
from tests.listeners.site import Site, get, until
from tests.middleware.rig import Answer, Layers
from tests.upstream.peer import Origin, Peer, always, live, ok

TWO = {"kind": "concurrency_limit", "max": 2, "key": "route"}
WAITING = TWO | {"wait": "60s"}


class Held:
    """An application that answers when it is told to."""

    def __init__(self) -> None:
        self.inside: list[asyncio.Future[None]] = []
        self.order: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.inside.append(released)
        self.order.append(scope["gateway"].client)
        await released
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def release(self, number: int = 0) -> None:
        self.inside.pop(number).set_result(None)


def begun(request: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
    return asyncio.get_running_loop().create_task(request)


async def inside(held: Held, count: int) -> None:
    await until(lambda: len(held.inside) == count)


@live
async def test_one_more_is_refused_until_one_is_over() -> None:
    held = Held()
    layers = Layers(held, TWO)
    first, second = begun(layers.ask()), begun(layers.ask())
    await inside(held, 2)
    refused = await layers.ask()
    assert refused.status == 429 and refused.exchange.reason == "concurrency_limited"
    assert refused[b"retry-after"] == b"1" and layers.refused() == 1
    held.release()
    assert (await first).status == 200
    third = begun(layers.ask())
    await inside(held, 2)
    assert (await layers.ask()).status == 429
    held.release()
    held.release()
    assert (await second).status == (await third).status == 200


@live
async def test_keys_do_not_hinder_each_other() -> None:
    held = Held()
    layers = Layers(held, {"kind": "concurrency_limit", "max": 1, "key": "header:x-tenant", "missing": "refuse"})
    tasks = [begun(layers.ask(b"x-tenant: %b" % name)) for name in (b"a", b"b")]
    await inside(held, 2)
    assert (await layers.ask(b"x-tenant: a")).status == 429
    assert (await layers.ask()).status == 400
    held.release()
    held.release()
    await asyncio.gather(*tasks)


@live
async def test_what_waits_comes_in_turn() -> None:
    held = Held()
    layers = Layers(held, WAITING | {"max": 1})
    tasks = []
    for number in range(4):
        tasks.append(begun(layers.ask(client=f"192.0.2.{number}")))
        await asyncio.sleep(0)
    await inside(held, 1)
    for _ in range(4):
        held.release()
        await until(lambda: held.inside or all(task.done() for task in tasks))
    assert [(await task).status for task in tasks] == [200] * 4
    assert held.order == [f"192.0.2.{number}" for number in range(4)]
    assert layers.layers[0]._lines == {} and layers.ledger.holds._mine == {}


@live
async def test_only_so_many_wait_and_only_so_long() -> None:
    held = Held()
    layers = Layers(held, TWO | {"max": 1, "wait": "100ms", "queue": 1})
    first = begun(layers.ask())
    await inside(held, 1)
    late = begun(layers.ask())
    await asyncio.sleep(0)
    assert (await layers.ask()).status == 429  # the line is full
    assert (await late).status == 429 and (await late).exchange.reason == "concurrency_limited"
    held.release()
    assert (await first).status == 200
    assert layers.layers[0]._lines == {}


@live
async def test_who_leaves_while_it_waits_takes_nothing_along() -> None:
    held = Held()
    layers = Layers(held, WAITING | {"max": 1})
    tasks = [begun(layers.ask(client=f"192.0.2.{number}")) for number in range(3)]
    await inside(held, 1)
    tasks[1].cancel()
    await asyncio.sleep(0)
    held.release()
    await inside(held, 1)
    assert held.order == ["192.0.2.0", "192.0.2.2"]
    held.release()
    await asyncio.gather(tasks[0], tasks[2])
    assert layers.ledger.holds._mine == {} and tasks[1].cancelled()


@live
async def test_who_leaves_at_the_moment_at_which_it_is_let_in() -> None:
    held = Held()
    layers = Layers(held, WAITING | {"max": 1})
    first, second = begun(layers.ask()), begun(layers.ask())
    await inside(held, 1)
    [line] = layers.layers[0]._lines.values()
    turn = line[0].turn
    turn.add_done_callback(lambda _: second.cancel())  # before its task takes its next step
    held.release()
    await first
    await asyncio.wait([second])
    assert turn.result() and second.cancelled()
    assert layers.ledger.holds._mine == {}


@live
async def test_an_application_that_fails_releases() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no")

    layers = Layers(fails, TWO)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await layers.ask()
    assert layers.ledger.holds._mine == {}


@live
async def test_a_refusal_gives_back_what_rates_were_charged() -> None:
    held = Held()
    layers = Layers(held, {"kind": "rate_limit", "rate": "1/h", "burst": 2}, TWO | {"max": 1})
    first = begun(layers.ask())
    await inside(held, 1)
    assert [(await layers.ask()).exchange.reason for _ in range(5)] == ["concurrency_limited"] * 5
    held.release()
    await first
    second = begun(layers.ask())
    await inside(held, 1)
    held.release()
    assert (await second).status == 200
    assert (await layers.ask()).exchange.reason == "rate_limited"


def test_what_goes_together() -> None:
    with pytest.raises(ValidationError, match="queue says nothing without wait"):
        Options.model_validate(TWO | {"queue": 5})
    for good in (TWO, WAITING, WAITING | {"queue": 0}):
        options = Options.model_validate(good)
        assert Options.model_validate(options.model_dump()) == options


# Over several workers.


@pytest.fixture
def pair() -> Iterator[tuple[Ledger, Ledger, Scoreboard]]:
    """The ledger as two workers see it."""
    board, one = Scoreboard.create(), Ledger.create()
    two = Ledger.adopt(os.dup(one.fd))
    assert two is not None
    for number, ledger in ((1, one), (2, two)):
        seat = board.take(number, [])
        seat[Fact.STARTED] = number
        ledger.sit(board, number)
        seat[Fact.PID] = os.getpid()
        seat[Fact.BEAT] = monotonic_ns() + 3600 * 10**9  # however long the test takes
    yield one, two, board
    one.close()
    two.close()
    board.close()


@live
async def test_workers_hold_together(pair: tuple[Ledger, Ledger, Scoreboard]) -> None:
    held = Held()
    here, there = (Layers(held, WAITING, ledger=ledger) for ledger in pair[:2])
    tasks = [begun(one.ask()) for one in (here, there, there)]
    await inside(held, 2)
    held.release(0)  # here; there somebody waits, whom nobody tells
    await until(lambda: len(held.order) == 3)
    assert (await tasks[0]).status == 200
    held.release()
    held.release()
    assert [(await task).status for task in tasks[1:]] == [200, 200]


@live
async def test_what_waits_comes_in_turn_over_all_workers(pair: tuple[Ledger, Ledger, Scoreboard]) -> None:
    """A worker that has a line of its own, and serves it when its requests end, leaves the other one its turn."""
    held = Held()
    here, there = (Layers(held, WAITING | {"max": 1}, ledger=ledger) for ledger in pair[:2])
    tasks = []
    for number, one in enumerate((here, here, there, here, there, here)):
        tasks.append(begun(one.ask(client=f"192.0.2.{number}")))
        await asyncio.sleep(0.001)  # times of the ledger have 16 us
    for _ in tasks:
        await inside(held, 1)
        held.release()
    assert [(await task).status for task in tasks] == [200] * 6
    assert held.order == [f"192.0.2.{number}" for number in range(6)]
    assert all(ledger.holds._mine == {} for ledger in pair[:2])


@live
async def test_who_has_just_come_leaves_room_to_who_waits_elsewhere(pair: tuple[Ledger, Ledger, Scoreboard]) -> None:
    one, two, board = pair
    assert one.holds.take(b"a", 1)
    two.holds.wait(b"a", 1000)
    one.holds.release(b"a")
    assert one.holds.count(b"a") == two.holds.count(b"a") == 0
    assert not one.holds.take(b"a", 1) and not one.holds.take(b"a", 1, 1001)
    assert one.holds.take(b"a", 1, 999)
    one.holds.release(b"a")
    board.seat(2)[Fact.BEAT] = monotonic_ns() - 2 * 10**9  # it stands still
    assert one.holds.take(b"a", 1)
    one.holds.release(b"a")
    board.seat(2)[Fact.BEAT] = monotonic_ns() + 3600 * 10**9
    board.seat(2)[Fact.GENERATION] += 1  # it has another configuration
    assert one.holds.take(b"a", 1)
    one.holds.release(b"a")
    board.seat(2)[Fact.GENERATION] -= 1
    two.holds.wait(b"a", 0)
    assert one.holds.take(b"a", 1)
    assert not two.holds.take(b"a", 1)


@live
async def test_a_worker_that_dies_holds_nothing(pair: tuple[Ledger, Ledger, Scoreboard]) -> None:
    held = Held()
    here, there = (Layers(held, TWO, ledger=ledger) for ledger in pair[:2])
    tasks = [begun(there.ask()) for _ in range(2)]
    await inside(held, 2)
    assert (await here.ask()).status == 429
    pair[2].leave(2, [])
    tasks.append(begun(here.ask()))
    await inside(held, 3)
    while held.inside:
        held.release()
    assert [(await task).status for task in tasks] == [200] * 3


# In a gateway.


@live
async def test_a_client_that_leaves_releases() -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.ends()

    async with Origin(silent) as origin, Site(origin, middleware=[TWO | {"max": 1}]) as site:
        client = await site.client(get())
        await until(lambda: site.upstream.endpoints[0].in_flight)
        assert (await site.ask(get())).status == 429
        client.close()
        assert (await site.exchange()).reason == "concurrency_limited"
        assert (await site.exchange()).reason == "client_gone"
        other = await site.client(get())
        await until(lambda: site.upstream.endpoints[0].in_flight)
        other.close()
        await site.exchange()


@live
async def test_a_tunnel_holds_until_it_ends() -> None:
    async def switches(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 101 -\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        await peer.ends()

    async with Origin(switches) as origin, Site(origin, middleware=[TWO | {"max": 1}]) as site:
        client = await site.client(get(fields=b"connection: upgrade\r\nupgrade: websocket\r\n"))
        assert (await client.head()).status == 101
        assert (await site.ask(get())).status == 429
        client.close()
        assert {(await site.exchange()).status for _ in range(2)} == {101, 429}
        again = await site.client(get(fields=b"connection: upgrade\r\nupgrade: websocket\r\n"))
        assert (await again.head()).status == 101
        again.close()


@live
async def test_requests_that_are_answered_hold_nothing() -> None:
    async with Origin(always(ok())) as origin, Site(origin, middleware=[TWO | {"max": 1}]) as site:
        assert [(await site.ask(get())).status for _ in range(3)] == [200] * 3
