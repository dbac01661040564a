"""The contract of a balancing policy, over the table of all of them.

Shares are those of idle endpoints and of requests without a key: what loads, latencies and keys make of them is each
policy's own affair (tests/upstream/balancers).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.upstreams import Upstream
from gateway.upstream.balancers import BALANCERS
from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.endpoint import Endpoint
from tests.upstream.balancers import endpoints, first, keys, made, shares

every = pytest.mark.parametrize("policy", BALANCERS)
WEIGHTS = st.lists(st.integers(1, 50), min_size=1, max_size=8)
OFFSET = st.floats(0, 1, exclude_max=True)
TURNS = 100_000


def expected(ready: Sequence[Endpoint]) -> dict[Endpoint, float]:
    total = sum(endpoint.weight * endpoint.share for endpoint in ready)
    return {endpoint: endpoint.weight * endpoint.share / total for endpoint in ready}


def test_the_configuration_knows_the_same_names() -> None:
    assert set(get_args(Upstream.model_fields["balance"].annotation)) == BALANCERS.keys()


@every
def test_nobody_ready(policy: str) -> None:
    balancer = made(policy)
    assert list(balancer.order(b"")) == list(balancer.order(b"key")) == []  # before the first rebuild as well
    balancer.rebuild([])
    assert list(balancer.order(b"")) == list(balancer.order(b"key")) == []
    balancer.rebuild([], endpoints(1, 2, 3))
    assert list(balancer.order(b"")) == list(balancer.order(b"key")) == []


@every
def test_one_endpoint(policy: str) -> None:
    balancer = made(policy)
    for weight in (1, 65535):
        for share in (1.0, 0.001):
            [endpoint] = endpoints(weight)
            endpoint.share = share
            endpoint.requests = 7
            balancer.rebuild([endpoint])
            for key in (b"", b"key"):
                assert list(balancer.order(key)) == [endpoint]
            balancer.observe(endpoint, 0.1, True)
            assert list(balancer.order(b"")) == [endpoint]


@every
@given(weights=WEIGHTS, offset=OFFSET, turns=st.integers(0, 30), key=st.binary(max_size=3), data=st.data())
def test_every_ready_endpoint_is_offered_exactly_once(
    policy: str, weights: list[int], offset: float, turns: int, key: bytes, data: st.DataObject
) -> None:
    members = endpoints(*weights)
    ready = data.draw(st.lists(st.sampled_from(members), unique=True))
    for endpoint in members:
        endpoint.share = data.draw(st.sampled_from((1.0, 1.0, 0.5, 0.01)))
        endpoint.requests = data.draw(st.integers(0, 3))
    balancer = made(policy, offset)
    balancer.rebuild(ready, members)
    for _ in range(turns if ready else 0):
        balancer.observe(first(balancer, key), 0.1, data.draw(st.booleans()))
    assert Counter(balancer.order(key)) == Counter(ready)


@every
def test_of_a_thousand_as_well(policy: str) -> None:
    members = endpoints(*(1 + number % 5 for number in range(1000)))
    balancer = made(policy)
    balancer.rebuild(members)
    for key in (b"", b"key"):
        order = list(balancer.order(key))
        assert len(order) == 1000 and set(order) == set(members)
    balancer.rebuild(members[::2], members)
    for key in (b"", b"key"):
        order = list(balancer.order(key))
        assert len(order) == 500 and set(order) == set(members[::2])


@every
@pytest.mark.parametrize("key", [b"", b"key"])
def test_a_first_pick_asks_few_how_busy_they_are(policy: str, key: bytes) -> None:
    members = endpoints(*[1] * 1000)
    balancer = made(policy)
    balancer.rebuild(members)
    for _ in range(10):
        first(balancer, key)
    assert sum(endpoint.asked for endpoint in members) <= 20


@every
@pytest.mark.parametrize(
    "weights",
    [(5, 1, 1), (1, 1, 1), (1, 2, 3, 4), (65535, 1), (65535, 65534), (30000, 20000, 10000, 1), (7919, 7907, 7901)],
    ids=str,
)
def test_shares_follow_the_weights(policy: str, weights: tuple[int, ...]) -> None:
    ready = endpoints(*weights)
    balancer = made(policy)
    balancer.rebuild(ready)
    got = shares(balancer, -(-TURNS // sum(weights)) * sum(weights))  # whole periods: LVS comes in long bursts
    for endpoint, share in expected(ready).items():
        assert got.get(endpoint, 0) == pytest.approx(share, abs=0.01)


@every
@pytest.mark.parametrize("weights", [[1] * 1000, [1, 10] * 500, [1] * 999 + [65535]], ids=["equal", "1, 10", "one"])
def test_shares_follow_the_weights_in_a_large_group(policy: str, weights: list[int]) -> None:
    """Each of them is a thousandth, so they are counted by weight."""
    ready = endpoints(*weights)
    balancer = made(policy)
    balancer.rebuild(ready)
    turns = -(-TURNS // sum(weights)) * sum(weights)
    got = shares(balancer, turns)
    for weight in set(weights):
        share = sum(got.get(endpoint, 0) for endpoint in ready if endpoint.weight == weight)
        assert share == pytest.approx(weight * weights.count(weight) / sum(weights), abs=0.01)
    for endpoint in ready:
        rightly = endpoint.weight / sum(weights) * turns
        assert got.get(endpoint, 0) * turns < rightly + 6 * rightly**0.5 + 1  # by chance: six deviations


@every
@settings(max_examples=30)
@given(weights=WEIGHTS, offset=OFFSET)
def test_shares_follow_any_weights(policy: str, weights: list[int], offset: float) -> None:
    ready = endpoints(*weights)
    balancer = made(policy, offset)
    balancer.rebuild(ready)
    got = shares(balancer, 100 * sum(weights))
    for endpoint, share in expected(ready).items():
        # By chance: six deviations.
        assert abs(got.get(endpoint, 0) - share) < max(0.01, 6 * (share * (1 - share) / 100 / sum(weights)) ** 0.5)


@every
@given(data=st.data(), weights=st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_who_is_not_ready_gets_nothing(policy: str, weights: list[int], data: st.DataObject) -> None:
    members = endpoints(*weights)
    balancer = made(policy)
    for _ in range(data.draw(st.integers(1, 5))):
        ready = data.draw(st.lists(st.sampled_from(members), unique=True))
        balancer.rebuild(ready, members)
        some = keys()
        for turn in range(30 if ready else 0):
            picked = first(balancer, next(some) if turn % 2 else b"")
            assert picked in ready
            balancer.observe(picked, 0.01, turn % 7 == 0)
            balancer.observe(members[turn % len(members)], 0.01, True)  # late news of whomever


@every
def test_who_comes_back_gets_its_share(policy: str) -> None:
    ready = endpoints(3, 2, 1)
    balancer = made(policy)
    balancer.rebuild(ready)
    shares(balancer, 10)
    balancer.rebuild(ready[1:], ready)
    got = shares(balancer, TURNS)
    assert got == {ready[1]: pytest.approx(2 / 3, abs=0.01), ready[2]: pytest.approx(1 / 3, abs=0.01)}
    balancer.rebuild(ready, ready)
    got = shares(balancer, TURNS)
    for endpoint, share in expected(ready).items():
        assert got[endpoint] == pytest.approx(share, abs=0.01)


@every
@pytest.mark.parametrize("weights", [(2, 1, 1), (65535, 65535, 65533, 65531), (1,) * 100, (1, 2) * 300], ids=len)
def test_who_starts_slowly_gets_its_share_of_its_weight(policy: str, weights: tuple[int, ...]) -> None:
    ready = endpoints(*weights)
    balancer = made(policy)
    balancer.rebuild(ready)
    for share in (0.1, 0.5, 1.0):  # it grows without a rebuild
        ready[0].share = share
        assert_shares_are_right(balancer, ready)
    for endpoint in ready:
        endpoint.share = 0.1  # all of them: nobody is behind anybody
    assert_shares_are_right(balancer, ready)


def assert_shares_are_right(balancer: Balancer, ready: Sequence[Endpoint]) -> None:
    turns = TURNS // 4
    got = shares(balancer, turns)
    for endpoint, share in expected(ready).items():
        # By chance: six deviations.
        assert abs(got.get(endpoint, 0) - share) < min(0.01, 6 * (share / turns) ** 0.5 + 2 / turns)


@every
def test_a_tiny_share_hangs_nobody(policy: str) -> None:
    ready = endpoints(1, 2, 3)
    for endpoint in ready:
        endpoint.share = 1e-9
    balancer = made(policy)
    balancer.rebuild(ready)
    for key in (b"", b"key"):
        assert Counter(balancer.order(key)) == Counter(ready)


@every
@pytest.mark.parametrize("weights", [(1,) * 8, (65535, 65534, 65533, 65531), (1, 2) * 300], ids=len)
def test_workers_do_not_march_in_step(policy: str, weights: tuple[int, ...]) -> None:
    ready = endpoints(*weights)
    starts = set()
    for worker in range(8):
        balancer = made(policy, worker / 8, seed=worker)
        balancer.rebuild(ready)
        starts.add(first(balancer))
    assert len(starts) > 1


@every
@pytest.mark.parametrize("count", [8, 100])
def test_frequent_rebuilds_favour_nobody(policy: str, count: int) -> None:
    ready = endpoints(*[1] * count)
    balancer = made(policy)
    picked: Counter[Endpoint] = Counter()
    for _ in range(20 * count):
        balancer.rebuild(ready)
        picked[first(balancer)] += 1
    assert len(picked) == count
    assert max(picked.values()) < 20 * 2.5


@every
def test_an_order_may_be_left_half_read(policy: str) -> None:
    ready = endpoints(3, 2, 1)
    balancer = made(policy)
    for key in (b"", b"key"):
        balancer.rebuild(ready)
        unread = balancer.order(key)
        one = next(unread)
        balancer.rebuild(ready[:1])
        assert list(balancer.order(key)) == ready[:1]
        assert Counter([one, *unread]) == Counter(ready)
