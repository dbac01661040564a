"""The breaker of an upstream: when most of what goes there fails, nothing goes there for a time.

It is a record like an endpoint's, under the same table of conditions: up is a closed circuit, ejected an open one, and
on probation it is half open, where one request at a time is let through until enough have succeeded.
"""

from __future__ import annotations

import logging

from gateway.config.upstreams import Breaker
from gateway.scoreboard import CIRCUIT, Condition
from gateway.truth import Truth, now_ms
from gateway.upstream.health import Event, Health, Rules
from gateway.upstream.ratio import Ratio

log = logging.getLogger("gateway.upstream")

# Milliseconds after which a trial that nobody ended is over: its worker was killed, or it is a download.
TRIAL = 30_000


class Circuit:
    __slots__ = ("_ratio", "_rules", "_truth", "_upstream", "health")

    def __init__(self, upstream: str, config: Breaker, health: Health, ratio: Ratio, truth: Truth) -> None:
        """health: the upstream's own record. ratio: of all its exchanges."""
        self._upstream = upstream
        self._rules = Rules(
            eject_for=int(config.open_for * 1000), max_eject_for=int(config.max_open_for * 1000), trials=config.trials
        )
        self._ratio = ratio
        self._truth = truth
        self.health = health

    @property
    def is_open(self) -> bool:
        return self.health.condition is Condition.EJECTED

    @property
    def is_closed(self) -> bool:
        return self.health.condition is Condition.UP

    def claims_trial(self) -> bool:
        """Whether the caller may be the one request that is let through. To be asked while the truth is `changing`."""
        return self.health.claims_trial(now_ms(), TRIAL)

    def judged(self, failed: bool, on_trial: bool, began: int) -> None:
        """An exchange is over. began: milliseconds; of before the last change it says nothing."""
        if began < self.health.since:
            return
        now = now_ms()
        self._ratio.count(now, failed)
        if on_trial and not self.is_closed:
            self._observe(Event.FAILURE if failed else Event.SUCCESS, "its trial failed" if failed else "trials passed")
        elif failed and self.is_closed:
            since = self.health.since
            if self._ratio.is_exceeded(now, since):
                total, bad = self._ratio.sums(now, since)
                self._observe(Event.ENOUGH, f"{bad} of the last {total} requests failed")

    def undecided(self, began: int) -> None:
        """A trial ended without an outcome."""
        with self._truth.changing():
            if began >= self.health.since:
                self.health.trial_over()

    def look(self) -> None:
        """Half open it when its time is over."""
        if self.is_open and self.health.until <= now_ms():
            self._observe(Event.TIME_OVER, "its time is over")

    def _observe(self, event: Event, cause: str) -> None:
        with self._truth.changing():
            before = self.health.condition
            changes = self.health.observe(event, now_ms(), self._rules, True)
            if changes:
                self._truth.changed()
        if changes:
            after = self.health.condition
            level = logging.INFO if after is Condition.UP else logging.WARNING
            said = CIRCUIT[after], CIRCUIT[before], cause
            log.log(level, "%s: the circuit is %s, was %s: %s", self._upstream, *said)
