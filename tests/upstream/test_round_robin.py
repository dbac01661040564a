"""nginx's sequence, to the letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.balancers.round_robin import RoundRobin, cycle
from tests.upstream.parts import endpoints


def nginx(weights: list[int], turns: int) -> list[int]:
    """ngx_http_upstream_get_peer with no failures: add each weight, take the first greatest, subtract the total."""
    current = [0] * len(weights)
    picks = []
    for _ in range(turns):
        best = -1
        for index, weight in enumerate(weights):
            current[index] += weight
            if best < 0 or current[index] > current[best]:
                best = index
        current[best] -= sum(weights)
        picks.append(best)
    return picks


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((5, 1, 1), "aabacaa"),
        ((1, 1, 1), "abc"),
        ((2, 1), "aba"),
        ((1, 2), "bab"),
        ((4, 2), "aba"),
        ((3, 2, 1), "abacba"),
        ((1, 1), "ab"),
        ((7,), "a"),
        ((4, 3, 2, 1), "abcabdacba"),
    ],
)
def test_known_sequences(weights: tuple[int, ...], expected: str) -> None:
    assert "".join("abcd"[index] for index in cycle(weights)) == expected


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_the_sequence_is_that_of_nginx(weights: list[int]) -> None:
    picks = cycle(weights)
    turns = 2 * sum(weights)
    assert (picks * (turns // len(picks) + 1))[:turns] == nginx(weights, turns)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_an_offset_only_turns_the_sequence(weights: list[int], offset: float) -> None:
    ready = endpoints(*weights)
    balancer = RoundRobin(offset)
    balancer.rebuild(ready)
    picks = [ready[index] for index in cycle(weights)]
    seen = [next(balancer.order(b"")) for _ in picks]
    assert any(seen == picks[start:] + picks[:start] for start in range(len(picks)))
