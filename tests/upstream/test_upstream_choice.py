"""The choice among endpoints: leases, what they report, and when an endpoint is asked again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.config.upstreams import Pool as PoolConfig
from gateway.config.upstreams import UpstreamTimeouts
from gateway.errors import BadResponse, Busy, ConnectFailed, ConnectionCut, NoEndpoint, QueueTimeout
from gateway.metrics.plan import UPSTREAM_FAILURES
from gateway.scoreboard import Condition, Mark
from gateway.truth import now_ms
from gateway.upstream.balancers import BALANCERS
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.health import Rules
from gateway.upstream.lease import Lease
from gateway.upstream.pool import Pool
from gateway.upstream.upstream import Upstream
from gateway.wheel import Wheel
from tests.upstream.parts import Parts

UP, EJECTED, PROBATION, DOWN = Condition


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

    def becomes(self, *conditions: Condition) -> None:
        """Change them, just now."""
        for endpoint, condition in zip(self.endpoints, conditions, strict=True):
            record = endpoint.health.record
            record[Mark.CONDITION] = condition
            record[Mark.SINCE] = now_ms()
            record[Mark.UNTIL] = now_ms() + 10_000
            record[Mark.TRIAL] = 0
        self.upstream.refresh()

    def resort(self, bound: Endpoint | None = None) -> Lease:
        """For who has nobody else to ask."""
        return self.upstream.lease(b"", (), bound, even_ejected=True)

    @staticmethod
    def answers(lease: Lease, status: int) -> None:
        connection: Any = SimpleNamespace(status=status, closed=True)
        lease.connection = connection
        lease.answered(status)

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
        ConnectionCut("", "", reused=True),
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


def test_of_a_single_one_a_trial_may_fail() -> None:
    group = Group(1)
    [endpoint] = group.endpoints
    group.becomes(PROBATION)
    for _ in range(3):
        group.fails(REFUSED)  # the next may be one at once
        assert group.conditions == [PROBATION]
    assert group.cells[endpoint.cells + UPSTREAM_FAILURES] == 3
    group.asked()
    assert group.conditions == [UP]


def test_who_is_on_probation_is_no_spare() -> None:
    group = Group(2)
    failed = group.fails(REFUSED)
    group.later()
    [other] = set(group.endpoints) - {failed}
    group.upstream.failed(other, "")
    assert (failed.health.condition, other.health.condition) == (PROBATION, UP)
    group.upstream.failed(failed, "")
    assert (failed.health.condition, other.health.condition) == (EJECTED, UP)


def test_the_last_on_probation_stays_there() -> None:
    group = Group(2)
    group.becomes(PROBATION, EJECTED)
    assert group.fails(REFUSED) is group.endpoints[0]
    assert group.conditions == [PROBATION, EJECTED]


def test_beside_its_trial_one_on_probation_is_the_last_resort() -> None:
    group = Group(3)
    group.becomes(PROBATION, EJECTED, DOWN)
    a = group.endpoints[0]
    trial = group.upstream.lease(b"", ())
    assert trial.endpoint is a
    with pytest.raises(NoEndpoint):
        group.asked()
    others = [group.resort() for _ in range(3)]
    assert [lease.endpoint for lease in others] == [a, a, a]
    with others[0]:
        pass
    assert group.conditions == [UP, EJECTED, DOWN]  # it answered
    with pytest.raises(ConnectFailed), others[1]:
        raise REFUSED
    assert group.conditions == [UP, EJECTED, DOWN]  # the last that is up


def test_when_all_are_ejected_they_are_asked_nevertheless() -> None:
    group = Group(2, backups=1)
    a, b, c = group.endpoints
    group.becomes(EJECTED, EJECTED, EJECTED)
    with pytest.raises(NoEndpoint):
        group.upstream.lease(b"", (), a)
    assert {group.resort().endpoint for _ in range(4)} == {a, b}
    assert group.resort(b).endpoint is b
    assert group.conditions == [EJECTED] * 3  # their time is not over
    b.health.record[Mark.DRAINED] = 1
    group.becomes(DOWN, EJECTED, EJECTED)
    assert group.resort(b).endpoint is c
    group.becomes(DOWN, EJECTED, DOWN)
    with pytest.raises(NoEndpoint):
        group.resort()


def test_backups_come_before_the_last_resort() -> None:
    group = Group(1, backups=1)
    group.becomes(EJECTED, UP)
    assert {group.asked() for _ in range(3)} == {group.endpoints[1]}
    assert group.resort().endpoint is group.endpoints[1]


def test_the_last_resort_has_limits_too() -> None:
    group = Group(1, max_requests=1)
    group.becomes(PROBATION)
    with group.upstream.lease(b"", ()):
        with pytest.raises(NoEndpoint):
            group.asked()
        with pytest.raises(Busy):
            group.resort()


@pytest.mark.parametrize("status", [200, 101])
def test_a_trial_is_decided_when_it_is_answered(status: int) -> None:
    group = Group(2)
    a = group.endpoints[0]
    group.becomes(PROBATION, UP)
    lease = group.upstream.lease(b"", (), a)
    with pytest.raises(KeyboardInterrupt), lease:
        group.answers(lease, status)
        assert a.health.condition is UP and a.in_flight == 1
        raise KeyboardInterrupt
    assert group.conditions == [UP, UP]


def test_a_failed_trial_is_so_once() -> None:
    group = Group(2)
    a = group.endpoints[0]
    group.becomes(PROBATION, UP)
    with group.upstream.lease(b"", (), a) as lease:
        group.answers(lease, 503)
        assert a.health.condition is EJECTED
        group.later()
    assert a.health.condition is PROBATION
    assert group.cells[a.cells + UPSTREAM_FAILURES] == 1


def test_a_trial_that_is_cut_after_its_answer_has_failed_after_all() -> None:
    group = Group(2)
    a = group.endpoints[0]
    group.becomes(PROBATION, UP)
    a.health.record[Mark.SINCE] -= 1000
    lease = group.upstream.lease(b"", (), a)
    lease.began -= 0.5  # it has come back since
    with pytest.raises(ConnectionCut), lease:
        group.answers(lease, 200)
        assert a.health.condition is UP
        raise ConnectionCut("", "", sent=True)
    assert group.conditions == [EJECTED, UP]


@pytest.mark.parametrize("error", [None, REFUSED])
@pytest.mark.parametrize("now", [UP, EJECTED, PROBATION])
def test_what_began_before_a_change_says_nothing(now: Condition, error: Exception | None) -> None:
    group = Group(2)
    a = group.endpoints[0]
    lease = group.upstream.lease(b"", (), a)
    lease.began -= 1.0
    group.becomes(now, UP)
    if error is None:
        with lease:
            pass
    else:
        with pytest.raises(ConnectFailed), lease:
            raise error
    assert group.conditions == [now, UP] and not a.health.record[Mark.FAILURES]


def test_a_trial_of_before_does_not_end_another() -> None:
    group = Group(2)
    a = group.endpoints[0]
    group.becomes(PROBATION, UP)
    old = group.upstream.lease(b"", (), a)
    old.began -= 1.0
    group.becomes(PROBATION, UP)
    assert group.upstream.lease(b"", (), a).endpoint is a
    with pytest.raises(KeyboardInterrupt), old:
        raise KeyboardInterrupt
    assert group.upstream.lease(b"", (), a).endpoint is not a


def test_a_response_that_is_cut_on_a_kept_connection_is_a_failure() -> None:
    group = Group(2)
    lease = group.upstream.lease(b"", ())
    connection: Any = SimpleNamespace(status=200, closed=True)
    lease.connection = connection
    with pytest.raises(ConnectionCut), lease:
        raise ConnectionCut("", "", sent=True, reused=True)
    assert lease.endpoint.health.condition is EJECTED


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


def test_who_is_no_member_any_more_is_not_asked_by_who_is_bound_to_it() -> None:
    group = Group(2)
    a, b = group.endpoints
    assert group.upstream.lease(b"", (), a).endpoint is a
    group.upstream.update([b], [])
    assert group.upstream.lease(b"", (), a).endpoint is b
    assert group.resort(a).endpoint is b


def test_balancers_are_rebuilt_only_by_what_they_go_by(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(2, backups=1)
    built: list[int] = []
    for balancer in (group.upstream._balancer, group.upstream._reserve):
        monkeypatch.setattr(balancer, "rebuild", lambda ready, members: built.append(len(ready)))
    with group.truth.changing():
        group.truth.changed()  # of another upstream
    group.asked(*group.endpoints[1:])
    assert built == []
    group.becomes(EJECTED, UP, UP)
    assert built == [1]
    group.endpoints[2].weight = 5
    group.upstream.refresh()
    assert built == [1, 1]
    group.upstream.update(group.endpoints[:2], [])
    assert built == [1, 1, 0]


def test_only_who_learns_is_told_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the response began, and nothing of a tunnel; a failure behind that is told as well."""
    told: list[tuple[float, bool]] = []
    group = Group(1)
    upstream = group.upstream
    monkeypatch.setattr(upstream._balancer, "observe", lambda endpoint, *what: told.append(what))
    with upstream.lease(b"", ()) as lease:
        group.answers(lease, 200)
    assert told == []
    upstream.learns = True
    with upstream.lease(b"", ()) as lease:
        lease.began -= 1
        group.answers(lease, 200)
        [(seconds, failed)] = told
        assert 1.0 <= seconds < 60.0 and not failed
        lease.began -= 3600
    with upstream.lease(b"", ()) as lease:
        group.answers(lease, 101)
    assert len(told) == 1
    lease = upstream.lease(b"", ())
    with pytest.raises(ConnectionCut), lease:
        group.answers(lease, 200)
        raise ConnectionCut("", "", sent=True)
    assert [failed for _, failed in told] == [False, False, True]
    with upstream.lease(b"", ()) as lease:
        group.answers(lease, 503)
    assert [failed for _, failed in told] == [False, False, True, True]
    with pytest.raises(ConnectFailed), upstream.lease(b"", ()):
        raise REFUSED
    assert [failed for _, failed in told] == [False, False, True, True, True]


def test_live_objects_tell_how_they_are() -> None:
    group = Group(2)
    group.fails(REFUSED)
    assert repr(group.upstream) == "<Upstream app 1 of 2 ready>"
    assert repr(group.endpoints[0]) == "<Endpoint app 10.0.0.1:1 EJECTED 0 in flight>"
