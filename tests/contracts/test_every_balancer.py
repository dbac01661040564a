"""The contract of a balancing policy, over the table of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import Upstream
from gateway.upstream.balancers import BALANCERS
from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.endpoint import Endpoint
from tests.upstream.parts import endpoints

Make = Callable[..., Balancer]

every = pytest.mark.parametrize("make", BALANCERS.values(), ids=BALANCERS.keys())
WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=8)


def first(balancer: Balancer) -> Endpoint:
    return next(iter(balancer.order(b"")))


def test_the_configuration_knows_the_same_names() -> None:
    assert set(get_args(Upstream.model_fields["balance"].annotation)) == BALANCERS.keys()


@every
def test_nobody_ready(make: Make) -> None:
    balancer = make()
    assert list(balancer.order(b"key")) == []  # before the first rebuild as well
    balancer.rebuild([])
    assert list(balancer.order(b"key")) == []


@every
@given(weights=WEIGHTS, offset=st.floats(0, 1, exclude_max=True), turns=st.integers(0, 30))
def test_every_ready_endpoint_is_offered_exactly_once(
    make: Make, weights: list[int], offset: float, turns: int
) -> None:
    ready = endpoints(*weights)
    balancer = make(offset)
    balancer.rebuild(ready)
    for _ in range(turns):
        first(balancer)
    assert Counter(balancer.order(b"")) == Counter(ready)


@every
@given(weights=WEIGHTS, offset=st.floats(0, 1, exclude_max=True))
def test_shares_follow_the_weights(make: Make, weights: list[int], offset: float) -> None:
    ready = endpoints(*weights)
    balancer = make(offset)
    balancer.rebuild(ready)
    turns = 100 * sum(weights)
    picked = Counter(first(balancer) for _ in range(turns))
    for endpoint in ready:
        assert abs(picked[endpoint] / turns - endpoint.weight / sum(weights)) < 0.01


@every
@pytest.mark.parametrize(
    "weights", [(65535, 1), (65535, 65534), (30000, 20000, 10000, 1), (7919, 7907, 7901), (1,) * 500], ids=len
)
def test_shares_follow_also_large_weights(make: Make, weights: tuple[int, ...]) -> None:
    ready = endpoints(*weights)
    balancer = make()
    balancer.rebuild(ready)
    turns = 5_000
    picked = Counter(first(balancer) for _ in range(turns))
    for endpoint in ready:
        assert abs(picked[endpoint] / turns - endpoint.weight / sum(weights)) < 0.01


@every
@given(weights=st.lists(st.integers(1, 9), min_size=2, max_size=6), gone=st.integers(0, 5), turns=st.integers(0, 9))
def test_who_is_gone_gets_nothing_and_who_comes_back_gets_its_share(
    make: Make, weights: list[int], gone: int, turns: int
) -> None:
    ready = endpoints(*weights)
    balancer = make()
    balancer.rebuild(ready)
    for _ in range(turns):
        first(balancer)
    lost = ready[gone % len(ready)]
    rest = [endpoint for endpoint in ready if endpoint is not lost]
    balancer.rebuild(rest)
    total = sum(endpoint.weight for endpoint in rest)
    picked = Counter(first(balancer) for _ in range(100 * total))
    assert lost not in picked
    for endpoint in rest:
        assert abs(picked[endpoint] / (100 * total) - endpoint.weight / total) < 0.01
    balancer.rebuild(ready)
    assert Counter(balancer.order(b"")) == Counter(ready)


@every
def test_workers_do_not_march_in_step(make: Make) -> None:
    ready = endpoints(*[1] * 8)
    starts = set()
    for worker in range(8):
        balancer = make(worker / 8)
        balancer.rebuild(ready)
        starts.add(first(balancer))
    assert len(starts) > 1


@every
def test_an_order_may_be_left_half_read(make: Make) -> None:
    ready = endpoints(3, 2, 1)
    balancer = make()
    balancer.rebuild(ready)
    unread = balancer.order(b"")
    next(unread)
    balancer.rebuild(ready[:1])
    assert list(balancer.order(b"")) == ready[:1]
    list(unread)
