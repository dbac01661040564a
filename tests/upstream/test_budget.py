"""How many requests may be tried again at the same time."""

from __future__ import annotations

import pytest

from gateway.metrics.plan import GROUP_RETRIES_DENIED
from gateway.upstream.budget import Budget
from tests.upstream.parts import FIRST, Parts

GROUP = FIRST


def granted(part: float, requests: int) -> int:
    """Of so many requests that all fail at the same moment, one after the other: each is in flight until it asks."""
    parts = Parts()
    in_flight = [*range(requests)]
    budget = Budget(part, lambda: len(in_flight), parts.truth, parts.cells, GROUP)
    claimed = 0
    while in_flight:
        in_flight.pop()
        claimed += budget.claim()
    return claimed


@pytest.mark.parametrize(
    ("part", "requests", "expected"),
    [(1.0, 6, 6), (1.0, 100, 100), (0.5, 100, 50), (0.2, 100, 20), (0.2, 6, 3), (0.0, 10, 3), (0.2, 1, 1)],
)
def test_a_part_of_those_who_fail_at_once(part: float, requests: int, expected: int) -> None:
    assert granted(part, requests) == expected


def test_who_is_done_makes_room() -> None:
    parts = Parts()
    budget = Budget(0.2, lambda: 0, parts.truth, parts.cells, GROUP)
    assert [budget.claim() for _ in range(4)] == [True, True, True, False]
    budget.release()
    assert budget.claim() and not budget.claim()


def test_whom_it_could_not_help_is_counted() -> None:
    parts = Parts()
    Budget(0.2, lambda: 0, parts.truth, parts.cells, GROUP).denied()
    assert parts.cells[GROUP + GROUP_RETRIES_DENIED] == 1
