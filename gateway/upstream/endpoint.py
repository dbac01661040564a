"""One endpoint of an upstream: where it is, how it fares, and its pool."""

from __future__ import annotations

from gateway.config import upstreams as configured
from gateway.config.values import Origin
from gateway.metrics.plan import Plan
from gateway.scoreboard import Cells
from gateway.truth import Truth
from gateway.upstream.health import Health
from gateway.upstream.latency import Latency
from gateway.upstream.ratio import Ratio
from gateway.upstream.remote import Remote


class Endpoint(Remote):
    """Identity by object. Its pool is this worker's own, its health everybody's."""

    __slots__ = (
        "_flight", "_own", "_truth", "base", "guarded", "health", "host", "is_elsewhere", "is_old", "latency",
        "max_requests", "ratio", "share", "weight",
    )  # fmt: skip

    def __init__(
        self,
        upstream: str,
        origin: Origin,
        host: str,
        weight: int,
        cells: int,
        flight: int,
        own: Cells,
        health: Health,
        truth: Truth,
        max_requests: int | None = None,
        ratio: Ratio | None = None,
    ) -> None:
        """host: as in the configuration, "preserve", "endpoint" or a literal. cells, flight: where its series start, on
        this worker's own seat."""
        super().__init__(upstream, str(origin), origin.peer, origin.authority.encode(), cells)
        self.base = origin.base.encode()
        # The Host it gets; b"" for what the client said.
        self.host = b"" if host == "preserve" else self.authority if host == "endpoint" else host.encode()
        # Whether its responses may speak of places that clients know under another name.
        self.is_elsewhere = bool(self.base or self.host)
        self.is_old = False  # it has answered in HTTP/1.0
        self.weight = weight
        self._flight = flight
        self._own = own
        self._truth = truth
        self.health = health
        self.latency = Latency(health.record)
        self.max_requests = max_requests
        self.ratio = ratio  # of its exchanges that fail, where that is reckoned
        self.share = 1.0  # of its weight, while it starts slowly
        self.guarded = False  # asked only with leave: it is on probation, or there is a limit to its load

    def take_off(self) -> None:
        """One more request of this worker is in flight."""
        self._own[self._flight] += 1

    def land(self) -> None:
        self._own[self._flight] -= 1

    @property
    def in_flight(self) -> int:
        """Requests of this worker."""
        return int(self._own[self._flight])

    def load(self) -> int:
        """Requests in flight over all workers."""
        return self._truth.over_all_workers(self._flight)

    def __repr__(self) -> str:
        return f"<Endpoint {self.upstream} {self.name} {self.health.condition.name} {self.in_flight} in flight>"


def placed(
    name: str, upstream: configured.Upstream, one: configured.Endpoint, plan: Plan, truth: Truth, own: Cells
) -> Endpoint:
    """An endpoint of the configuration, its series and its record where the plan has them. own: this process' seat."""
    labels = (name, str(one.address))
    outlier = upstream.outlier
    ratio = None
    if outlier.failure_ratio is not None:
        ratio = Ratio(
            own,
            plan.block("window", *labels),
            truth.workers,
            most=outlier.failure_ratio,
            least=outlier.min_requests,
            window=outlier.window,
        )
    return Endpoint(
        name,
        one.address,
        upstream.host,
        one.weight,
        cells=plan.block("upstream", *labels),
        flight=plan.block("flight", *labels),
        own=own,
        health=Health(truth.record(plan.block("endpoint", *labels))),
        truth=truth,
        max_requests=one.max_requests,
        ratio=ratio,
    )
