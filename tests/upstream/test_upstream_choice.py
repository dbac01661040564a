"""The choice among endpoints: leases, what they report, and when an endpoint is asked again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config.model import Pool as PoolConfig
from gateway.config.model import UpstreamTimeouts
from gateway.errors import BadResponse, Busy, ConnectFailed, ConnectionCut, NoEndpoint, QueueTimeout
from gateway.metrics.plan import UPSTREAM_FAILURES
from gateway.scoreboard import Condition, Mark
from gateway.upstream.balancers import BALANCERS
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.health import Rules
from gateway.upstream.pool import Pool
from gateway.upstream.upstream import Upstream
from gateway.wheel import Wheel
from tests.upstream.parts import Parts

UP, EJECTED, PROBATION = Condition.UP, Condition.EJECTED, Condition.PROBATION


class Group:
    """An upstream in which one failure is enough. `later` is when everybody's time is over."""

    def __init__(self, count: int, backups: int = 0, rules: Rules | None = None, **more: Any) -> None:
        parts = Parts()
        self.waiting: list[Callable[[], None]] = []
        wheel = Wheel(lambda seconds, callback: self.waiting.append(callback), lambda: 0.0)
        self.cells, self.truth = parts.cells, parts.truth
        self.endpoints = [parts.endpoint(**more) for _ in range(count + backups)]
        for endpoint in self.endpoints:
            endpoint.pool = Pool(endpoint, PoolConfig(), UpstreamTimeouts(), wheel, self.cells)
        make = BALANCERS["round_robin"]
        rules = rules or Rules(consecutive_failures=1)
        self._parts = (wheel, rules, make)
        self._backups = self.endpoints[count:]
        self.upstream = self.another()

    def another(self) -> Upstream:
        """The same group as another worker has it."""
        wheel, rules, make = self._parts
        balancers = (make(), make())
        return Upstream("app", self.endpoints, self._backups, balancers, self.truth, rules, 0, wheel, self.cells)

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
        for endpoint in self.endpoints:
            endpoint.health.record[Mark.UNTIL] = 0
        self.upstream.refresh()

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
    assert failed.name in record.getMessage() and "is ejected, was up" in record.getMessage()
    assert failed.health.condition is EJECTED
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


def test_a_trial_is_one_exchange_at_a_time() -> None:
    group = Group(2)
    failed = group.fails(REFUSED)
    group.later()
    leases = [group.upstream.lease(b"", ()) for _ in range(6)]
    assert sum(lease.endpoint is failed for lease in leases) == 1
    [trial] = [lease for lease in leases if lease.endpoint is failed]
    with pytest.raises(KeyboardInterrupt), trial:
        raise KeyboardInterrupt  # the client went away: nothing was learned
    assert failed.health.condition is PROBATION
    assert any(group.upstream.lease(b"", ()).endpoint is failed for _ in range(2))


def test_a_failure_on_probation_takes_it_out_again() -> None:
    group = Group(2)
    failed = group.fails(REFUSED)
    group.later()
    while group.fails(REFUSED) is not failed:
        pass
    assert failed.health.condition is EJECTED


def test_the_last_one_is_never_taken_out() -> None:
    group = Group(1)
    for _ in range(3):
        group.fails(REFUSED)
    assert group.conditions == [UP]
    assert group.cells[group.endpoints[0].cells + UPSTREAM_FAILURES] == 3
    two = Group(2)
    for _ in range(5):
        two.fails(REFUSED)
    assert sorted(two.conditions) == [UP, EJECTED]


def test_only_a_part_of_a_group_is_taken_out() -> None:
    group = Group(6, rules=Rules(consecutive_failures=1, max_ejected=0.34))
    for _ in range(20):
        group.fails(REFUSED)
    assert group.conditions.count(EJECTED) == 2


def test_what_one_worker_learns_all_act_upon() -> None:
    group = Group(3)
    other = group.another()
    failed = group.fails(REFUSED)
    assert {other.lease(b"", ()).endpoint for _ in range(6)} == set(group.endpoints) - {failed}


def test_an_answer_that_says_unable_is_a_failure() -> None:
    group = Group(2)
    with group.upstream.lease(b"", ()) as lease:
        connection: Any = SimpleNamespace(status=503, closed=True)
        lease.connection = connection
    assert lease.endpoint.health.condition is EJECTED


def test_backups_are_asked_when_nobody_else_is_ready() -> None:
    group = Group(1, backups=2)
    first, *backups = group.endpoints
    assert [group.asked() for _ in range(3)] == [first] * 3
    assert group.asked(first) in backups
    group.fails(REFUSED)
    assert first.health.condition is EJECTED
    assert {group.asked() for _ in range(4)} == set(backups)


def test_a_limit_of_requests_holds_over_all_workers() -> None:
    group = Group(2, max_requests=2)
    other = group.another()
    leases = [upstream.lease(b"", ()) for upstream in (group.upstream, other) for _ in range(2)]
    assert sorted(endpoint.load() for endpoint in group.endpoints) == [2, 2]
    with pytest.raises(Busy):
        group.asked()
    with leases[0]:
        pass
    assert group.asked() is leases[0].endpoint


def test_live_objects_tell_how_they_are() -> None:
    group = Group(2)
    group.fails(REFUSED)
    assert repr(group.upstream) == "<Upstream app 1 of 2 ready>"
    assert repr(group.endpoints[0]) == "<Endpoint app 10.0.0.1:1 EJECTED 0 in flight>"
