"""The choice among endpoints: leases, what they report, and when an endpoint is asked again."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from gateway.config.model import Pool as PoolConfig
from gateway.config.model import UpstreamTimeouts
from gateway.config.values import Origin, TcpAddress
from gateway.errors import BadResponse, ConnectFailed, ConnectionCut, NoEndpoint, QueueTimeout
from gateway.metrics.plan import UPSTREAM_FAILURES
from gateway.scoreboard import SEAT_CELLS
from gateway.upstream.balancers import BALANCERS
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.health import Condition
from gateway.upstream.pool import Pool
from gateway.upstream.upstream import Upstream
from gateway.wheel import Wheel

UP, FAILED, PROBATION = Condition.UP, Condition.FAILED, Condition.PROBATION


class Group:
    """An upstream whose clock stands still until it is told that time is over."""

    def __init__(self, count: int) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.now = 0.0
        wheel = Wheel(lambda seconds, callback: self.waiting.append(callback), lambda: self.now)
        self.cells = memoryview(bytearray(8 * SEAT_CELLS)).cast("Q")
        self.endpoints = [
            Endpoint("app", Origin(TcpAddress("10.0.0.1", 1 + n)), "preserve", 1, 100 + 10 * n) for n in range(count)
        ]
        for endpoint in self.endpoints:
            endpoint.pool = Pool(endpoint, PoolConfig(), UpstreamTimeouts(), wheel, self.cells)
        self.upstream = Upstream("app", self.endpoints, BALANCERS["round_robin"](), wheel, self.cells)

    def asked(self, *tried: Endpoint) -> Endpoint:
        with self.upstream.lease(b"", tried) as lease:
            return lease.endpoint

    def fails(self, error: Exception) -> Endpoint:
        """A lease that ends so."""
        lease = self.upstream.lease(b"", ())
        with pytest.raises(type(error)), lease:
            raise error
        return lease.endpoint

    def later(self) -> None:
        """Long enough for everybody to be asked again."""
        self.now = 1e12
        while self.waiting:
            self.waiting.pop()()

    @property
    def conditions(self) -> list[Condition]:
        return [endpoint.health.condition for endpoint in self.endpoints]


REFUSED = ConnectFailed("10.0.0.1:1", "cannot connect")


def test_a_lease_counts_while_it_lasts() -> None:
    group = Group(1)
    [endpoint] = group.endpoints
    with group.upstream.lease(b"", ()) as one, group.upstream.lease(b"", ()):
        assert one.endpoint is endpoint and endpoint.in_flight == 2
    assert endpoint.in_flight == 0
    group.fails(REFUSED)
    assert endpoint.in_flight == 0


def test_turns_go_round() -> None:
    group = Group(3)
    assert [group.asked() for _ in range(6)] == group.endpoints * 2


def test_who_was_tried_is_not_asked_again() -> None:
    group = Group(3)
    a, b, c = group.endpoints
    assert group.asked(a) is b
    assert group.asked(a, b) is c
    with pytest.raises(NoEndpoint):
        group.asked(a, b, c)
    assert group.conditions == [UP, UP, UP]


@pytest.mark.parametrize("error", [REFUSED, BadResponse("", "", sent=True), ConnectionCut("", "", sent=True)])
def test_a_failure_takes_an_endpoint_out(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    group = Group(2)
    with caplog.at_level(logging.WARNING):
        failed = group.fails(error)
    [record] = caplog.records
    assert failed.name in record.getMessage() and "failed" in record.getMessage()
    assert failed.health.condition is FAILED
    assert group.cells[failed.cells + UPSTREAM_FAILURES] == 1
    assert {group.asked() for _ in range(4)} == set(group.endpoints) - {failed}


@pytest.mark.parametrize(
    "error",
    [
        QueueTimeout("", ""),
        ConnectionCut("", "", sent=True, reused=True),
        KeyboardInterrupt(),
        RuntimeError("not the endpoint's fault"),
    ],
)
def test_what_is_nobody_s_fault_is_held_against_nobody(error: BaseException) -> None:
    group = Group(2)
    lease = group.upstream.lease(b"", ())
    with pytest.raises(type(error)), lease:
        raise error
    assert group.conditions == [UP, UP]
    assert lease.endpoint.in_flight == 0


def test_after_its_time_an_endpoint_is_on_probation() -> None:
    group = Group(2)
    failed = group.fails(REFUSED)
    group.later()
    assert failed.health.condition is PROBATION
    assert {group.asked() for _ in range(4)} == set(group.endpoints)
    assert group.conditions == [UP, UP]  # it answered


def test_a_failure_on_probation_takes_it_out_again() -> None:
    group = Group(2)
    failed = group.fails(REFUSED)
    group.later()
    group.now = 0.0
    while group.fails(REFUSED) is not failed:
        pass
    assert failed.health.condition is FAILED


def test_a_single_endpoint_is_never_taken_out() -> None:
    group = Group(1)
    for _ in range(3):
        group.fails(REFUSED)
    assert group.conditions == [UP]
    assert group.cells[group.endpoints[0].cells + UPSTREAM_FAILURES] == 3


def test_when_nobody_is_left_one_request_fails_and_the_next_asks_them_all() -> None:
    group = Group(2)
    group.fails(REFUSED)
    group.fails(REFUSED)
    assert group.conditions == [FAILED, FAILED]
    with pytest.raises(NoEndpoint) as raised:
        group.asked()
    assert raised.value.endpoint == ""
    assert {group.asked() for _ in range(2)} == set(group.endpoints)


def test_live_objects_tell_how_they_are() -> None:
    group = Group(2)
    group.fails(REFUSED)
    assert repr(group.upstream) == "<Upstream app 1 of 2 ready>"
    assert repr(group.endpoints[0]) == "<Endpoint app 10.0.0.1:1 FAILED 0 in flight>"
