"""A group of endpoints that answer for each other, and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from time import monotonic

from gateway.errors import NoEndpoint
from gateway.metrics.plan import UPSTREAM_FAILURES
from gateway.scoreboard import Cells, Condition
from gateway.truth import Truth, now_ms
from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.health import Event, Rules
from gateway.upstream.lease import Lease
from gateway.wheel import Wheel

log = logging.getLogger("gateway.upstream")

# Seconds between two looks at endpoints that start slowly.
_SLOWLY = 0.5
# Milliseconds after which a trial that nobody ended is over: its worker was killed, or it is a download.
_TRIAL = 30_000


class _Look:
    """The moment to look at the records again though nobody has changed them: a time is over."""

    __slots__ = ("_upstream", "deadline", "look")

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.deadline = 0.0
        self.look = 0

    def overdue(self) -> None:
        self._upstream.refresh()


class Upstream:
    def __init__(
        self,
        name: str,
        endpoints: Sequence[Endpoint],
        backups: Collection[Endpoint],
        balancers: tuple[Balancer, Balancer],
        truth: Truth,
        rules: Rules,
        slow_start: float,
        wheel: Wheel,
        cells: Cells,
    ) -> None:
        """backups: those of the endpoints that are asked only when no other is ready. balancers: for the others and for
        these. slow_start: seconds over which an endpoint that came back gets its whole weight."""
        self.name = name
        self.endpoints = list(endpoints)
        self._backups = frozenset(backups)
        self._balancer, self._reserve = balancers
        self._truth = truth
        self._rules = rules
        self._slow_start = int(slow_start * 1000)
        self._wheel = wheel
        self._cells = cells
        self._look = _Look(self)
        self._version = -1
        self.learns = balancers[0].learns
        self.refresh()

    def lease(self, key: bytes, tried: Collection[Endpoint]) -> Lease:
        """The best ready endpoint that was not tried yet. Raises NoEndpoint."""
        if self._truth.version != self._version:
            self.refresh()
        for balancer in (self._balancer, self._reserve):
            for endpoint in balancer.order(key):
                if endpoint not in tried:
                    if not endpoint.guarded:
                        return Lease(self, endpoint)
                    lease = self._guarded(endpoint)
                    if lease is not None:
                        return lease
        raise NoEndpoint("", f"no endpoint of {self.name} is ready")

    def _guarded(self, endpoint: Endpoint) -> Lease | None:
        """A lease where leave must be had first, over all workers."""
        health = endpoint.health
        with self._truth.changing():
            if endpoint.max_requests is not None and endpoint.load() >= endpoint.max_requests:
                return None
            on_trial = health.condition is Condition.PROBATION
            if on_trial and not health.claims_trial(now_ms(), _TRIAL):
                return None
            lease = Lease(self, endpoint, on_trial)
            lease.count()  # before anybody else may ask how many there are
        return lease

    # What leases report.

    def took(self, endpoint: Endpoint, seconds: float, failed: bool) -> None:
        """An exchange is over: policies that learn are told, and each of a failure."""
        balancer = self._reserve if endpoint in self._backups else self._balancer
        balancer.observe(endpoint, seconds, failed)

    def succeeded(self, endpoint: Endpoint) -> None:
        self._observe(endpoint, Event.SUCCESS, "")

    def failed(self, endpoint: Endpoint, cause: str) -> None:
        self._cells[endpoint.cells + UPSTREAM_FAILURES] += 1
        if len(self.endpoints) > 1:  # of a single one, failures change nothing: there is no other to ask
            self._observe(endpoint, Event.FAILURE, cause)

    def undecided(self, endpoint: Endpoint) -> None:
        """A trial ended without an outcome: the next exchange may be one."""
        with self._truth.changing():
            endpoint.health.trial_over()

    def _observe(self, endpoint: Endpoint, event: Event, cause: str) -> None:
        truth, health = self._truth, endpoint.health
        with truth.changing():
            before = health.condition
            changes = health.observe(event, now_ms(), self._rules, self._can_spare(endpoint))
            if changes:
                truth.changed()
        if changes:
            tell(self.name, endpoint.name, before, health.condition, cause)

    def _can_spare(self, endpoint: Endpoint) -> bool:
        """Whether one more may be ejected: not too large a part of the group, and never the last that is ready."""
        others = [one for one in self.endpoints if one is not endpoint]
        ejected = sum(one.health.condition is Condition.EJECTED for one in others)
        is_left = any(one.health.is_ready for one in others)
        return is_left and (ejected == 0 or (ejected + 1) / len(self.endpoints) <= self._rules.max_ejected)

    # What the records say.

    def refresh(self) -> None:
        """Look at the records, and have the balancers know who is ready."""
        self._version = self._truth.version
        now = now_ms()
        for endpoint in self.endpoints:
            if endpoint.health.condition is Condition.EJECTED and endpoint.health.until <= now:
                self._observe(endpoint, Event.TIME_OVER, "its time is over")
        times = []
        for endpoint in self.endpoints:
            health = endpoint.health
            endpoint.guarded = health.condition is Condition.PROBATION or endpoint.max_requests is not None
            endpoint.share = health.share(now, self._slow_start)
            if health.condition is Condition.EJECTED:
                times.append((health.until - now) / 1000)
            if endpoint.share < 1:
                times.append(_SLOWLY)
        ready = [endpoint for endpoint in self.endpoints if endpoint.health.is_ready]
        for balancer, is_backup in ((self._balancer, False), (self._reserve, True)):
            members = [endpoint for endpoint in self.endpoints if (endpoint in self._backups) is is_backup]
            balancer.rebuild([endpoint for endpoint in ready if endpoint in members], members)
        if times:
            self._wheel.arm(self._look, monotonic() + min(times))

    def update(self, endpoints: Sequence[Endpoint], backups: Collection[Endpoint]) -> None:
        """Other endpoints are the members from here on. Those that are gone get nothing new; what they have under way
        they may finish."""
        gone = set(self.endpoints).difference(endpoints)
        self.endpoints = list(endpoints)
        self._backups = frozenset(backups)
        self.refresh()
        for endpoint in gone:
            endpoint.pool.close()

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.pool.close()

    def __repr__(self) -> str:
        ready = sum(endpoint.health.is_ready for endpoint in self.endpoints)
        return f"<Upstream {self.name} {ready} of {len(self.endpoints)} ready>"


def tell(upstream: str, endpoint: str, before: Condition, after: Condition, cause: str) -> None:
    """The one line in the log about a change."""
    level = logging.INFO if after is Condition.UP else logging.WARNING
    because = f": {cause}" if cause else ""
    log.log(level, "%s: endpoint %s is %s, was %s%s", upstream, endpoint, _said(after), _said(before), because)


def _said(condition: Condition) -> str:
    return condition.name.lower()
