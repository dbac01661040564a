"""Latency-aware: what is learned, how it fades, and how who is cold is tried."""

from __future__ import annotations

from collections import Counter
from math import exp
from random import Random

import pytest

from gateway.scoreboard import Condition
from gateway.upstream.balancers.peak_ewma import PeakEWMA
from gateway.upstream.health import Event, Rules
from tests.upstream.balancers import Asked, Time, endpoints, first


class Group:
    """Endpoints that answer, each in its time."""

    def __init__(self, *weights: int) -> None:
        self.time = Time()
        self.balancer = PeakEWMA(0.0, Random(1), self.time)
        self.ready = endpoints(*weights)
        self.balancer.rebuild(self.ready)

    def serve(
        self, latencies: dict[Asked, float], requests: int, concurrent: int = 1, fails: Asked | None = None
    ) -> Counter[Asked]:
        """So many requests, always some in flight at once; whoever is served faster is done earlier."""
        served = Counter[Asked]()
        in_flight: list[tuple[float, int, Asked, float]] = []
        for number in range(requests):
            picked = first(self.balancer)
            picked.requests += 1
            served[picked] += 1
            in_flight.append((self.time.now + latencies[picked], number, picked, self.time.now))
            while len(in_flight) >= concurrent:
                in_flight.remove(done := min(in_flight))
                self.time.now = max(self.time.now, done[0])
                self.end(done[2], self.time.now - done[3], done[2] is fails)
        for _, _, endpoint, _ in sorted(in_flight):
            self.end(endpoint, latencies[endpoint], endpoint is fails)
        return served

    def end(self, endpoint: Asked, seconds: float, failed: bool) -> None:
        endpoint.requests -= 1
        self.balancer.observe(endpoint, seconds, failed)


def test_a_peak_counts_at_once_and_fades_with_time() -> None:
    group = Group(1, 1)
    a = group.ready[0]
    group.balancer.observe(a, 0.1, False)
    assert group.balancer.cost(a) == pytest.approx(0.1)
    group.balancer.observe(a, 0.5, False)  # above the estimate: taken as it is
    assert group.balancer.cost(a) == pytest.approx(0.5)
    group.balancer.observe(a, 0.1, False)  # below: no time has gone by, nothing is forgotten
    assert group.balancer.cost(a) == pytest.approx(0.5)
    group.time.now += 10
    group.balancer.observe(a, 0.1, False)
    assert group.balancer.cost(a) == pytest.approx(0.5 * exp(-1) + 0.1 * (1 - exp(-1)))


def test_while_nothing_is_heard_it_falls() -> None:
    group = Group(1, 1)
    a = group.ready[0]
    group.balancer.observe(a, 0.5, False)
    group.time.now += 5
    assert group.balancer.cost(a) == pytest.approx(0.5 * exp(-0.5))
    assert group.balancer.cost(a) == pytest.approx(0.5 * exp(-0.5))  # being asked changes nothing
    group.time.now += 5
    assert group.balancer.cost(a) == pytest.approx(0.5 * exp(-1))


def test_cost_goes_with_the_load_and_against_the_weight() -> None:
    group = Group(4, 1)
    a = group.ready[0]
    group.balancer.observe(a, 0.2, False)
    assert group.balancer.cost(a) == pytest.approx(0.2 / 4)
    a.requests = 3
    assert group.balancer.cost(a) == pytest.approx(0.2)
    a.share = 0.5
    assert group.balancer.cost(a) == pytest.approx(0.4)


@pytest.mark.parametrize("concurrent", [1, 10, 50])
def test_the_slow_one_gets_little(concurrent: int) -> None:
    group = Group(1, 1, 1)
    a, b, c = group.ready
    served = group.serve({a: 0.005, b: 0.005, c: 0.5}, 5000, concurrent)
    assert served[c] < 0.02 * served.total()
    assert served[a] + served[b] > 0.98 * served.total()


def test_who_was_slow_is_tried_again_and_comes_back() -> None:
    group = Group(1, 1)
    a, b = group.ready
    group.serve({a: 0.02, b: 2.0}, 1000, 4)
    assert group.balancer.cost(b) > 10 * group.balancer.cost(a)
    served = group.serve({a: 0.02, b: 0.02}, 40_000, 4)
    assert served[b] > 0.3 * served.total()


def test_who_fails_fast_draws_no_traffic() -> None:
    group = Group(1, 1, 1)
    a, b, c = group.ready
    served = group.serve({a: 0.05, b: 0.05, c: 0.0001}, 5000, 10, fails=c)
    assert served[c] < 0.01 * served.total()


def test_each_failure_counts_more_until_it_is_enough() -> None:
    group = Group(1, 1)
    a = group.ready[0]
    costs = []
    for _ in range(6):
        group.balancer.observe(a, 0.001, True)
        costs.append(group.balancer.cost(a))
    assert costs == [1, 2, 4, 8, 10, 10]
    group.balancer.observe(a, 30.0, True)
    assert group.balancer.cost(a) == 10


