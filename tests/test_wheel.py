"""Deadlines on a scripted clock: late by at most a tick, never early, and each exactly once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wheel import TICK, Wheel


class Time:
    """A clock and an event loop's `call_later`, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.calls.append((self.now + seconds, callback))

    def pass_(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [call for call in self.calls if call[0] <= end]:
            call = min(due, key=lambda one: one[0])
            self.calls.remove(call)
            self.now = max(self.now, call[0])
            call[1]()
        self.now = end


class Thing:
    def __init__(self, time: Time) -> None:
        self.deadline = 0.0
        self.look = 0
        self.fired: list[float] = []
        self._time = time

    def overdue(self) -> None:
        assert self.deadline == 0.0
        self.fired.append(self._time.now)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def wheel(time: Time) -> Wheel:
    return Wheel(time.later, lambda: time.now)


def test_a_deadline_passes_once(time: Time, wheel: Wheel) -> None:
    thing = Thing(time)
    wheel.arm(thing, time.now + 1.0)
    time.pass_(0.99)
    assert not thing.fired
    time.pass_(0.01 + 2 * TICK)
    assert len(thing.fired) == 1
    time.pass_(10)
    assert len(thing.fired) == 1


def test_a_deadline_of_now_or_before_passes_at_the_next_tick(time: Time, wheel: Wheel) -> None:
    now, before = Thing(time), Thing(time)
    wheel.arm(now, time.now)
    wheel.arm(before, time.now - 100.0)
    time.pass_(3 * TICK)
    assert now.fired and before.fired


def test_setting_it_to_zero_disarms(time: Time, wheel: Wheel) -> None:
    thing = Thing(time)
    wheel.arm(thing, time.now + 0.5)
    thing.deadline = 0.0
    time.pass_(10)
    assert not thing.fired


def test_moving_it_needs_no_call(time: Time, wheel: Wheel) -> None:
    thing = Thing(time)
    wheel.arm(thing, time.now + 0.5)
    thing.deadline = time.now + 5.0
    time.pass_(4.9)
    assert not thing.fired
    time.pass_(0.3)
    assert len(thing.fired) == 1


def test_moving_it_forward_in_time(time: Time, wheel: Wheel) -> None:
    thing = Thing(time)
    wheel.arm(thing, time.now + 60.0)
    wheel.arm(thing, time.now + 0.3)
    time.pass_(0.3 + 2 * TICK)
    assert len(thing.fired) == 1
    time.pass_(100)
    assert len(thing.fired) == 1


def test_one_that_is_armed_again_when_it_fires(time: Time, wheel: Wheel) -> None:
    class Again(Thing):
        def overdue(self) -> None:
            super().overdue()
            wheel.arm(self, time.now + 1.0)

    thing = Again(time)
    wheel.arm(thing, time.now + 1.0)
    time.pass_(10)
    assert 8 <= len(thing.fired) <= 10


def test_a_wheel_without_deadlines_stands_still(time: Time, wheel: Wheel) -> None:
    thing = Thing(time)
    wheel.arm(thing, time.now + 0.1)
    time.pass_(5)
    assert time.calls == []
    time.pass_(1000)
    wheel.arm(thing, time.now + 0.1)
    time.pass_(0.1 + 2 * TICK)
    assert len(thing.fired) == 2


def test_what_is_gone_is_not_kept_for_long(time: Time, wheel: Wheel) -> None:
    wheel.arm(Thing(time), time.now + 3600.0)
    [bucket] = wheel._buckets.values()
    bucket[0].deadline = 0.0
    time.pass_(3.0)
    assert not wheel._buckets


def test_one_that_breaks_does_not_stop_the_others(time: Time, wheel: Wheel) -> None:
    class Broken(Thing):
        def overdue(self) -> None:
            raise RuntimeError("broken")

    things = [Thing(time), Broken(time), Thing(time)]
    later = Thing(time)
    for thing in things:
        wheel.arm(thing, time.now + 0.2)
    wheel.arm(later, time.now + 1.0)
    for _ in range(40):
        try:
            time.pass_(0.1)
        except RuntimeError:
            pass  # an event loop reports it and goes on
    assert things[0].fired and things[2].fired and later.fired


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),  # which
            st.sampled_from(["arm", "disarm", "move"]),
            st.floats(0.0, 8.0),  # the deadline from now
            st.floats(0.0, 3.0),  # how much time passes then
        ),
        max_size=30,
    )
)
def test_never_early_never_much_late_never_twice(steps: list[tuple[int, str, float, float]]) -> None:
    time = Time()
    wheel = Wheel(time.later, lambda: time.now)
    things = [Thing(time) for _ in range(5)]
    wanted = [0.0] * 5  # the deadline that is to pass, by our own book-keeping
    for which, what, ahead, passing in steps:
        thing = things[which]
        before = [len(one.fired) for one in things]
        if what == "arm":
            wanted[which] = time.now + ahead
            wheel.arm(thing, wanted[which])
        elif what == "disarm":
            wanted[which] = thing.deadline = 0.0
        elif thing.deadline:
            wanted[which] = thing.deadline = thing.deadline + ahead
        time.pass_(passing)
        for index, one in enumerate(things):
            new = one.fired[before[index] :]
            assert len(new) <= 1
            if new:
                assert wanted[index] and new[0] >= wanted[index]
                wanted[index] = 0.0
            elif wanted[index]:
                assert time.now <= wanted[index] + 2 * TICK + 1e-6
