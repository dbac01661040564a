"""Who comes back and who is asked when nobody is up, over real sockets."""

from __future__ import annotations

import asyncio

from gateway.scoreboard import Condition, Mark
from gateway.truth import now_ms
from tests.listeners.site import Site, get, until
from tests.proxy.test_attempts import BREAKER, Turns, refusing_four, status
from tests.upstream.peer import Origin, Peer, always, live, ok


def becomes(site: Site, condition: Condition, upstream: str = "app") -> None:
    group = site.other(upstream)
    with group._truth.changing():
        for endpoint in group.endpoints:
            record = endpoint.health.record
            record[Mark.CONDITION] = condition
            record[Mark.SINCE] = now_ms()
            record[Mark.UNTIL] = now_ms() + 60_000
        group._truth.changed()


async def streams(peer: Peer) -> None:
    """Begins an endless response, or an endless tunnel."""
    message = await peer.request()
    if dict(message.fields).get(b"upgrade"):
        await peer.send(b"HTTP/1.1 101 -\r\nconnection: upgrade\r\nupgrade: any\r\n\r\n")
    else:
        await peer.send(b"HTTP/1.1 200 ok\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
    await peer.ends()


@live
async def test_all_ejected_are_asked_and_all_down_are_not() -> None:
    async with Origin(always(ok(b"one"))) as one, Origin(always(ok(b"two"))) as two, Site(one, two) as site:
        becomes(site, Condition.EJECTED)
        assert {(await site.ask(get())).body for _ in range(4)} == {b"one", b"two"}
        becomes(site, Condition.DOWN)
        assert (await site.ask(get())).status == 503


@live
async def test_a_fallback_comes_first() -> None:
    routes = [{"name": "app", "upstream": "app", "fallback": "spare"}]
    async with Origin(always(ok(b"one"))) as one, Origin(always(ok(b"spare"))) as spare:
        others = {"spare": {"endpoints": [spare.address]}}
        async with Site(one, others=others, routes=routes) as site:
            becomes(site, Condition.EJECTED)
            assert (await site.ask(get())).body == b"spare"
            becomes(site, Condition.EJECTED, "spare")
            assert (await site.ask(get())).body == b"spare"  # it has nobody behind it


@live
async def test_who_is_asked_beside_a_trial_that_is_silent() -> None:
    async def slow(peer: Peer) -> None:
        message = await peer.request()
        if b"/slow" in message.start:
            await peer.ends()
        else:
            await peer.send(ok())

    async with Origin(slow) as origin, Site(origin) as site:
        becomes(site, Condition.PROBATION)
        trial = await site.client(get(b"/slow"))
        [endpoint] = site.upstream.endpoints
        await until(lambda: endpoint.in_flight)
        assert (await site.ask(get())).status == 200
        assert endpoint.health.condition is Condition.UP
        trial.writer.transport.abort()
        await until(lambda: not endpoint.in_flight)


@live
async def test_a_stream_or_a_tunnel_that_begins_is_a_trial_passed() -> None:
    async with Origin(streams) as origin, Origin(always(ok())) as other, Site(origin, other) as site:
        site.drain(other.address)
        endpoint = next(one for one in site.upstream.endpoints if one.name == origin.address)
        for fields in (b"", b"connection: upgrade\r\nupgrade: any\r\n"):
            becomes(site, Condition.PROBATION)
            client = await site.client(get(b"/", fields))
            await until(lambda: endpoint.health.condition is Condition.UP)
            assert endpoint.in_flight == 1
            client.writer.transport.abort()
            await until(lambda: not endpoint.in_flight)


@live
async def test_a_failed_trial_of_a_single_endpoint_is_followed_by_another() -> None:
    async with Origin(Turns(status(503), ok())) as origin, Site(origin) as site:
        becomes(site, Condition.PROBATION)
        assert [(await site.ask(get())).status for _ in range(3)] == [503, 200, 200]


@live
async def test_old_requests_end_without_a_word_on_health() -> None:
    held = asyncio.Event()

    async def late(peer: Peer) -> None:
        await peer.request()
        await held.wait()
        await peer.send(status(503, b"connection: close\r\n"))

    once = {"outlier": {"consecutive_failures": 1}}
    async with Origin(late) as one, Origin(late) as two, Site(one, two, upstream=once) as site:
        clients = [await site.client(get()) for _ in range(4)]
        await until(lambda: sum(endpoint.in_flight for endpoint in site.upstream.endpoints) == 4)
        await asyncio.sleep(0.002)
        becomes(site, Condition.UP)
        held.set()
        assert [(await client.response()).status for client in clients] == [503] * 4
        assert site.well


@live
async def test_streams_that_begin_close_a_circuit() -> None:
    async with Origin(refusing_four(streams)) as origin, Site(origin, upstream=BREAKER) as site:
        for _ in range(4):
            assert (await site.ask(get())).status == 503
        circuit = site.upstream._circuit
        assert circuit is not None
        assert (await site.ask(get())).status == 503
        await until(lambda: circuit.health.condition is Condition.PROBATION)
        clients = []
        clients.append(await site.client(get()))
        await until(lambda: circuit.health.record[Mark.TRIALS_PASSED])
        clients.append(await site.client(get()))
        await until(lambda: circuit.is_closed)
        for client in clients:
            client.writer.transport.abort()
        await until(lambda: not site.upstream.load())
        assert circuit.is_closed
