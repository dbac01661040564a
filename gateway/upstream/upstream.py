"""A group of endpoints that answer for each other, and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from time import monotonic

from gateway.errors import NoEndpoint, UpstreamError
from gateway.metrics.plan import UPSTREAM_FAILURES
from gateway.scoreboard import Cells
from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.health import Condition, Event
from gateway.upstream.lease import Lease
from gateway.wheel import Wheel

log = logging.getLogger("gateway.upstream")


class _Return:
    """The moment an endpoint may be asked again, on the wheel."""

    __slots__ = ("_upstream", "deadline", "endpoint", "look")

    def __init__(self, upstream: Upstream, endpoint: Endpoint) -> None:
        self._upstream = upstream
        self.endpoint = endpoint
        self.deadline = 0.0
        self.look = 0

    def overdue(self) -> None:
        self._upstream.observe(self.endpoint, Event.TIME_OVER)


class Upstream:
    def __init__(
        self, name: str, endpoints: Sequence[Endpoint], balancer: Balancer, wheel: Wheel, cells: Cells
    ) -> None:
        self.name = name
        self.endpoints = list(endpoints)
        self._balancer = balancer
        self._wheel = wheel
        self._cells = cells
        self._returns = {endpoint: _Return(self, endpoint) for endpoint in endpoints}
        balancer.rebuild(self.endpoints)

    def lease(self, key: bytes, tried: Collection[Endpoint]) -> Lease:
        """The best ready endpoint that was not tried yet. Raises NoEndpoint."""
        for endpoint in self._balancer.order(key):
            if endpoint not in tried:
                return Lease(self, endpoint)
        if not tried:
            # Nobody is left. This request fails, but the next one asks them all again: a whole upstream that comes
            # back must not stay shut out for the rest of its time (nginx does the same).
            for endpoint in self.endpoints:
                self.observe(endpoint, Event.FORGIVEN)
        raise NoEndpoint("", f"no endpoint of {self.name} is ready")

    def succeeded(self, endpoint: Endpoint) -> None:
        self.observe(endpoint, Event.SUCCESS)

    def failed(self, endpoint: Endpoint, error: UpstreamError) -> None:
        self._cells[endpoint.cells + UPSTREAM_FAILURES] += 1
        if len(self.endpoints) > 1:  # of a single one, failures change nothing: there is no other to ask
            self.observe(endpoint, Event.FAILURE, error)

    def observe(self, endpoint: Endpoint, event: Event, error: UpstreamError | None = None) -> None:
        now = monotonic()
        health = endpoint.health
        flipped = health.observe(event, now)
        if health.condition is Condition.FAILED and event is Event.FAILURE:
            self._wheel.arm(self._returns[endpoint], health.until)
        if flipped:
            log.warning("%s: endpoint %s is %s%s", self.name, endpoint.name, health.condition.value, _because(error))
            self._balancer.rebuild([endpoint for endpoint in self.endpoints if endpoint.health.is_ready])

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.pool.close()

    def __repr__(self) -> str:
        ready = sum(endpoint.health.is_ready for endpoint in self.endpoints)
        return f"<Upstream {self.name} {ready} of {len(self.endpoints)} ready>"


def _because(error: UpstreamError | None) -> str:
    return f": {error}" if error is not None else ""
