"""A quantile of the latest durations."""

from __future__ import annotations

import random

import pytest

from gateway.proxy.quantile import Quantile


def test_nothing_is_said_of_a_few() -> None:
    one = Quantile(0.95)
    for _ in range(99):
        one.add(0.01)
    assert one.value is None
    one.add(0.01)
    assert one.value is not None


@pytest.mark.parametrize("part", [0.5, 0.9, 0.95, 0.99])
def test_it_is_at_most_a_tenth_too_high(part: float) -> None:
    chance = random.Random(1)
    one = Quantile(part)
    durations = [chance.lognormvariate(-4, 1) for _ in range(950)]
    for seconds in durations:
        one.add(seconds)
    true = sorted(durations)[int(part * len(durations))]
    assert one.value is not None and true * 0.9 < one.value < true * 1.15


def test_it_follows() -> None:
    one = Quantile(0.95)
    for _ in range(1000):
        one.add(0.01)
    for _ in range(3000):
        one.add(0.5)
    assert one.value is not None and 0.45 < one.value < 0.56
    for _ in range(20_000):
        one.add(0.01)
    assert one.value is not None and one.value < 0.012


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e9])
def test_any_duration_has_a_bucket(seconds: float) -> None:
    one = Quantile(0.95)
    for _ in range(200):
        one.add(seconds)
    assert one.value is not None
