"""The connections to one endpoint: which is lent, who waits, and which are let go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial

import pytest

from gateway.errors import ConnectFailed, ConnectTimeout, QueueTimeout
from gateway.metrics.plan import UPSTREAM_OPEN, UPSTREAM_OPENED, UPSTREAM_REUSED
from gateway.upstream.http1 import Connection
from tests.listeners.site import until
from tests.upstream.peer import Handler, Origin, Peer, always, closed_port, live, ok
from tests.upstream.rig import CELLS, GET, Rig, exchange


class Told(asyncio.Protocol):
    """In the place of a connection, to be told of its end first."""

    def __init__(self, connection: Connection, eof_received: Callable[[], bool]) -> None:
        self._connection = connection
        self._eof_received = eof_received

    def eof_received(self) -> bool:
        return self._eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)


async def used(rig: Rig, count: int) -> list[Connection]:
    """So many connections that have served a request each."""
    connections = [await rig.connection() for _ in range(count)]
    for connection in connections:
        await exchange(connection)
    return connections


@live
async def test_the_one_used_last_is_lent_first() -> None:
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        a, b, c = await used(rig, 3)
        for connection in (a, c, b):
            rig.pool.release(connection)
        assert [rig.pool.take(True) for _ in range(4)] == [b, c, a, None]
        assert origin.accepted == 3


@pytest.mark.parametrize(
    ("fields", "is_kept"),
    [
        (b"WWW-Authenticate: NTLM TlRMTVNTUAAC\r\n", False),
        (b"WWW-Authenticate: Negotiate\r\n", False),
        (b'WWW-Authenticate: Basic realm="a"\r\nWWW-Authenticate: ntlm\r\n', False),
        (b'WWW-Authenticate: Basic realm="negotiate, or not"\r\n', True),
    ],
)
def test_one_that_may_have_proved_who_a_client_is_serves_no_other(fields: bytes, is_kept: bool) -> None:
    @live
    async def test() -> None:
        asked = b"HTTP/1.1 401 -\r\ncontent-length: 0\r\n" + fields + b"\r\n"
        async with Origin(always(asked)) as origin, Rig(origin) as rig:
            [connection] = await used(rig, 1)
            rig.pool.release(connection)
            assert (rig.pool.take(True) is connection) is is_kept

    test()


@live
async def test_the_cells_tell_the_story() -> None:
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        a, b = await used(rig, 2)
        assert (rig.cells[CELLS + UPSTREAM_OPENED], rig.cells[CELLS + UPSTREAM_OPEN], rig.open) == (2, 2, 2)
        rig.pool.release(a)
        assert await rig.connection() is a
        assert rig.cells[CELLS + UPSTREAM_REUSED] == 1
        a.close()
        await until(lambda: rig.open == 1)
        assert rig.cells[CELLS + UPSTREAM_OPEN] == 1
        rig.pool.release(b)
        rig.pool.close()
        await until(lambda: rig.open == 0)
        assert "0 idle" in repr(rig.pool)


@live
async def test_busy_and_idle_together_are_never_more_than_allowed() -> None:
    most = 0
    open_now = 0

    async def handler(peer: Peer) -> None:
        nonlocal most, open_now
        open_now += 1
        most = max(most, open_now)
        try:
            while True:
                await peer.request()
                await asyncio.sleep(0.001)
                await peer.send(ok())
        finally:
            open_now -= 1

    async with Origin(handler) as origin, Rig(origin, {"max_connections": 3}) as rig:

        async def one(number: int) -> None:
            connection = await rig.connection()
            await exchange(connection)
            if number % 5 == 0:
                connection.close()  # now and then one breaks
                await until(lambda: connection.closed)
            rig.pool.release(connection)

        await asyncio.gather(*(one(number) for number in range(100)))
        assert most == 3
        assert rig.open <= 3


@live
async def test_who_waits_longest_is_next() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_connections": 1}) as rig:
        [connection] = await used(rig, 1)
        order: list[int] = []

        async def one(number: int) -> None:
            taken = await rig.pool.acquire()
            order.append(number)
            await exchange(taken)
            rig.pool.release(taken)

        tasks = []
        for number in range(5):
            tasks.append(asyncio.ensure_future(one(number)))
            await asyncio.sleep(0)
        rig.pool.release(connection)
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]
        assert origin.accepted == 1


@live
async def test_a_place_that_comes_free_is_dialled_by_who_waits() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_connections": 1}) as rig:
        [connection] = await used(rig, 1)
        waiting = asyncio.ensure_future(rig.pool.acquire())
        await asyncio.sleep(0)
        connection.close()
        fresh = await waiting
        assert fresh is not connection and origin.accepted == 2
        assert rig.open == 1


@live
async def test_waiting_has_an_end() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_connections": 1, "queue_timeout": "200ms"}) as rig:
        [connection] = await used(rig, 1)
        for within, told in ((None, "0.2 s"), (0.05, "0.05 s"), (10.0, "0.2 s")):
            with pytest.raises(QueueTimeout, match=f"were busy for {told}$") as raised:
                await rig.pool.acquire(within)
            assert not raised.value.sent
        rig.pool.release(connection)  # nobody waits any more
        assert await rig.connection() is connection


@live
async def test_time_spent_in_line_is_not_there_for_dialling() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = f"127.0.0.1:{full.getsockname()[1]}"
        async with Rig(address, {"max_connections": 1}) as rig:
            connection = await rig.connection()
            for _ in range(3):  # once its queue is full, it lets further clients wait
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            waiting = asyncio.ensure_future(rig.pool.acquire(0.5))
            await asyncio.sleep(0.3)
            connection.close()  # from here on it may dial, for what is left
            with pytest.raises(ConnectTimeout, match=r"no connection within 0\.[12]\d* s$"):
                await waiting


@live
async def test_who_gives_up_leaves_the_line() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_connections": 1}) as rig:
        [connection] = await used(rig, 1)
        first, second = (asyncio.ensure_future(rig.pool.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        rig.pool.release(connection)
        assert await second is connection


@pytest.mark.parametrize("by_a_free_place", [False, True])
@live
async def test_who_gives_up_in_the_moment_of_its_turn_passes_it_on(by_a_free_place: bool) -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_connections": 1}) as rig:
        [connection] = await used(rig, 1)
        first, second = (asyncio.ensure_future(rig.pool.acquire()) for _ in range(2))
        await asyncio.sleep(0)
        if by_a_free_place:
            connection.close()  # `first` is called up when the loop tells of the end, and is cancelled right behind
            asyncio.get_running_loop().call_soon(first.cancel)
        else:
            rig.pool.release(connection)
            first.cancel()
        async with asyncio.timeout(5):
            taken = await second
        assert first.cancelled()
        await exchange(taken)
        rig.pool.release(taken)
        assert await rig.connection() is taken
        assert rig.open == 1


@live
async def test_one_that_is_being_closed_is_not_lent() -> None:
    """Between the decision to close and the event loop's word that it is closed there may be another request."""
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        [connection] = await used(rig, 1)
        rig.pool.release(connection)
        connection.close()
        assert rig.pool.take(True) is None


