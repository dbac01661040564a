"""From what the configuration says of an upstream to the objects that serve it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from random import Random
from time import monotonic

from gateway.config import upstreams as configured
from gateway.metrics.plan import GROUP_WAITING, Plan
from gateway.scoreboard import Cells
from gateway.truth import Truth
from gateway.upstream.balancers import BALANCERS
from gateway.upstream.circuit import Circuit
from gateway.upstream.endpoint import Endpoint, placed
from gateway.upstream.health import Health, rules_of
from gateway.upstream.line import Line
from gateway.upstream.members import Members
from gateway.upstream.pool import Pool
from gateway.upstream.ratio import Ratio
from gateway.upstream.sticky import Sticky
from gateway.upstream.upstream import Upstream
from gateway.wheel import Wheel


class Builder:
    """What all upstreams of a worker are built with. cells: the worker's own. offset: 0 <= offset < 1, its place among
    its siblings; balancers start there."""

    def __init__(self, plan: Plan, truth: Truth, cells: Cells, wheel: Wheel, offset: float) -> None:
        self._plan = plan
        self._truth = truth
        self._cells = cells
        self._wheel = wheel
        self._offset = offset

    def upstream(
        self, name: str, config: configured.Upstream, listed: Iterable[configured.Endpoint]
    ) -> tuple[Upstream, Members]:
        """An upstream and those who belong to it, from those whom the configuration lists or discovery has found."""
        members = Members(partial(self._endpoint, name, config))
        endpoints, backups = members.take(listed)
        make = BALANCERS[config.balance]
        chance = Random()
        upstream = Upstream(
            name,
            endpoints,
            backups,
            (make(self._offset, chance, monotonic), make(self._offset, chance, monotonic)),
            self._truth,
            rules_of(config.outlier),
            config.slow_start or 0.0,
            self._wheel,
            self._cells,
            max_requests=config.max_requests,
            line=self._line(name, config.queue) if config.queue is not None else None,
            circuit=self._circuit(name, config.breaker) if config.breaker is not None else None,
            sticky=Sticky(name, config.sticky) if config.sticky is not None else None,
        )
        return upstream, members

    def _endpoint(self, name: str, config: configured.Upstream, one: configured.Endpoint) -> Endpoint:
        endpoint = placed(name, config, one, self._plan, self._truth, self._cells)
        endpoint.pool = Pool(
            endpoint, config.pool, config.timeouts, self._wheel, self._cells, config.source_addresses
        )
        return endpoint

    def _line(self, name: str, config: configured.Queue) -> Line:
        waiting, line = self._plan.block("group", name) + GROUP_WAITING, self._plan.block("line", name)
        return Line(name, config, self._truth, self._wheel, self._cells, waiting, line)

    def _circuit(self, name: str, config: configured.Breaker) -> Circuit:
        ratio = Ratio(
            self._cells,
            self._plan.block("window", name, ""),
            self._truth.workers,
            most=config.failure_ratio,
            least=config.min_requests,
            window=config.window,
        )
        return Circuit(name, config, Health(self._truth.record(self._plan.block("circuit", name))), ratio, self._truth)
