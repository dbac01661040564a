"""A group of endpoints that answer for each other, and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from math import inf
from time import monotonic

from gateway.errors import Busy, CircuitOpen, NoEndpoint
from gateway.metrics.plan import UPSTREAM_FAILURES
from gateway.scoreboard import Cells, Condition
from gateway.truth import Truth, now_ms
from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.circuit import TRIAL, Circuit
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.health import Event, Rules
from gateway.upstream.lease import Lease
from gateway.upstream.line import Line, Place
from gateway.upstream.sticky import Sticky
from gateway.wheel import Wheel

log = logging.getLogger("gateway.upstream")

# Seconds between two looks at endpoints that start slowly.
_SLOWLY = 0.5


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
        *,
        max_requests: int | None = None,
        line: Line | None = None,
        circuit: Circuit | None = None,
        sticky: Sticky | None = None,
    ) -> None:
        """backups: those of the endpoints that are asked only when no other is ready. balancers: for the others and for
        these. slow_start: seconds over which an endpoint that came back gets its whole weight. max_requests: the most
        in flight over all workers; line: where requests wait for room, if they may."""
        self.name = name
        self.endpoints = list(endpoints)
        self._backups = frozenset(backups)
        self._balancer, self._reserve = balancers
        self._truth = truth
        self._rules = rules
        self._slow_start = int(slow_start * 1000)
        self._wheel = wheel
        self._cells = cells
        self._max_requests = max_requests
        self._line = line
        self._circuit = circuit
        self.sticky = sticky
        self._look = _Look(self)
        self._version = -1
        self._asked: frozenset[Endpoint] = frozenset()  # whom the balancers order
        # What the balancers were built of: whom they order, the members and their weights.
        self._built: dict[bool, tuple[list[Endpoint], list[Endpoint], list[int]]] = {}
        self._guarded = False  # the group as a whole is asked only with leave
        self.learns = balancers[0].learns  # whether `took` is to be told of every exchange
        self.counts = False  # whether `judged` is
        self.refresh()

    def lease(
        self,
        key: bytes,
        tried: Collection[Endpoint],
        bound: Endpoint | None = None,
        place: Place | None = None,
        even_ejected: bool = False,
    ) -> Lease:
        """The best ready endpoint that was not tried yet.

        bound: the one that is better than the best, if it is ready. place: the caller's in the line. even_ejected: for
        who has nobody else to ask, a last resort while no endpoint is up: one on probation is asked beside its trial,
        and when all are out by what traffic did with them, they are asked. Never one that is down by its probes.
        Raises NoEndpoint, CircuitOpen and Busy.
        """
        if self._truth.version != self._version:
            self.refresh()
        left: list[Endpoint] = []
        if bound is not None and bound not in tried and bound in self._asked:
            if not (bound.guarded or self._guarded):
                return Lease(self, bound)
            if lease := self._with_leave(bound, place):
                return lease
            left.append(bound)
        for balancer in (self._balancer, self._reserve):
            for endpoint in balancer.order(key):
                if endpoint not in tried:
                    if not (endpoint.guarded or self._guarded):
                        return Lease(self, endpoint)
                    lease = self._with_leave(endpoint, place)
                    if lease is not None:
                        return lease
                    left.append(endpoint)
        is_full = any(endpoint.max_requests is not None and endpoint.health.is_up for endpoint in left)
        if even_ejected and not any(endpoint.health.is_up for endpoint in self.endpoints):
            for endpoint in left:
                if lease := self._with_leave(endpoint, place, is_last_resort=True):
                    return lease
            is_full = bool(left)
        if is_full:
            raise Busy("", f"each endpoint of {self.name} that is ready has as many requests as it may have")
        raise NoEndpoint("", f"no endpoint of {self.name} is ready")

    async def wait(
        self,
        key: bytes,
        tried: Collection[Endpoint],
        bound: Endpoint | None,
        busy: Busy,
        within: float | None = None,
        even_ejected: bool = False,
    ) -> Lease:
        """A lease as soon as there is room for one. busy: why there was none. Raises what `lease` does, QueueFull and
        WaitedTooLong."""
        line = self._line
        if line is None:
            raise busy
        place = line.join(within)
        try:
            while True:
                await line.turn(place)
                try:
                    return self.lease(key, tried, bound, place, even_ejected)
                except Busy:
                    continue
        finally:
            line.leave(place)

    def has_other(self, tried: Collection[Endpoint]) -> bool:
        """Whether an endpoint that was not tried is ready."""
        return any(one.health.is_ready for one in self.endpoints if one not in tried)

    def load(self) -> int:
        """Requests in flight over all workers."""
        return sum(endpoint.load() for endpoint in self.endpoints)

    def _with_leave(self, endpoint: Endpoint, place: Place | None, is_last_resort: bool = False) -> Lease | None:
        """A lease where leave must be had first, over all workers; None when this endpoint gives none. Raises Busy and
        CircuitOpen when none of them would. is_last_resort: it needs not be the trial of who is not up."""
        circuit = self._circuit
        if circuit is not None and circuit.is_open:
            raise CircuitOpen("", f"the circuit of {self.name} is open")
        if self._line is not None and not self._line.is_first(place):
            raise Busy("", f"others wait for room in {self.name}")
        health = endpoint.health
        with self._truth.changing():
            if endpoint.max_requests is not None and endpoint.load() >= endpoint.max_requests:
                return None
            if self._max_requests is not None and self.load() >= self._max_requests:
                raise Busy("", f"{self.name} has as many requests as it may have")
            on_trial = health.condition is Condition.PROBATION
            if health.condition is Condition.EJECTED and not is_last_resort:
                return None
            if on_trial and not is_last_resort and not health.claims_trial(now_ms(), TRIAL):
                return None
            for_circuit = circuit is not None and not circuit.is_closed
            if circuit is not None and for_circuit and not circuit.claims_trial():
                if on_trial:
                    health.trial_over()
                raise CircuitOpen("", f"the circuit of {self.name} is half open")
            lease = Lease(self, endpoint, on_trial, for_circuit)
            lease.count()  # before anybody else may ask how many there are
        return lease

    # What leases report.

    def took(self, endpoint: Endpoint, seconds: float, failed: bool) -> None:
        """An exchange is over: policies that learn are told, and each of a failure."""
        balancer = self._reserve if endpoint in self._backups else self._balancer
        balancer.observe(endpoint, seconds, failed)

    def judged(self, endpoint: Endpoint, failed: bool, on_trial: bool, began: float) -> None:
        """An exchange is over, for those who reckon which part of them fails. on_trial: it was the circuit's trial.
        began: when it was leased."""
        if endpoint.ratio is not None and _ms(began) >= endpoint.health.since:
            endpoint.ratio.count(now_ms(), failed)
        if self._circuit is not None:
            self._circuit.judged(failed, on_trial, _ms(began))

    def succeeded(self, endpoint: Endpoint, began: float) -> None:
        self._observe(endpoint, Event.SUCCESS, "", began)

    def failed(self, endpoint: Endpoint, cause: str, began: float = inf) -> None:
        """began: when it was leased: what was under way when the endpoint's condition changed says nothing about it."""
        self._cells[endpoint.cells + UPSTREAM_FAILURES] += 1
        ratio, health = endpoint.ratio, endpoint.health
        if len(self.endpoints) == 1 and health.condition is Condition.UP:
            return  # of a single one, failures change nothing: there is no other to ask
        self._observe(endpoint, Event.FAILURE, cause, began)
        if ratio is not None and health.condition is Condition.UP and ratio.is_exceeded(now_ms(), health.since):
            total, bad = ratio.sums(now_ms(), health.since)
            self._observe(endpoint, Event.ENOUGH, f"{bad} of its last {total} requests failed")

    def undecided(self, endpoint: Endpoint, on_trial: bool, of_circuit: bool, began: float) -> None:
        """A trial ended without an outcome: the next exchange may be one."""
        if on_trial:
            with self._truth.changing():
                if _ms(began) >= endpoint.health.since:
                    endpoint.health.trial_over()
        if of_circuit and self._circuit is not None:
            self._circuit.undecided(_ms(began))

    def landed(self) -> None:
        """What was taken with leave has been given back: somebody may wait for it."""
        if self._line is not None:
            self._line.next()

    def _observe(self, endpoint: Endpoint, event: Event, cause: str, began: float = inf) -> None:
        truth, health = self._truth, endpoint.health
        with truth.changing():
            if began < inf and _ms(began) < health.since:
                return
            before = health.condition
            changes = health.observe(event, now_ms(), self._rules, self._can_spare(endpoint))
            if changes:
                truth.changed()
        if changes:
            tell(self.name, endpoint.name, before, health.condition, cause)

    def _can_spare(self, endpoint: Endpoint) -> bool:
        """Whether it may be ejected: never the last that may be asked without reserve (who is on probation is no
        spare), and not too large a part of the group. On probation it counts as out already."""
        others = [one for one in self.endpoints if one is not endpoint]
        if not any(one.health.is_up for one in others):
            return False
        if endpoint.health.condition is Condition.PROBATION:
            return True
        ejected = sum(one.health.condition is Condition.EJECTED for one in others)
        return ejected == 0 or (ejected + 1) / len(self.endpoints) <= self._rules.max_ejected

    # What the records say.

    def refresh(self) -> None:
        """Look at the records, and have the balancers know who is ready."""
        self._version = self._truth.version
        now = now_ms()
        circuit = self._circuit
        if circuit is not None:
            circuit.look()
        self._guarded = self._max_requests is not None or (circuit is not None and not circuit.is_closed)
        times = []
        if circuit is not None and circuit.is_open:
            times.append((circuit.health.until - now) / 1000)
        for endpoint in self.endpoints:
            health = endpoint.health
            condition = health.condition
            if condition is Condition.EJECTED and health.until <= now:
                self._observe(endpoint, Event.TIME_OVER, "its time is over")
                condition = health.condition
            endpoint.guarded = condition is not Condition.UP or endpoint.max_requests is not None
            endpoint.share = health.share(now, self._slow_start)
            if condition is Condition.EJECTED:
                times.append((health.until - now) / 1000)
            if endpoint.share < 1:
                times.append(_SLOWLY)
        ready = frozenset(endpoint for endpoint in self.endpoints if endpoint.health.is_ready)
        # When nobody is ready the balancers order who is ejected, for who asks even them.
        self._asked = ready or frozenset(endpoint for endpoint in self.endpoints if endpoint.health.is_resort)
        for balancer, is_backup in ((self._balancer, False), (self._reserve, True)):
            members = [endpoint for endpoint in self.endpoints if (endpoint in self._backups) is is_backup]
            asked = [endpoint for endpoint in members if endpoint in self._asked]
            weights = [endpoint.weight for endpoint in members]
            if self._built.get(is_backup) != (asked, members, weights):
                self._built[is_backup] = asked, members, weights
                balancer.rebuild(asked, members)
        self.counts = circuit is not None or any(endpoint.ratio is not None for endpoint in self.endpoints)
        if self.sticky is not None:
            self.sticky.know(self.endpoints)
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


def _ms(seconds: float) -> int:
    """In the unit of the records."""
    return int(seconds * 1000)


def tell(upstream: str, endpoint: str, before: Condition, after: Condition, cause: str) -> None:
    """The one line in the log about a change."""
    level = logging.INFO if after is Condition.UP else logging.WARNING
    because = f": {cause}" if cause else ""
    log.log(level, "%s: endpoint %s is %s, was %s%s", upstream, endpoint, _said(after), _said(before), because)


def _said(condition: Condition) -> str:
    return condition.name.lower()