@live
async def test_who_gives_up_while_dialling_gives_its_place_back() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_connections": 1}) as rig:
        for _ in range(20):
            dialling = asyncio.ensure_future(rig.pool.acquire())
            await asyncio.sleep(0)
            dialling.cancel()
            await asyncio.gather(dialling, return_exceptions=True)
        async with asyncio.timeout(5):
            [connection] = await used(rig, 1)
        assert rig.open == 1
        rig.pool.release(connection)


@live
async def test_cancelled_requests_cost_no_place_for_good() -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.002)
            await peer.send(ok())

    async with Origin(handler) as origin, Rig(origin, {"max_connections": 5}) as rig:

        async def one() -> None:
            connection = await rig.connection()
            try:
                await exchange(connection)
            finally:
                rig.pool.release(connection)

        for step in range(12):
            tasks = [asyncio.ensure_future(one()) for _ in range(25)]
            for _ in range(step):
                await asyncio.sleep(0.0005)
            for task in tasks[step % 3 :: 2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5):
            await asyncio.gather(*(one() for _ in range(50)))
        await until(lambda: rig.open <= 5)


@live
async def test_a_failed_dial_lets_the_next_try() -> None:
    async with Rig(f"127.0.0.1:{closed_port()}", {"max_connections": 1}) as rig:
        results = await asyncio.gather(*(rig.pool.acquire() for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, ConnectFailed) for result in results)


@live
async def test_an_idle_connection_is_closed_in_time() -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        assert await peer.ends() == b""
        gone.set()

    async with Origin(handler) as origin, Rig(origin, {"idle_timeout": "200ms"}) as rig:
        [connection] = await used(rig, 1)
        rig.pool.release(connection)
        await gone.wait()
        assert rig.pool.take(True) is None
        await until(lambda: rig.open == 0)


@live
async def test_the_idle_time_does_not_run_while_it_is_lent() -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.4)
            await peer.send(ok())

    async with Origin(handler) as origin, Rig(origin, {"idle_timeout": "200ms"}) as rig:
        [connection] = await used(rig, 1)
        rig.pool.release(connection)
        assert await rig.connection() is connection
        assert (await exchange(connection))[1] == b"ok"


