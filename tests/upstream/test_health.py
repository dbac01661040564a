"""The table of health, walked from every condition by every event."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.health import FAIL_TIMEOUT, NEXT, Condition, Event, Health

UP, FAILED, PROBATION = Condition.UP, Condition.FAILED, Condition.PROBATION
SUCCESS, FAILURE, TIME_OVER, FORGIVEN = Event.SUCCESS, Event.FAILURE, Event.TIME_OVER, Event.FORGIVEN

EXPECTED = {
    (UP, SUCCESS): UP,
    (UP, FAILURE): FAILED,
    (UP, TIME_OVER): UP,
    (UP, FORGIVEN): UP,
    (FAILED, SUCCESS): UP,
    (FAILED, FAILURE): FAILED,
    (FAILED, TIME_OVER): PROBATION,
    (FAILED, FORGIVEN): PROBATION,
    (PROBATION, SUCCESS): UP,
    (PROBATION, FAILURE): FAILED,
    (PROBATION, TIME_OVER): PROBATION,
    (PROBATION, FORGIVEN): PROBATION,
}


def test_every_case_is_expected() -> None:
    assert EXPECTED.keys() == set(product(Condition, Event))
    assert NEXT.items() <= EXPECTED.items()


@pytest.mark.parametrize(("before", "event"), EXPECTED, ids=str)
def test_every_condition_by_every_event(before: Condition, event: Event) -> None:
    health = Health()
    health.condition = before
    was_ready = health.is_ready
    flipped = health.observe(event, 100.0)
    assert health.condition is EXPECTED[before, event]
    assert flipped == (health.is_ready != was_ready)


def test_a_new_endpoint_is_ready() -> None:
    assert Health().is_ready and Health().condition is UP


def test_a_failure_lasts_and_each_further_one_prolongs_it() -> None:
    health = Health()
    health.observe(FAILURE, 100.0)
    assert health.until == 100.0 + FAIL_TIMEOUT
    assert not health.observe(FAILURE, 103.0)
    assert health.until == 103.0 + FAIL_TIMEOUT


@given(st.lists(st.sampled_from(Event)))
def test_only_a_failure_makes_unready_and_a_success_always_heals(events: list[Event]) -> None:
    health = Health()
    for now, event in enumerate(events):
        flipped = health.observe(event, float(now))
        if flipped and not health.is_ready:
            assert event is FAILURE
        if event is SUCCESS:
            assert health.condition is UP
    assert repr(health)
