"""Where a client of a forward proxy asked to go: which address is asked, and what is kept of the connections."""

from __future__ import annotations

import pytest

from gateway.config.upstreams import UpstreamTimeouts
from gateway.config.values import TcpAddress
from gateway.errors import Busy, ConnectFailed, NoEndpoint
from gateway.scoreboard import Cells, Fact, Scoreboard
from gateway.upstream.destination import Destination, Visit, no_series
from gateway.upstream.idle import Idle
from gateway.worker.assembly import running_wheel
from tests.listeners.site import until
from tests.upstream.peer import Origin, always, closed_port, live, ok

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def destination(cells: Cells, *ports: int, **timeouts: float) -> Destination:
    """A host with these ports of 127.0.0.1, each in the place of an address."""
    addresses = [TcpAddress("127.0.0.1", port) for port in ports]
    limits = UpstreamTimeouts().model_copy(update=timeouts)
    return Destination("web", b"a.test:80", addresses, limits, running_wheel(), cells, no_series(), Idle(100))


def ports(there: Destination) -> list[int]:
    """In the order in which they would be asked."""
    found: list[Visit] = []
    while there.has_other([visit.endpoint for visit in found]):
        found.append(there.lease(b"", [visit.endpoint for visit in found]))
    return [int(visit.endpoint.name.rpartition(":")[2]) for visit in found]


@live
async def test_addresses_are_asked_in_their_order() -> None:
    there = destination(Scoreboard.create().take(1, []), 1, 2, 3)
    assert ports(there) == [1, 2, 3]
    tried = [there.lease(b"", ()).endpoint for _ in range(2)]
    assert tried[0] is tried[1]
    assert there.lease(b"", tried).endpoint.name == "127.0.0.1:2"
    with pytest.raises(Busy):
        await there.wait(b"", (), None, Busy("", "as busy as it was"))


@live
async def test_when_all_were_tried_none_is_left() -> None:
    there = destination(Scoreboard.create().take(1, []), 1)
    with pytest.raises(NoEndpoint):
        there.lease(b"", [there.lease(b"", ()).endpoint])


@live
async def test_who_can_not_be_connected_to_is_asked_last() -> None:
    nobody = closed_port()
    there = destination(Scoreboard.create().take(1, []), nobody, 2, 3)
    with pytest.raises(ConnectFailed), there.lease(b"", ()) as visit:
        await visit.connect()
    assert ports(there) == [2, 3, nobody]
    with pytest.raises(ZeroDivisionError), there.lease(b"", ()):
        raise ZeroDivisionError  # which says nothing about it
    assert ports(there) == [2, 3, nobody]


@live
async def test_a_connection_is_kept_for_the_next_visit() -> None:
    cells = Scoreboard.create().take(1, [])
    async with Origin(always(ok())) as origin:
        there = destination(cells, origin.port)
        with there.lease(b"", ()) as visit:
            assert visit.take(True) is None
            first = await visit.connect()
            first.send(REQUEST, False, more=False)
            assert (await first.response()).status == 200
            visit.answered(200)
            await first.arrival()
            assert first.take() == b"ok"
        with there.lease(b"", ()) as visit:
            assert visit.take(True) is first
        there.close()
        await until(lambda: not cells[Fact.UPSTREAM_OPEN])


@live
async def test_the_time_to_connect_is_shared() -> None:
    there = destination(Scoreboard.create().take(1, []), 1, 2, connect=3.0)
    assert {there.lease(b"", tried).endpoint.pool.patience for tried in ((), (there._places[0],))} == {1.5}