@live
async def test_an_old_connection_takes_no_further_request() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_age": "100ms"}) as rig:
        [connection] = await used(rig, 1)
        await asyncio.sleep(0.15)
        rig.pool.release(connection)
        assert rig.pool.take(True) is None
        await until(lambda: rig.open == 0)


@live
async def test_a_connection_that_grew_old_while_idle_takes_no_further_request() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_age": "100ms"}) as rig:
        [connection] = await used(rig, 1)
        rig.pool.release(connection)
        await asyncio.sleep(0.15)
        assert rig.pool.take(True) is None


@live
async def test_more_idle_ones_than_allowed_are_closed() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_idle": 2}) as rig:
        for connection in await used(rig, 5):
            rig.pool.release(connection)
        await until(lambda: rig.open == 2)
        assert rig.pool.take(True) and rig.pool.take(True) and not rig.pool.take(True)


@live
async def test_none_is_kept_when_none_may_be() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_idle": 0}) as rig:
        [connection] = await used(rig, 1)
        rig.pool.release(connection)
        assert rig.pool.take(True) is None
        await until(lambda: rig.open == 0)


@pytest.mark.parametrize("by_reset", [False, True])
@live
async def test_one_that_the_origin_closed_is_not_lent(by_reset: bool) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await close.wait()
        if by_reset:
            peer.reset()

    close = asyncio.Event()
    async with Origin(handler) as origin, Rig(origin) as rig:
        [connection] = await used(rig, 1)
        rig.pool.release(connection)
        close.set()
        await until(lambda: rig.open == 0)
        assert rig.pool.take(True) is None
        assert origin.accepted == 1


@live
async def test_one_that_was_idle_for_a_while_is_asked_before_it_is_lent() -> None:
    """The origin's end may wait in the socket, unread because the loop has had no turn since."""
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        [connection] = await used(rig, 1)
        rig.pool.release(connection)
        connection.since -= 10.0
        fd = origin.peers[0].writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(fd)) as sock:
            sock.shutdown(socket.SHUT_WR)  # nothing is awaited from here on
        assert rig.pool.take(True) is None


def keeping(seconds: int | None) -> Handler:
    """An origin that says for how long it keeps idle connections."""
    return always(ok() if seconds is None else ok(b"ok", b"Keep-Alive: timeout=%d, max=100\r\n" % seconds))


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize(
    ("announced", "age", "lent"),
    [
        (None, 0.4, "to all"),
        (None, 0.6, "to who may repeat"),
        (None, 50.0, "to who may repeat"),
        (None, 61.0, "to nobody"),  # that is the configuration's
        (1, 0.7, "to all"),
        (1, 0.9, "to nobody"),
        (30, 23.0, "to all"),
        (30, 25.0, "to nobody"),
        (100, 59.0, "to all"),
        (100, 61.0, "to nobody"),
        (0, 0.0, "to nobody"),
    ],
)
@live
async def test_until_when_a_kept_connection_is_lent(
    announced: int | None, age: float, lent: str, repeatable: bool
) -> None:
    async with Origin(keeping(announced)) as origin, Rig(origin) as rig:
        [connection] = await used(rig, 1)
        connection.since -= age
        rig.pool.release(connection)
        expected = lent == "to all" or (repeatable and lent == "to who may repeat")
        assert rig.pool.take(repeatable) is (connection if expected else None)


@live
async def test_a_connection_is_closed_before_its_endpoint_does_it() -> None:
    ended = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"ok", b"keep-alive: timeout=1\r\n"))
        async with asyncio.timeout(1):
            await peer.ends()
        ended.set()

    async with Origin(handler) as origin, Rig(origin) as rig:
        [connection] = await used(rig, 1)
        rig.pool.release(connection)
        await ended.wait()


@live
async def test_its_time_runs_from_the_end_of_the_response() -> None:
    """However long the client took for what was held here: the endpoint knows nothing of that."""
    async with Origin(keeping(1)) as origin, Rig(origin) as rig:
        [connection] = await used(rig, 1)
        await asyncio.sleep(0.85)
        rig.pool.release(connection)
        assert rig.pool.take(True) is None
        await until(lambda: rig.open == 0)


@live
async def test_what_must_not_be_made_twice_looks_at_the_socket() -> None:
    """Also when the connection was used a moment ago; for others that would be a system call for nothing."""
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        connections = await used(rig, 2)
        for connection, peer in zip(connections, origin.peers, strict=True):
            rig.pool.release(connection)
            with socket.socket(fileno=os.dup(peer.writer.get_extra_info("socket").fileno())) as sock:
                sock.shutdown(socket.SHUT_WR)  # nothing is awaited from here on
        assert rig.pool.take(True) is connections[1]
        assert rig.pool.take(False) is None
        connections[1].close()


