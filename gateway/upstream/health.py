"""Passive health of one endpoint, as a table (nginx's max_fails and fail_timeout; SEMANTICS of its round robin).

Pure: events and the time come in, the state changes. `observe` says whether readiness flipped, and only a flip is worth
a log line and a new balance.
"""

from __future__ import annotations

from enum import Enum

FAIL_TIMEOUT = 10.0  # seconds an endpoint is left alone after a failure: nginx's default


class Condition(Enum):
    UP = "up"
    FAILED = "failed"  # not asked until its time is over
    PROBATION = "probation"  # asked again; the next outcome decides


class Event(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    TIME_OVER = "time over"
    FORGIVEN = "forgiven"  # nobody else was left to ask


NEXT: dict[tuple[Condition, Event], Condition] = {
    (Condition.UP, Event.FAILURE): Condition.FAILED,
    (Condition.FAILED, Event.TIME_OVER): Condition.PROBATION,
    (Condition.FAILED, Event.FORGIVEN): Condition.PROBATION,
    (Condition.FAILED, Event.SUCCESS): Condition.UP,  # an exchange that began before the failure went well
    (Condition.PROBATION, Event.SUCCESS): Condition.UP,
    (Condition.PROBATION, Event.FAILURE): Condition.FAILED,
}


class Health:
    """One endpoint's condition and, while it is FAILED, until when."""

    __slots__ = ("condition", "until")

    def __init__(self) -> None:
        self.condition = Condition.UP
        self.until = 0.0

    @property
    def is_ready(self) -> bool:
        return self.condition is not Condition.FAILED

    def observe(self, event: Event, now: float) -> bool:
        """Take an event in; True when readiness flipped."""
        was_ready = self.is_ready
        self.condition = NEXT.get((self.condition, event), self.condition)
        if self.condition is Condition.FAILED and event is Event.FAILURE:
            self.until = now + FAIL_TIMEOUT
        return was_ready != self.is_ready

    def __repr__(self) -> str:
        return f"<Health {self.condition.value}>"
