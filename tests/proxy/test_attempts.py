"""What becomes of a request when an attempt fails: retries, hedges, waiting, fallback, and who is bound to whom."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest

from gateway.metrics.plan import (
    GROUP_FALLEN_BACK,
    GROUP_HEDGED,
    GROUP_HEDGES_WON,
    GROUP_RETRIES_DENIED,
    GROUP_RETRYING,
    GROUP_WAITING,
)
from gateway.scoreboard import Condition
from tests.listeners.site import Site, get, post, until
from tests.upstream.peer import Handler, Message, Origin, Peer, always, closed_port, live, ok

STATUSES = {"retry": {"on": ["502", "503", "429"], "backoff": "1ms"}}
FIRST_ALWAYS = {"balance": "consistent_hash", "hash_key": "host"}


def status(code: int, fields: bytes = b"", body: bytes = b"no") -> bytes:
    return b"HTTP/1.1 %d -\r\n%bcontent-length: %d\r\n\r\n%b" % (code, fields, len(body), body)


class Turns:
    """An origin that answers its requests with these in turn, the last one again and again. b"" cuts the connection,
    None says nothing."""

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers)
        self.seen: list[Message] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.seen.append(await peer.request())
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if answer is None:
                await peer.ends()
                return
            if not answer:
                return
            await peer.send(answer)


# Statuses.


@live
async def test_a_status_of_the_policy_is_asked_elsewhere() -> None:
    async with (
        Origin(Turns(status(503))) as bad,
        Origin(Turns(ok())) as good,
        Site(bad, good, upstream=STATUSES) as site,
    ):
        for _ in range(4):
            assert (await site.ask(get())).status == 200
        exchanges = [await site.exchange() for _ in range(4)]
        retried = [exchange for exchange in exchanges if exchange.retries]
        assert retried
        for exchange in retried:
            assert [(name, reason) for name, reason, _ in exchange.attempts] == [
                (bad.address, "answered_503"),
                (good.address, ""),
            ]
            assert exchange.reason == "" and exchange.endpoint == good.address


@live
async def test_the_last_answer_is_passed_on_as_it_is() -> None:
    """Also its body and fields: when there is no further attempt the client gets what the endpoint said."""
    turns = Turns(status(503, b"x-own: 1\r\n", b"try later"))
    async with Origin(turns) as origin, Site(origin, upstream=STATUSES) as site:
        answer = await site.ask(get())
        assert (answer.status, answer[b"x-own"], answer.body) == (503, b"1", b"try later")
        assert len(turns.seen) == 3
        assert (await site.exchange()).retries == 2


@live
async def test_a_status_that_is_not_of_the_policy_is_passed_on_at_once() -> None:
    turns = Turns(status(500))
    async with Origin(turns) as origin, Site(origin, upstream=STATUSES) as site:
        assert (await site.ask(get())).status == 500
        assert len(turns.seen) == 1


@live
async def test_a_post_is_not_made_twice() -> None:
    turns = Turns(status(503))
    async with Origin(turns) as origin, Site(origin, upstream=STATUSES) as site:
        assert (await site.ask(post(b"body"))).status == 503
        assert len(turns.seen) == 1


@live
async def test_a_small_answer_that_is_thrown_away_leaves_its_connection_in_use() -> None:
    turns = Turns(status(503), ok())
    async with Origin(turns) as origin, Site(origin, upstream=STATUSES) as site:
        assert (await site.ask(get())).status == 200
        assert origin.accepted == 1 and len(turns.seen) == 2


@live
async def test_an_endpoint_that_wants_to_be_left_alone_for_long_is() -> None:
    turns = Turns(status(503, b"retry-after: 5\r\n"))
    async with Origin(turns) as origin, Site(origin, upstream=STATUSES) as site:
        assert (await site.ask(get())).status == 503
        assert len(turns.seen) == 1


@live
async def test_another_endpoint_is_asked_whatever_the_first_says_about_later() -> None:
    async with (
        Origin(Turns(status(429, b"retry-after: 5\r\n"))) as bad,
        Origin(Turns(ok())) as good,
        Site(bad, good, upstream=STATUSES) as site,
    ):
        for _ in range(4):
            assert (await site.ask(get())).status == 200
        assert site.well  # a 429 says nothing against an endpoint


# Cuts and time.


@live
async def test_a_cut_is_asked_elsewhere_and_then_again() -> None:
    turns = Turns(b"", b"", ok())
    async with Origin(turns) as origin, Site(origin, upstream={"retry": {"backoff": "1ms"}}) as site:
        assert (await site.ask(get())).status == 200
        assert origin.accepted == 3


@live
async def test_no_retries_where_none_are_wanted() -> None:
    turns = Turns(b"", ok())
    async with Origin(turns) as origin, Site(origin, upstream={"retry": {"attempts": 0}}) as site:
        assert (await site.ask(get())).status == 502
        assert (await site.exchange()).reason == "connection_terminated"


@live
async def test_time_for_each_attempt() -> None:
    upstream = {"retry": {"per_try_timeout": "100ms"}}
    async with (
        Origin(Turns(None)) as silent,
        Origin(Turns(ok())) as good,
        Site(silent, good, upstream=upstream) as site,
    ):
        for _ in range(2):
            assert (await site.ask(get())).status == 200
        exchanges = [await site.exchange() for _ in range(2)]
        assert [exchange.retries for exchange in exchanges].count(1) == 1


@live
async def test_time_for_all_attempts_together() -> None:
    upstream = {"timeouts": {"total": "300ms"}, "retry": {"per_try_timeout": "200ms", "attempts": 9}}
    async with (
        Origin(Turns(None)) as one,
        Origin(Turns(None)) as two,
        Origin(Turns(None)) as three,
        Site(one, two, three, upstream=upstream) as site,
    ):
        assert (await site.ask(get())).status == 504
        assert one.accepted + two.accepted + three.accepted == 2
        taken = [seconds for _, _, seconds in (await site.exchange()).attempts]
        assert len(taken) == 2 and taken[1] < taken[0]


@live
async def test_time_for_all_attempts_holds_for_an_upload_too() -> None:
    upstream = {"timeouts": {"total": "300ms"}}
    turns = Turns(ok())
    async with Origin(turns) as origin, Site(origin, upstream=upstream) as site:
        client = await site.client(get(b"/", b"content-length: 10\r\n", b"POST") + b"first")
        assert (await client.response(b"POST")).status == 504
        exchange = await site.exchange()
        assert exchange.reason == "deadline_exceeded" and site.well


@live
async def test_time_for_each_attempt_does_not_count_the_line() -> None:
    held = Held()
    upstream = {"max_requests": 1, "queue": {"timeout": "10s"}, "retry": {"per_try_timeout": "300ms"}}
    async with Origin(held) as origin, Site(origin, upstream=upstream) as site:
        clients = [await site.client(get()) for _ in range(3)]
        await until(lambda: site.group(GROUP_WAITING) == 2)
        for at, client in enumerate(clients):
            arrived = at + 1
            await until(lambda: held.arrived == arrived)  # noqa: B023
            await asyncio.sleep(0.15)  # the last one waits for as long as an attempt may take
            held.release()
            assert (await client.response()).status == 200


@live
async def test_a_client_that_left_is_asked_for_nobody() -> None:
    turns = Turns(None)
    async with Origin(turns) as origin, Site(origin, upstream={"retry": {"per_try_timeout": "5s"}}) as site:
        client = await site.client(get())
        await until(lambda: turns.seen)
        client.writer.transport.abort()
        assert (await site.exchange()).status == 499
        assert len(turns.seen) == 1 and site.well


@live
async def test_the_budget() -> None:
    """Three retries are always allowed at the same time; the fourth failure is told to its client."""
    release = asyncio.Event()

    numbers = count()

    async def handler(peer: Peer) -> None:
        await peer.request()
        if next(numbers) < 4:
            await until(lambda: origin.accepted >= 4)
            return  # all first attempts are cut
        await release.wait()
        await peer.send(ok())

    upstream = {"retry": {"backoff": "1ms", "budget": "1%"}}
    async with Origin(handler) as origin, Site(origin, upstream=upstream) as site:
        clients = [await site.client(get()) for _ in range(4)]
        done = [asyncio.ensure_future(client.response()) for client in clients]
        first, _ = await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        assert [one.result().status for one in first] == [502]
        await until(lambda: site.group(GROUP_RETRYING) == 3)
        assert site.group(GROUP_RETRIES_DENIED) == 1
        release.set()
        assert sorted(answer.status for answer in await asyncio.gather(*done)) == [200, 200, 200, 502]
        await until(lambda: site.group(GROUP_RETRYING) == 0)


# Bodies.


def put(body: bytes, fields: bytes = b"") -> bytes:
    return get(b"/", b"content-length: %d\r\n%b" % (len(body), fields), b"PUT") + body


CHUNKED = get(b"/", b"transfer-encoding: chunked\r\n", b"PUT")


@pytest.mark.parametrize("size", [1, 100, 64 * 1024])
@live
async def test_a_body_is_sent_again(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    turns = Turns(b"", status(503), ok())
    upstream = {"retry": {"on": ["reset", "503"], "backoff": "1ms"}}
    async with Origin(turns) as origin, Site(origin, upstream=upstream) as site:
        assert (await site.ask(put(body))).status == 200
        assert [request.body for request in turns.seen] == [body] * 3


@live
async def test_a_body_that_is_still_on_its_way_is_sent_from_its_beginning_and_goes_on() -> None:
    async def cuts(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(10)

    turns = Turns(ok())
    async with Origin(cuts) as bad, Origin(turns) as good, Site(bad, good) as site:
        for _ in range(2):
            client = await site.client(CHUNKED)
            await client.send(b"5\r\nfirst\r\n")
            await until(lambda: bad.accepted + good.accepted)
            await client.send(b"6\r\nsecond\r\n")
            await asyncio.sleep(0)
            await client.send(b"5\r\nthird\r\n0\r\n\r\n")
            assert (await client.response(b"PUT")).status == 200
        assert [request.body for request in turns.seen] == [b"firstsecondthird"] * 2


@live
async def test_a_body_that_came_in_parts_is_sent_again_as_a_whole() -> None:
    """What is missing of it would be taken from the next request on that connection."""

    async def cuts(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(5)
        release.set()
        await peer.reader.readexactly(5)

    release = asyncio.Event()
    turns = Turns(ok())
    async with Origin(cuts) as bad, Origin(turns) as good, Site(bad, good) as site:
        client = await site.client(get(b"/", b"content-length: 10\r\n", b"PUT") + b"first")
        await release.wait()
        await client.send(b"other")
        assert (await client.response(b"PUT")).status == 200
        assert [request.body for request in turns.seen] == [b"firstother"]
        assert (await site.ask(get(b"/next"))).status == 200


@live
async def test_a_body_past_the_bound_streams_on_and_is_not_sent_again() -> None:
    turns = Turns(b"")
    upstream = {"retry": {"replay_body": "1KiB", "backoff": "1ms"}}
    async with Origin(turns) as origin, Site(origin, upstream=upstream) as site:
        assert (await site.ask(put(b"x" * 1025))).status == 502
        client = await site.client(CHUNKED + b"401\r\n" + b"x" * 1025 + b"\r\n0\r\n\r\n")
        assert (await client.response(b"PUT")).status == 502
        assert [len(request.body) for request in turns.seen] == [1025, 1025]


@live
async def test_a_post_to_an_endpoint_that_refuses_goes_elsewhere_with_its_body() -> None:
    turns = Turns(ok())
    async with Origin(turns) as origin, Site(f"127.0.0.1:{closed_port()}", origin) as site:
        for _ in range(2):
            assert (await site.ask(post(b"body"))).status == 200
        assert [request.body for request in turns.seen] == [b"body"] * 2


# Hedging.


def hedged(after: str = "20ms", budget: str = "100%") -> dict[str, object]:
    return {"hedge": {"after": after, "budget": budget}}


@live
async def test_who_is_silent_is_overtaken() -> None:
    async with (
        Origin(Turns(None)) as silent,
        Origin(Turns(ok())) as good,
        Site(silent, good, upstream=hedged()) as site,
    ):
        for _ in range(2):
            assert (await site.ask(get())).status == 200
        exchanges = [await site.exchange() for _ in range(2)]
        assert [exchange.endpoint for exchange in exchanges] == [good.address] * 2
        assert (site.group(GROUP_HEDGED), site.group(GROUP_HEDGES_WON)) == (2, 2)
        await until(lambda: all(peer.reader.at_eof() for peer in silent.peers))  # the loser is cancelled
        assert site.well  # and it is held against nobody


@live
async def test_who_answers_in_time_is_not() -> None:
    async with Origin(Turns(ok())) as one, Origin(Turns(ok())) as two, Site(one, two, upstream=hedged("10s")) as site:
        client = await site.client()
        for _ in range(5):
            await client.send(get())
            assert (await client.response()).status == 200
        assert site.group(GROUP_HEDGED) == 0


@live
async def test_a_slow_first_may_still_win() -> None:
    release = asyncio.Event()

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await release.wait()
            await peer.send(ok(b"slow"))

    async with (
        Origin(slow) as one,
        Origin(Turns(None)) as two,
        Site(one, two, upstream=hedged() | FIRST_ALWAYS) as site,
    ):
        client = await site.client(get())
        await until(lambda: one.accepted and two.accepted)
        release.set()
        assert (await client.response()).body == b"slow"
        assert site.group(GROUP_HEDGES_WON) in (0, 1)


@live
async def test_both_fail() -> None:
    upstream = hedged() | {"retry": {"attempts": 0}, "timeouts": {"response": "200ms"}}
    async with Origin(Turns(None)) as one, Origin(Turns(None)) as two, Site(one, two, upstream=upstream) as site:
        assert (await site.ask(get())).status == 504
        assert (one.accepted, two.accepted) == (1, 1)


@live
async def test_the_client_leaves_a_race() -> None:
    async with Origin(Turns(None)) as one, Origin(Turns(None)) as two, Site(one, two, upstream=hedged()) as site:
        client = await site.client(get())
        await until(lambda: one.accepted and two.accepted)
        client.writer.transport.abort()
        assert (await site.exchange()).status == 499
        await until(lambda: all(peer.reader.at_eof() for peer in (*one.peers, *two.peers)))
        assert site.well


@live
async def test_second_attempts_have_a_budget() -> None:
    upstream = hedged(budget="50%")
    async with (
        Origin(Turns(None)) as one,
        Origin(Turns(None)) as two,
        Site(one, two, upstream=upstream | {"timeouts": {"response": "100ms"}}) as site,
    ):
        for _ in range(3):
            assert (await site.ask(get())).status == 504
        assert site.group(GROUP_HEDGED) <= 3


@live
async def test_what_may_not_be_made_twice_is_not_hedged() -> None:
    upstream = hedged() | {"timeouts": {"response": "200ms"}}
    async with Origin(Turns(None)) as one, Origin(Turns(None)) as two, Site(one, two, upstream=upstream) as site:
        for request in (post(b""), post(b"x")):
            assert (await site.ask(request)).status == 504
        assert (one.accepted + two.accepted, site.group(GROUP_HEDGED)) == (2, 0)


@live
async def test_who_is_bound_to_an_endpoint_is_not_hedged() -> None:
    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.1)
            await peer.send(ok(b"slow"))

    async with Origin(slow) as one, Origin(slow) as two, Site(one, two, upstream=hedged() | STICKY) as site:
        first = await site.ask(get())
        hedges = site.group(GROUP_HEDGED)
        again = await site.ask(get(b"/", b"cookie: gw=" + value(first) + b"\r\n"))
        assert b"set-cookie" not in again and site.group(GROUP_HEDGED) == hedges


@live
async def test_both_attempts_of_a_race_are_told() -> None:
    upstream = hedged() | {"retry": {"attempts": 0}, "timeouts": {"response": "200ms"}} | FIRST_ALWAYS
    async with Origin(Turns(None)) as one, Origin(Turns(None)) as two, Site(one, two, upstream=upstream) as site:
        assert (await site.ask(get())).status == 504
        lost = await site.exchange()
        assert {name for name, _, _ in lost.attempts} == {one.address, two.address}
        assert [reason for _, reason, _ in lost.attempts] == ["http_response_timeout"] * 2
    async with Origin(Turns(None)) as one, Origin(Turns(ok())) as two, Site(one, two, upstream=hedged()) as site:
        exchanges = []
        for _ in range(2):
            assert (await site.ask(get())).status == 200
            exchanges.append(await site.exchange())
        hedge = next(exchange for exchange in exchanges if exchange.attempts)
        assert [(name, reason) for name, reason, _ in hedge.attempts] == [(one.address, "overtaken"), (two.address, "")]


@live
async def test_a_second_attempt_that_is_sent_away_is_told_under_its_own_name() -> None:
    """And it is that endpoint which is not asked again, not the one that it overtook."""
    retry = {"on": ["503"], "attempts": 1, "backoff": "1ms"}
    upstream = hedged() | FIRST_ALWAYS | {"retry": retry, "outlier": {"consecutive_failures": 1000}}
    silent, declining = Turns(None), Turns(status(503))
    async with (
        Origin(silent) as one,
        Origin(declining) as two,
        Origin(declining) as three,
        Site(one, two, three, upstream=upstream) as site,
    ):
        for number in range(60):  # until one comes to the silent endpoint first
            answer = await site.ask(b"GET / HTTP/1.1\r\nhost: h%d\r\n\r\n" % number)
            exchange = await site.exchange()
            assert answer.status == 503
            rows = [(name, reason) for name, reason, _ in exchange.attempts]
            assert (one.address, "answered_503") not in rows
            if rows[0] == (one.address, "overtaken"):
                break
        assert rows[0] == (one.address, "overtaken")
        assert rows[1][0] in (two.address, three.address) and rows[1][1] == "answered_503"


# Room.


class Held:
    """An origin that answers when it is told to."""

    def __init__(self) -> None:
        self.arrived = 0
        self.most = 0
        self._at_once = 0
        self._release = asyncio.Semaphore(0)

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.arrived += 1
            self._at_once += 1
            self.most = max(self.most, self._at_once)
            await self._release.acquire()
            self._at_once -= 1
            await peer.send(ok())

    def release(self, count: int = 1) -> None:
        for _ in range(count):
            self._release.release()


@live
async def test_too_many_requests_are_refused() -> None:
    held = Held()
    async with Origin(held) as origin, Site(origin, upstream={"max_requests": 2}) as site:
        clients = [await site.client(get()) for _ in range(2)]
        await until(lambda: held.arrived == 2)
        answer = await site.ask(get())
        assert answer.status == 503 and (await site.exchange()).reason == "upstream_busy"
        held.release(2)
        assert [(await client.response()).status for client in clients] == [200, 200]


@pytest.mark.parametrize("limit", [{"max_requests": 2}, {"endpoints": "each"}])
@live
async def test_who_waits_is_served_in_turn(limit: dict[str, object]) -> None:
    held = Held()
    async with Origin(held) as origin:
        upstream: dict[str, object] = {"queue": {"size": 10, "timeout": "10s"}}
        if "endpoints" in limit:
            upstream["endpoints"] = [{"address": origin.address, "max_requests": 2}]
        async with Site(origin, upstream=upstream | ({} if "endpoints" in limit else limit)) as site:
            clients = []
            for number in range(6):
                clients.append(await site.client(get()))
                known = number + 1
                await until(lambda: held.arrived + site.group(GROUP_WAITING) == known)  # noqa: B023
            assert site.group(GROUP_WAITING) == 4
            for client in clients:
                held.release()
                assert (await client.response()).status == 200
            assert held.most == 2


@live
async def test_the_line_has_an_end() -> None:
    held = Held()
    upstream = {"max_requests": 1, "queue": {"size": 1, "timeout": "10s"}}
    async with Origin(held) as origin, Site(origin, upstream=upstream) as site:
        clients = [await site.client(get()) for _ in range(2)]
        await until(lambda: site.group(GROUP_WAITING) == 1)
        assert (await site.ask(get())).status == 503
        assert (await site.exchange()).reason == "queue_full"
        held.release(2)
        assert [(await client.response()).status for client in clients] == [200, 200]


@live
async def test_who_waits_too_long_is_refused() -> None:
    held = Held()
    upstream = {"max_requests": 1, "queue": {"timeout": "100ms"}}
    async with Origin(held) as origin, Site(origin, upstream=upstream) as site:
        client = await site.client(get())
        await until(lambda: held.arrived)
        assert (await site.ask(get())).status == 503
        assert (await site.exchange()).reason == "queue_timeout"
        held.release()
        assert (await client.response()).status == 200


@live
async def test_who_leaves_the_line_gives_its_place_up() -> None:
    held = Held()
    upstream = {"max_requests": 1, "queue": {"timeout": "10s"}}
    async with Origin(held) as origin, Site(origin, upstream=upstream) as site:
        first, leaver, last = [await site.client(get()) for _ in range(3)]
        await until(lambda: site.group(GROUP_WAITING) == 2)
        leaver.writer.transport.abort()
        await until(lambda: site.group(GROUP_WAITING) == 1)
        held.release(2)
        assert [(await client.response()).status for client in (first, last)] == [200, 200]
        assert held.arrived == 2


# The circuit and the fallback.

BREAKER = {"breaker": {"failure_ratio": "50%", "min_requests": 4, "open_for": "200ms", "trials": 2}}


def refusing_four(then: Handler) -> Handler:
    """An origin that sends the first four requests away."""
    numbers = count()

    async def handler(peer: Peer) -> None:
        if next(numbers) < 4:
            await peer.request()
            await peer.send(status(503, b"connection: close\r\n"))
        else:
            await then(peer)

    return handler


@live
async def test_the_circuit_opens_half_opens_and_closes() -> None:
    turns = Turns(status(503), status(503), status(503), status(503), ok())
    async with Origin(turns) as origin, Site(origin, upstream=BREAKER) as site:
        for _ in range(4):
            assert (await site.ask(get())).status == 503
            await site.exchange()
        refused = await site.ask(get())
        assert refused.status == 503 and (await site.exchange()).reason == "circuit_open"
        assert len(turns.seen) == 4  # the endpoint has rest
        circuit = site.upstream._circuit
        assert circuit is not None and circuit.is_open
        await until(lambda: circuit.health.condition is Condition.PROBATION)
        assert (await site.ask(get())).status == 200
        assert not circuit.is_closed  # one of two
        assert (await site.ask(get())).status == 200
        assert circuit.is_closed


@live
async def test_one_trial_at_a_time_and_a_failed_one_opens_it_again() -> None:
    held = Held()
    async with Origin(refusing_four(held)) as origin, Site(origin, upstream=BREAKER) as site:
        for _ in range(4):
            assert (await site.ask(get())).status == 503
        circuit = site.upstream._circuit
        assert circuit is not None
        assert (await site.ask(get())).status == 503
        await until(lambda: circuit.health.condition is Condition.PROBATION)
        trial = await site.client(get())
        await until(lambda: held.arrived)
        assert (await site.ask(get())).status == 503
        while not site.told.empty():
            await site.exchange()
        trial.writer.transport.abort()  # a trial without an outcome: the next request may be one
        assert (await site.exchange()).status == 499
        second = await site.client(get())
        await until(lambda: held.arrived == 2)
        held.release(2)
        assert (await second.response()).status == 200


@pytest.mark.parametrize("why", ["refused", "circuit", "drained"])
@live
async def test_the_fallback_answers_when_nobody_is_ready(why: str) -> None:
    routes = [{"name": "app", "upstream": "app", "fallback": "spare"}]
    async with Origin(Turns(status(503))) as bad, Origin(Turns(ok(b"spare"))) as spare:
        first: Origin | str = f"127.0.0.1:{closed_port()}" if why == "refused" else bad
        upstream = {"retry": {"backoff": "1ms"}, **(BREAKER if why == "circuit" else {})}
        others = {"spare": {"endpoints": [spare.address]}}
        async with Site(first, upstream=upstream, others=others, routes=routes) as site:
            if why == "circuit":
                for _ in range(4):
                    assert (await site.ask(get())).status == 503
            if why == "drained":
                site.drain(bad.address)
            for request in (get(), post(b"body"), put(b"body")):
                answer = await site.ask(request)
                assert (answer.status, answer.body) == (200, b"spare")
            assert site.group(GROUP_FALLEN_BACK) == 3


@live
async def test_the_fallback_is_told_of_the_prefix_once() -> None:
    routes = [
        {"name": "a", "path": "/api", "upstream": "app", "fallback": "spare", "rewrite": {"strip_prefix": True}},
    ]
    turns = Turns(ok())
    upstream = {"retry": {"attempts": 0}}
    async with Origin(turns) as spare:
        others = {"spare": {"endpoints": [spare.address]}}
        refuses = f"127.0.0.1:{closed_port()}"
        async with Site(refuses, upstream=upstream, others=others, routes=routes) as site:
            assert (await site.ask(get(b"/api/x"))).status == 200
            assert turns.seen[0][b"x-forwarded-prefix"] == b"/api"


# Sticky.

STICKY = {"sticky": {"cookie": "gw", "secret": "a secret of some length"}}


def value(answer: Message) -> bytes:
    return answer[b"set-cookie"].partition(b"=")[2].partition(b";")[0]


@live
async def test_a_client_stays_with_its_endpoint() -> None:
    async with (
        Origin(always(ok(b"one"))) as one,
        Origin(always(ok(b"two"))) as two,
        Site(one, two, upstream=STICKY) as site,
    ):
        first = await site.ask(get())
        cookie = value(first)
        assert first[b"set-cookie"] == b"gw=" + cookie + b"; Path=/; HttpOnly; SameSite=Lax"
        for _ in range(5):
            again = await site.ask(get(b"/", b"cookie: a=b; gw=" + cookie + b"\r\n"))
            assert again.body == first.body and b"set-cookie" not in again
        strangers = {(await site.ask(get(b"/", b"cookie: gw=" + cookie + b"x\r\n"))).body for _ in range(4)}
        assert strangers == {b"one", b"two"}


@live
async def test_a_client_whose_endpoint_is_gone_is_bound_to_another() -> None:
    async with (
        Origin(always(ok(b"one"))) as one,
        Origin(always(ok(b"two"))) as two,
        Site(one, two, upstream=STICKY) as site,
    ):
        first = await site.ask(get())
        site.drain(one.address if first.body == b"one" else two.address)
        other = await site.ask(get(b"/", b"cookie: gw=" + value(first) + b"\r\n"))
        assert other.body != first.body and value(other) != value(first)
