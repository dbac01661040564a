"""The health of an endpoint, as a table over a record that all processes share.

An endpoint is judged in two ways: by what traffic does with it (outliers are ejected for a time, longer each time) and
by probes (it is down until they pass again). Either way it comes back on probation, where one exchange at a time is its
trial. Pure: the record's cells, an event and the time come in, the record changes. Who calls holds the record's lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.config.upstreams import Outlier
from gateway.scoreboard import Cells, Condition, Mark


class Event(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    ENOUGH = "enough failures in a row"
    TIME_OVER = "time over"
    PROBES_PASSED = "probes passed"
    PROBES_FAILED = "probes failed"


NEXT: dict[tuple[Condition, Event], Condition] = {
    (Condition.UP, Event.ENOUGH): Condition.EJECTED,
    (Condition.UP, Event.PROBES_FAILED): Condition.DOWN,
    (Condition.EJECTED, Event.TIME_OVER): Condition.PROBATION,
    (Condition.EJECTED, Event.PROBES_PASSED): Condition.PROBATION,
    (Condition.EJECTED, Event.PROBES_FAILED): Condition.DOWN,
    (Condition.PROBATION, Event.SUCCESS): Condition.UP,
    (Condition.PROBATION, Event.FAILURE): Condition.EJECTED,
    (Condition.PROBATION, Event.PROBES_FAILED): Condition.DOWN,
    (Condition.DOWN, Event.PROBES_PASSED): Condition.PROBATION,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """When an endpoint is an outlier. Times in milliseconds, as in the record."""

    consecutive_failures: int = 3
    eject_for: int = 10_000
    max_eject_for: int = 300_000
    max_ejected: float = 0.5  # of the group
    trials: int = 1  # that must succeed on probation


def rules_of(config: Outlier) -> Rules:
    return Rules(
        config.consecutive_failures, int(config.eject_for * 1000), int(config.max_eject_for * 1000), config.max_ejected
    )


class Health:
    """One endpoint's record. Times are milliseconds of the monotonic clock, which all processes of a machine share."""

    __slots__ = ("record",)

    def __init__(self, record: Cells) -> None:
        self.record = record

    @property
    def condition(self) -> Condition:
        return Condition(self.record[Mark.CONDITION])

    @property
    def until(self) -> int:
        """While it is ejected: until when."""
        return int(self.record[Mark.UNTIL])

    @property
    def since(self) -> int:
        """When the condition changed; 0 for never."""
        return int(self.record[Mark.SINCE])

    @property
    def is_up(self) -> bool:
        """Whether it is asked without reserve."""
        return self.record[Mark.CONDITION] == Condition.UP and not self.record[Mark.DRAINED]

    @property
    def is_ready(self) -> bool:
        """Whether it may be asked, on trial at least."""
        record = self.record
        return record[Mark.CONDITION] in (Condition.UP, Condition.PROBATION) and not record[Mark.DRAINED]

    @property
    def is_resort(self) -> bool:
        """Whether it is ejected, and asked nevertheless when there is nobody else."""
        return self.record[Mark.CONDITION] == Condition.EJECTED and not self.record[Mark.DRAINED]

    @property
    def is_plain(self) -> bool:
        """Whether a success of it changes nothing: it is up, and nobody counts failures of it."""
        return not (self.record[Mark.CONDITION] or self.record[Mark.FAILURES])

    def observe(self, event: Event, now: int, rules: Rules, may_eject: bool) -> bool:
        """Take an event in; True when the condition changed. may_eject: whether the group can do without it."""
        record = self.record
        if event is Event.SUCCESS:
            record[Mark.FAILURES] = 0
            if record[Mark.CONDITION] == Condition.PROBATION:
                record[Mark.TRIAL] = 0
                record[Mark.TRIALS_PASSED] += 1
                if record[Mark.TRIALS_PASSED] < rules.trials:
                    return False
        elif event is Event.FAILURE:
            record[Mark.FAILURES] += 1
            if record[Mark.CONDITION] == Condition.UP and record[Mark.FAILURES] >= rules.consecutive_failures:
                event = Event.ENOUGH
        before = self.condition
        after = NEXT.get((before, event), before)
        if after is Condition.EJECTED and not may_eject:
            record[Mark.TRIAL] = record[Mark.TRIALS_PASSED] = 0
            return False
        if after is before:
            return False
        record[Mark.CONDITION] = after
        record[Mark.TRIAL] = record[Mark.TRIALS_PASSED] = 0
        if after is Condition.EJECTED:
            if before is Condition.UP and now - record[Mark.SINCE] > rules.max_eject_for:
                record[Mark.EJECTIONS] = 0  # it has been well for so long that what was before is forgotten
            record[Mark.EJECTIONS] += 1
            record[Mark.EJECTED] += 1
            record[Mark.PROBES_PASSED] = 0  # what passed before says nothing: only probes from here on end it early
            record[Mark.UNTIL] = now + min(rules.eject_for * record[Mark.EJECTIONS], rules.max_eject_for)
        if after in (Condition.UP, Condition.PROBATION):
            record[Mark.FAILURES] = 0
        if after is Condition.PROBATION:
            record[Mark.LATENCY] = record[Mark.LATENCY_AT] = 0  # how slow it was while it failed is no longer so
        record[Mark.SINCE] = now
        return True

    def claims_trial(self, now: int, longest: int) -> bool:
        """Whether the caller may try an endpoint on probation: nobody else does. longest: when a trial that nobody
        ended is over, as when its worker was killed."""
        if self.record[Mark.TRIAL] > now:
            return False
        self.record[Mark.TRIAL] = now + longest
        return True

    def trial_over(self) -> None:
        self.record[Mark.TRIAL] = 0

    def share(self, now: int, slow_start: int) -> float:
        """The part of its weight that an endpoint gets that came back a moment ago: it rises over `slow_start`, from a
        tenth (Envoy's minimum)."""
        record = self.record
        if not slow_start or record[Mark.CONDITION] != Condition.UP or not record[Mark.SINCE]:
            return 1.0
        return min(1.0, max(0.1, (now - record[Mark.SINCE]) / slow_start))

    def __repr__(self) -> str:
        return f"<Health {self.condition.name.lower()}>"
