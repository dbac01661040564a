"""Latency-aware: the power of two choices over cost = latency * (load + 1) / weight (SEMANTICS 4).

The latency is a peak-sensitive moving average (finagle's, tower's): a sample above the estimate becomes the estimate at
once, a lower one draws it down with the time since the last, exp(-t / decay). While nothing is heard the estimate falls
too, so that who was slow is tried again.

* Failures are slow samples, or an endpoint that fails fast would draw the traffic: at least the default, and twice the
  estimate the next time.
* Who is cold, that is without a sample, costs nothing while it is idle and the default once it has something to do: one
  request at a time is tried on it. The same for an estimate older than the decay: it says little, so it may not draw a
  burst however low it has fallen.
* Who went away with a failure comes back cold: that it fails is no longer so.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf

from gateway.upstream.balancers.balancer import Chance, Clock
from gateway.upstream.balancers.power_of_two import PowerOfTwo
from gateway.upstream.endpoint import Endpoint

# Failures raise an estimate to this many times the default, so that who is back is not shunned for minutes.
_WORST = 10.0


class Estimate:
    """Of one endpoint's latency, in seconds."""

    __slots__ = ("at", "failed", "latency")

    def __init__(self) -> None:
        self.latency = 0.0
        self.at = -inf  # when the last sample came; long ago for who is cold
        self.failed = False  # the last sample was a failure

    def __repr__(self) -> str:
        return "<Estimate cold>" if self.at == -inf else f"<Estimate {self.latency * 1000:g} ms>"


class PeakEWMA(PowerOfTwo):
    learns = True

    def __init__(self, offset: float, chance: Chance, now: Clock, *, decay: float = 10.0, default: float = 1.0) -> None:
        """decay: seconds in which what was seen loses its weight. default: the latency of who is cold and has something
        to do, and of a failure. Those of linkerd and of tower."""
        super().__init__(offset, chance, now)
        self._now = now
        self._decay = decay
        self._default = default
        self._estimates: dict[Endpoint, Estimate] = {}

    def rebuild(self, ready: Sequence[Endpoint], members: Sequence[Endpoint] | None = None) -> None:
        before = set(self._draw.ready)
        super().rebuild(ready, members)
        known = self._estimates
        self._estimates = {one: known.get(one) or Estimate() for one in (ready if members is None else members)}
        for endpoint in ready:
            if endpoint not in before and self._estimates[endpoint].failed:
                self._estimates[endpoint] = Estimate()

    def cost(self, endpoint: Endpoint) -> float:
        estimate = self._estimates[endpoint]
        load = endpoint.load()
        age = self._now() - estimate.at
        latency = estimate.latency * exp(-age / self._decay)
        if load and age >= self._decay and latency < self._default:
            latency = self._default
        return latency * (load + 1) / (endpoint.weight * endpoint.share)

    def observe(self, endpoint: Endpoint, seconds: float, failed: bool) -> None:
        estimate = self._estimates.get(endpoint)
        if estimate is None:
            return  # it has left
        now = self._now()
        old = estimate.latency
        if failed:
            seconds = max(seconds, self._default, min(2.0 * old, _WORST * self._default))
        if seconds > old:
            estimate.latency = seconds
        else:
            kept = exp((estimate.at - now) / self._decay)
            estimate.latency = old * kept + seconds * (1.0 - kept)
        estimate.at = now
        estimate.failed = failed
