"""Two are drawn, the one with less to do is taken."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from gateway.upstream.balancers.draw import Draw
from gateway.upstream.balancers.power_of_two import PowerOfTwo
from tests.upstream.balancers import Asked, endpoints, first


class Said:
    """Chance that says these."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = list(numbers)

    def random(self) -> float:
        return self.numbers.pop(0)


def balanced(*weights: int) -> tuple[PowerOfTwo, list[Asked]]:
    ready = endpoints(*weights)
    balancer = PowerOfTwo(0.0, Random(1))
    balancer.rebuild(ready)
    return balancer, ready


@pytest.mark.parametrize(
    ("lot", "number"), [(0.0, 0), (0.299, 0), (0.3, 1), (0.599, 1), (0.6, 2), (0.999, 2), (1 - 2**-53, 2)]
)
def test_a_lot_falls_on_somebody(lot: float, number: int) -> None:
    assert Draw(Said(lot), endpoints(3, 3, 4)).one() == number


@pytest.mark.parametrize(("lot", "number"), [(0.0, 0), (0.42, 0), (0.43, 2), (1 - 2**-53, 2)])
def test_the_second_is_another(lot: float, number: int) -> None:
    assert Draw(Said(lot), endpoints(3, 3, 4)).another(1) == number


def test_the_second_is_drawn_by_weight_too() -> None:
    draw = Draw(Random(1), endpoints(5, 1, 3, 1))
    drawn = Counter(draw.another(0) for _ in range(20_000))
    assert drawn.keys() == {1, 2, 3}
    assert drawn[2] / 20_000 == pytest.approx(0.6, abs=0.02)


def test_there_is_no_other_than_the_only_one() -> None:
    assert Draw(Random(1), endpoints(5)).another(0) is None


def test_of_two_the_lesser_is_taken_and_the_other_is_next() -> None:
    balancer, (a, b) = balanced(2, 1)
    a.requests, b.requests = 3, 1
    for _ in range(100):
        assert list(balancer.order(b"")) == [b, a]
    b.requests = 2  # 3/2 and 2/1
    for _ in range(100):
        assert list(balancer.order(b"")) == [a, b]


def test_the_busiest_is_never_taken_first() -> None:
    balancer, ready = balanced(1, 1, 1, 1)
    for endpoint in ready:
        endpoint.requests = 1
    ready[2].requests = 2
    picked = Counter(first(balancer) for _ in range(9000))
    assert ready[2] not in picked
    assert len(picked) == 3


def test_a_first_pick_asks_two() -> None:
    balancer, ready = balanced(*[1] * 100)
    for endpoint in ready:
        endpoint.requests = 1
    first(balancer)
    assert sum(endpoint.asked for endpoint in ready) == 2


def test_loads_stay_close_together() -> None:
    """100 endpoints, 10,000 requests that don't end: chance alone would leave some 50 between most and least."""
    balancer, ready = balanced(*[1] * 100)
    for _ in range(10_000):
        picked = first(balancer)
        picked.requests += 1
    loads = [endpoint.requests for endpoint in ready]
    assert max(loads) - min(loads) <= 8


def test_loads_grow_by_weight() -> None:
    balancer, ready = balanced(5, 3, 2)
    for _ in range(10_000):
        picked = first(balancer)
        picked.requests += 1
    assert [endpoint.requests / 10_000 for endpoint in ready] == pytest.approx([0.5, 0.3, 0.2], abs=0.01)


def test_who_starts_slowly_is_not_taken_for_being_idle() -> None:
    balancer, (a, b) = balanced(1, 1)
    a.requests = 5
    b.share = 0.1
    picked = Counter(first(balancer) for _ in range(10_000))
    assert 0.1 < picked[b] / 10_000 < 0.25


def test_the_order_of_the_others_goes_by_weight() -> None:
    """Whom a retry asks next."""
    draw = Draw(Random(1), ready := endpoints(6, 3, 1))
    firsts = Counter(draw.shuffled(ready)[0] for _ in range(20_000))
    assert [firsts[endpoint] / 20_000 for endpoint in ready] == pytest.approx([0.6, 0.3, 0.1], abs=0.02)
