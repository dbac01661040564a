"""The Linux Virtual Server's sequence, to the letter."""

from __future__ import annotations

from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.balancers.weighted_lvs import WeightedLVS
from tests.upstream.balancers import endpoints, first


def lvs(weights: list[int], turns: int) -> list[int]:
    """As its documentation writes it (kb.linuxvirtualserver.org, Weighted Round-Robin Scheduling)."""
    at, current = -1, 0
    picks: list[int] = []
    while len(picks) < turns:
        at = (at + 1) % len(weights)
        if at == 0:
            current -= gcd(*weights)
            if current <= 0:
                current = max(weights)
        if weights[at] >= current:
            picks.append(at)
    return picks


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((4, 3, 2), "aababcabc"),  # the example of its documentation
        ((5, 1, 1), "aaaaabc"),
        ((1, 1, 1), "abc"),
        ((2, 4), "bab"),
        ((7,), "a"),
        ((300, 200, 100), "aababc"),
    ],
)
def test_known_sequences(weights: tuple[int, ...], expected: str) -> None:
    ready = endpoints(*weights)
    balancer = WeightedLVS()
    balancer.rebuild(ready)
    picked = [ready.index(first(balancer)) for _ in range(2 * len(expected))]
    assert "".join("abc"[number] for number in picked) == 2 * expected


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_the_sequence_is_that_of_lvs(weights: list[int]) -> None:
    ready = endpoints(*weights)
    balancer = WeightedLVS()
    balancer.rebuild(ready)
    turns = 2 * sum(weights) + 3
    assert [ready.index(first(balancer)) for _ in range(turns)] == lvs(weights, turns)


def test_an_offset_starts_elsewhere_in_it() -> None:
    weights = [4, 3, 2]
    ready = endpoints(*weights)
    whole = lvs(weights, 27)
    starts = set()
    for worker in range(4):
        balancer = WeightedLVS(worker / 4)
        balancer.rebuild(ready)
        seen = [ready.index(first(balancer)) for _ in range(9)]
        starts.add(next(start for start in range(9) if whole[start : start + 9] == seen))
    assert len(starts) == 4
