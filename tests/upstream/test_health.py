"""The table of health, walked from every condition by every event."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.scoreboard import Condition, Mark
from gateway.upstream.health import NEXT, Event, Health, Rules
from gateway.upstream.latency import Latency

UP, EJECTED, PROBATION, DOWN = Condition
SUCCESS, FAILURE, ENOUGH, TIME_OVER, PASSED, FAILED = Event
RULES = Rules(consecutive_failures=3, eject_for=10_000, max_eject_for=25_000)

# What changes; everything else stays.
EXPECTED = {
    (UP, ENOUGH): EJECTED,
    (UP, FAILED): DOWN,
    (EJECTED, TIME_OVER): PROBATION,
    (EJECTED, PASSED): PROBATION,
    (EJECTED, FAILED): DOWN,
    (PROBATION, SUCCESS): UP,
    (PROBATION, FAILURE): EJECTED,
    (PROBATION, FAILED): DOWN,
    (DOWN, PASSED): PROBATION,
}


def fresh(condition: Condition = UP) -> Health:
    health = Health(memoryview(bytearray(8 * Mark.SIZE)).cast("Q"))
    health.record[Mark.CONDITION] = condition
    return health


def test_the_table_is_the_expected_one() -> None:
    assert NEXT == EXPECTED


@pytest.mark.parametrize(("before", "event"), list(product(Condition, Event)), ids=str)
def test_every_condition_by_every_event(before: Condition, event: Event) -> None:
    health = fresh(before)
    after = EXPECTED.get((before, event), before)
    assert health.observe(event, 100, RULES, True) == (after is not before)
    assert health.condition is after
    assert health.is_ready == (after in (UP, PROBATION))


def test_enough_failures_in_a_row_eject() -> None:
    health = fresh()
    for event in (FAILURE, FAILURE, SUCCESS, FAILURE, FAILURE):
        assert not health.observe(event, 1, RULES, True)
    assert health.observe(FAILURE, 1, RULES, True)
    assert (health.condition, health.until) == (EJECTED, 10_001)


def test_who_can_not_be_spared_stays() -> None:
    health = fresh()
    for _ in range(10):
        assert not health.observe(FAILURE, 1, RULES, False)
    assert health.observe(FAILURE, 1, RULES, True)


def test_who_can_not_be_spared_stays_on_probation_and_may_be_tried_again() -> None:
    health = fresh(PROBATION)
    assert health.claims_trial(100, 30_000)
    assert not health.observe(FAILURE, 101, RULES, False)
    assert health.condition is PROBATION and health.claims_trial(102, 30_000)
    assert health.observe(FAILURE, 103, RULES, True)
    assert health.condition is EJECTED


def test_each_ejection_is_longer_until_the_longest_and_a_good_time_forgets() -> None:
    health = fresh(PROBATION)
    now, lengths = 0, []
    for _ in range(4):
        health.observe(FAILURE, now, RULES, True)
        lengths.append(health.until - now)
        now = health.until
        health.observe(TIME_OVER, now, RULES, True)
    assert lengths == [10_000, 20_000, 25_000, 25_000]
    health.observe(SUCCESS, now, RULES, True)
    now += RULES.max_eject_for + 1
    for _ in range(3):
        health.observe(FAILURE, now, RULES, True)
    assert health.until - now == 10_000
    assert health.record[Mark.EJECTED] == 5


@pytest.mark.parametrize(("before", "event"), [(UP, ENOUGH), (PROBATION, FAILURE)], ids=str)
def test_probes_of_before_do_not_end_an_ejection(before: Condition, event: Event) -> None:
    health = fresh(before)
    health.record[Mark.PROBES_PASSED] = 7
    assert health.observe(event, 1, RULES, True)
    assert health.record[Mark.PROBES_PASSED] == 0


def test_a_trial_is_one_at_a_time() -> None:
    health = fresh(PROBATION)
    assert health.claims_trial(100, 50) and not health.claims_trial(120, 50)
    assert health.claims_trial(151, 50)  # the first never ended
    health.trial_over()
    assert health.claims_trial(152, 50)


def test_who_comes_back_starts_slowly() -> None:
    health = fresh()
    assert health.share(1000, 20_000) == 1.0  # it has never been away
    health.record[Mark.SINCE] = 1000
    assert [health.share(now, 20_000) for now in (1000, 3000, 11_000, 21_000, 99_000)] == [0.1, 0.1, 0.5, 1.0, 1.0]
    assert health.share(1000, 0) == 1.0


def test_who_comes_back_has_no_latency() -> None:
    health = fresh()
    latency = Latency(health.record)
    assert latency.read() == (0, 0) and repr(latency) == "<Latency unknown>"
    latency.write(0.25, 7.5)
    assert health.record[: Mark.LATENCY].tolist() == [0] * Mark.LATENCY  # it touches nothing else
    for event in (SUCCESS, FAILURE, FAILED):
        health.observe(event, 1, RULES, True)
        assert latency.read() == (0.25, 7.5)
    assert repr(latency) == "<Latency 250 ms>"
    health.observe(PASSED, 1, RULES, True)
    assert latency.read() == (0, 0)


def test_drained_is_not_ready_whatever_else() -> None:
    health = fresh()
    health.record[Mark.DRAINED] = 1
    assert not health.is_ready and not health.is_up and health.condition is UP
    health.record[Mark.CONDITION] = EJECTED
    assert not health.is_resort
    health.record[Mark.DRAINED] = 0
    assert health.is_resort and not health.is_ready


@given(st.lists(st.sampled_from(Event)))
def test_only_what_is_up_and_uncounted_is_plain(events: list[Event]) -> None:
    health = fresh()
    for now, event in enumerate(events):
        health.observe(event, now, RULES, True)
        assert health.is_plain == (health.condition is UP and not health.record[Mark.FAILURES])
    assert repr(health)
