"""Which part of the latest exchanges failed."""

from __future__ import annotations

import pytest

from gateway.scoreboard import SEAT_CELLS, Cells
from gateway.upstream.ratio import SIZE, Ratio

AT = 100


def seats(count: int) -> list[Cells]:
    return [memoryview(bytearray(8 * SEAT_CELLS)).cast("Q") for _ in range(count)]


def ratios(everybody: list[Cells], most: float = 0.5, least: int = 4, window: float = 10.0) -> list[Ratio]:
    return [Ratio(own, AT, lambda: everybody, most=most, least=least, window=window) for own in everybody]


def test_exchanges_of_all_workers_are_added_up() -> None:
    one, two = ratios(seats(2))
    one.count(100_000, True)
    two.count(100_000, False)
    two.count(100_001, True)
    assert one.sums(100_002, 0) == two.sums(100_002, 0) == (3, 2)


@pytest.mark.parametrize(("total", "failed", "expected"), [(3, 3, False), (4, 1, False), (4, 2, True), (9, 5, True)])
def test_enough_of_enough(total: int, failed: int, expected: bool) -> None:
    [one] = ratios(seats(1))
    for number in range(total):
        one.count(100_000, number < failed)
    assert one.is_exceeded(100_000, 0) is expected


def test_what_is_older_than_a_window_is_forgotten() -> None:
    [one] = ratios(seats(1))
    one.count(100_000, True)
    assert one.sums(104_999, 0) == (1, 1)
    assert one.sums(109_999, 0) == (1, 1)  # the half before this one
    assert one.sums(110_000, 0) == (0, 0)
    one.count(110_000, False)  # in the cells of the half that is over
    assert one.sums(110_000, 0) == (1, 0)


def test_what_led_to_a_change_does_not_lead_to_the_next() -> None:
    [one] = ratios(seats(1))
    one.count(100_000, True)
    assert one.sums(101_000, since=100_500) == (0, 0)
    one.count(105_000, True)
    assert one.sums(105_000, since=100_500) == (1, 1)


def test_it_keeps_to_its_cells() -> None:
    [seat] = everybody = seats(1)
    [one] = ratios(everybody)
    for now in range(0, 100_000, 777):
        one.count(now, True)
    assert not any(seat[:AT]) and not any(seat[AT + SIZE :])
