"""How many requests may be tried again at the same time."""

from __future__ import annotations

import pytest

from gateway.metrics.plan import GROUP_RETRIES_DENIED
from gateway.upstream import budget
from gateway.upstream.budget import Budget
from tests.upstream.parts import FIRST, Parts

GROUP = FIRST


def granted(part: float, requests: int) -> int:
    """Of so many requests that all fail at the same moment, one after the other: each is in flight until it asks."""
    parts = Parts()
    in_flight = [*range(requests)]
    one = Budget(part, lambda: len(in_flight), parts.truth, parts.cells, GROUP)
    claimed = 0
    while in_flight:
        in_flight.pop()
        claimed += one.claim()
    return claimed


@pytest.mark.parametrize(
    ("part", "requests", "expected"),
    [(1.0, 6, 6), (1.0, 100, 100), (0.5, 100, 50), (0.2, 100, 20), (0.2, 6, 3), (0.0, 10, 3), (0.2, 1, 1)],
)
def test_a_part_of_those_who_fail_at_once(part: float, requests: int, expected: int) -> None:
    assert granted(part, requests) == expected


def test_who_is_done_makes_room() -> None:
    parts = Parts()
    one = Budget(0.2, lambda: 0, parts.truth, parts.cells, GROUP)
    assert [one.claim() for _ in range(4)] == [True, True, True, False]
    one.release()
    assert one.claim() and not one.claim()


def test_whom_it_could_not_help_is_counted() -> None:
    parts = Parts()
    Budget(0.2, lambda: 0, parts.truth, parts.cells, GROUP).denied()
    assert parts.cells[GROUP + GROUP_RETRIES_DENIED] == 1


def test_requests_are_added_up_seldom_and_only_when_it_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    now, looks = [100.0], 0

    def load() -> int:
        nonlocal looks
        looks += 1
        return 16

    monkeypatch.setattr(budget, "monotonic", lambda: now[0])
    one = Budget(0.2, load, parts.truth, parts.cells, GROUP)
    assert [one.claim() for _ in range(3)] == [True] * 3 and looks == 0
    assert [one.claim() for _ in range(50)] == [True, *[False] * 49] and looks == 1
    now[0] += 1
    assert one.claim() and looks == 2, "21 requests now"