@live
async def test_one_of_whose_end_the_event_loop_is_about_to_tell_is_not_lent() -> None:
    """The end is read in one turn of the loop and told in the next: a request may come between."""
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        [connection] = await used(rig, 1)
        rig.pool.release(connection)
        taken: list[Connection | None] = []
        heard = connection.eof_received

        def told() -> bool:
            asyncio.get_running_loop().call_soon(lambda: taken.append(rig.pool.take(True)))
            return heard()

        protocol = Told(connection, told)
        connection._transport.set_protocol(protocol)
        origin.peers[0].close()
        await until(lambda: taken)
        assert taken == [None]


@live
async def test_one_that_is_too_old_for_a_request_makes_room_for_a_new_one() -> None:
    """The pool neither grows by it nor lets it wait."""
    async with Origin(always(ok())) as origin, Rig(origin, {"max_connections": 2}) as rig:
        older, newer = await used(rig, 2)
        for connection, age in ((older, 20.0), (newer, 10.0)):
            connection.since -= age
            rig.pool.release(connection)
        assert rig.pool.take(False) is None
        async with asyncio.timeout(1):
            fresh = await rig.pool.acquire()
        assert origin.accepted == 3 and rig.open == 2
        assert older.closed and rig.pool.take(True) is newer
        fresh.close()


@live
async def test_who_waits_is_not_given_one_that_is_too_old() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, {"max_connections": 1}) as rig:
        [connection] = await used(rig, 1)
        waiting = asyncio.ensure_future(rig.pool.acquire())
        await asyncio.sleep(0)
        connection.since -= 10.0  # its client was slow
        rig.pool.release(connection)
        assert await waiting is not connection
        assert origin.accepted == 2 and rig.open == 1


@pytest.mark.parametrize("by", ["its end", "a reset", "a 408"])
@live
async def test_what_the_endpoint_does_is_learned_from(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await asyncio.sleep(0.2)
        if by == "a reset":
            peer.reset()
        elif by == "a 408":
            await peer.send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
            await peer.ends()

    monkeypatch.setattr("gateway.upstream.lifetime._OCCASION", 0.0)
    async with Origin(handler) as origin, Rig(origin) as rig:
        for _ in range(3):
            [connection] = await used(rig, 1)
            rig.pool.release(connection)
            assert rig.pool.take(False) is connection
            rig.pool.release(connection)
            await until(lambda: rig.open == 0)
        for age, lent in ((0.1, True), (0.3, False)):
            [connection] = await used(rig, 1)
            connection.since -= age
            rig.pool.release(connection)
            assert rig.pool.take(False) is (connection if lent else None)


@live
async def test_what_is_learned_holds_for_those_that_are_idle_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.lifetime._OCCASION", 0.0)
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        idle = await used(rig, 5)
        for connection, age in zip(idle, (10.4, 10.3, 10.2, 9.0, 5.0), strict=True):
            connection.since -= age
            rig.pool.release(connection)
        for left, peer in ((4, origin.peers[0]), (3, origin.peers[1])):
            peer.close()
            await until(partial(lambda left: rig.open == left, left))
        origin.peers[2].close()
        await until(lambda: rig.open == 1)  # with the third went the fourth
        assert rig.pool.take(False) is idle[4]


@live
async def test_a_broken_one_does_not_come_back() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.ends()

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        rig.pool.release(connection)  # the client went away before the response
        assert rig.pool.take(True) is None
        await until(lambda: rig.open == 0)


@pytest.mark.parametrize("taken", ["nothing", "the head", "half of the body"])
@live
async def test_one_whose_response_was_not_taken_does_not_come_back(taken: str) -> None:
    """Its client left when all had arrived: the next one must not get what is left."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + bytes(50_000))
        await rest.wait()
        await peer.send(bytes(50_000))
        await peer.ends()

    rest = asyncio.Event()
    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        if taken != "nothing":
            await connection.response()
        if taken == "half of the body":
            await connection.arrival()
            assert connection.take()
        rest.set()
        await until(lambda: connection.served)
        rig.pool.release(connection)
        assert rig.pool.take(True) is None


@live
async def test_after_closing_nothing_is_kept() -> None:
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        idle, busy = await used(rig, 2)
        rig.pool.release(idle)
        rig.pool.close()
        assert (await exchange(busy))[1] == b"ok"  # what is under way goes on
        rig.pool.release(busy)
        await until(lambda: rig.open == 0)