def test_the_cold_one_is_tried_at_once_with_one_request() -> None:
    group = Group(1, 1)
    a, b = group.ready
    for _ in range(20):
        group.balancer.observe(a, 0.005, False)
    a.requests = 5
    assert first(group.balancer) is b  # nothing is known of it, and it is idle
    b.requests = 1
    assert {first(group.balancer) for _ in range(100)} == {a}  # until it has answered
    group.end(b, 0.005, False)
    assert first(group.balancer) is b  # now as good as the other, and idle
    b.requests = 6
    assert {first(group.balancer) for _ in range(100)} == {a}


def test_when_all_are_cold_they_share_the_load() -> None:
    group = Group(1, 1, 1)
    for _ in range(300):
        picked = first(group.balancer)
        picked.requests += 1
    assert all(90 <= endpoint.requests <= 110 for endpoint in group.ready)


def test_an_old_estimate_draws_no_burst_however_low_it_has_fallen() -> None:
    group = Group(1, 1)
    a, b = group.ready
    group.balancer.observe(b, 2.0, False)
    group.time.now += 100
    group.balancer.observe(a, 0.005, False)
    assert group.balancer.cost(b) < group.balancer.cost(a)  # it may be tried
    b.requests = 1
    assert group.balancer.cost(b) > 100 * group.balancer.cost(a)  # by one at a time
    group.end(b, 0.005, False)
    assert group.balancer.cost(b) == pytest.approx(group.balancer.cost(a), rel=0.05)


def test_what_was_learned_outlives_a_rebuild() -> None:
    group = Group(1, 1, 1)
    a, b, c = group.ready
    for endpoint, seconds in zip(group.ready, (0.1, 0.2, 0.3), strict=True):
        group.balancer.observe(endpoint, seconds, False)
    group.balancer.rebuild([a, b], group.ready)
    assert [group.balancer.cost(one) for one in (a, b)] == pytest.approx([0.1, 0.2])
    group.balancer.observe(c, 0.4, False)  # its last exchange
    group.balancer.rebuild(group.ready, group.ready)
    assert [group.balancer.cost(one) for one in group.ready] == pytest.approx([0.1, 0.2, 0.4])


def test_what_one_worker_learns_all_go_by() -> None:
    """And who comes later, as after a reload: it stands in the record and nowhere else."""
    group = Group(1, 1)
    a, b = group.ready
    other = PeakEWMA(0.5, Random(2), group.time)
    other.rebuild(group.ready)
    group.balancer.observe(a, 0.1, False)
    group.time.now += 1
    other.observe(a, 0.5, False)
    group.time.now += 1
    group.balancer.observe(b, 0.01, False)
    later = PeakEWMA(0.0, Random(3), group.time)
    later.rebuild(group.ready)
    for balancer in (group.balancer, other, later):
        assert balancer.cost(a) == pytest.approx(0.5 * exp(-0.1))
        assert {first(balancer) for _ in range(50)} == {b}


def test_one_sample_shuns_nobody_for_minutes() -> None:
    group = Group(1, 1)
    a = group.ready[0]
    for failed in (False, True):
        group.balancer.observe(a, 3600.0, failed)
        assert group.balancer.cost(a) == pytest.approx(10.0)


def test_many_small_steps_go_as_far_as_a_large_one() -> None:
    """A hundred thousand samples a second, each of which moves it by less than a nanosecond."""
    group = Group(1, 1)
    a, b = group.ready
    for endpoint in (a, b):
        group.balancer.observe(endpoint, 0.0011, False)
    for _ in range(100_000):
        group.time.now += 1e-5
        group.balancer.observe(a, 0.001, False)
    group.balancer.observe(b, 0.001, False)
    assert group.balancer.cost(a) == pytest.approx(group.balancer.cost(b), rel=1e-6)
    assert group.balancer.cost(a) == pytest.approx(0.0011 * exp(-0.1) + 0.001 * (1 - exp(-0.1)), rel=1e-6)


def test_who_comes_back_on_probation_is_cold() -> None:
    group = Group(1, 1)
    _, b = group.ready
    for _ in range(3):
        group.balancer.observe(b, 0.1, True)
    for event in (Event.FAILURE, Event.TIME_OVER):
        assert group.balancer.cost(b) > 0
        assert b.health.observe(event, 1, Rules(consecutive_failures=1), True)
    assert b.health.condition is Condition.PROBATION
    assert group.balancer.cost(b) == 0
    b.requests = 1
    assert group.balancer.cost(b) == 2


def test_who_is_cold_is_so_however_young_the_machine_is() -> None:
    """The clock's beginning is no time at which a sample came."""
    group = Group(1, 1)
    group.time.now = 3.0
    a, _ = group.ready
    a.requests = 1
    assert group.balancer.cost(a) == 2
