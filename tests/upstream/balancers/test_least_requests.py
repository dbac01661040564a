"""The fewest requests in flight by weight; ties by weight."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.balancers.least_requests import LeastRequests
from tests.upstream.balancers import Asked, endpoints, first


def balanced(*weights: int) -> tuple[LeastRequests, list[Asked]]:
    ready = endpoints(*weights)
    balancer = LeastRequests()
    balancer.rebuild(ready)
    return balancer, ready


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8), st.integers(0, 5))
def test_nobody_has_less_to_do(given_: list[tuple[int, int]], turns: int) -> None:
    balancer, ready = balanced(*(weight for weight, _ in given_))
    for _ in range(turns):
        first(balancer)
    for endpoint, (_, requests) in zip(ready, given_, strict=True):
        endpoint.requests = requests
    order = list(balancer.order(b""))
    costs = [endpoint.requests / endpoint.weight for endpoint in ready if endpoint in order]
    assert [one.load() / one.weight for one in order] == sorted(costs)


@pytest.mark.parametrize("busy", [0, 3])
def test_equals_share_by_weight(busy: int) -> None:
    balancer, ready = balanced(5, 3, 2)
    for endpoint in ready:
        endpoint.requests = busy * endpoint.weight
    picked = Counter(first(balancer) for _ in range(1000))
    assert picked == {endpoint: 100 * endpoint.weight for endpoint in ready}


def test_loads_grow_by_weight() -> None:
    """Requests that don't end."""
    balancer, ready = balanced(5, 3, 2, 1)
    for _ in range(1100):
        picked = first(balancer)
        picked.requests += 1
    assert [endpoint.requests for endpoint in ready] == [500, 300, 200, 100]


def test_who_is_slow_gets_less() -> None:
    """One endpoint takes four times as long as each of the others; 20 requests are always in flight."""
    balancer, ready = balanced(1, 1, 1)
    chance = Random(1)
    in_flight: list[Asked] = []
    served = Counter[Asked]()
    for _ in range(20_000):
        while len(in_flight) < 20:
            picked = first(balancer)
            picked.requests += 1
            in_flight.append(picked)
        over = chance.choices(range(20), [1 if one is ready[0] else 4 for one in in_flight])[0]
        done = in_flight.pop(over)
        done.requests -= 1
        served[done] += 1
    assert served[ready[0]] / served.total() == pytest.approx(1 / 9, abs=0.02)


def test_who_starts_slowly_has_its_share_in_flight() -> None:
    balancer, ready = balanced(10, 10)
    ready[0].share = 0.1
    for _ in range(110):
        picked = first(balancer)
        picked.requests += 1
    assert [endpoint.requests for endpoint in ready] == [10, 100]
