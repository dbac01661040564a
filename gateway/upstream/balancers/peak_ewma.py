"""Latency-aware: the power of two choices over cost = latency * (load + 1) / weight (SEMANTICS 4).

The latency is a peak-sensitive moving average (finagle's, tower's): a sample above the estimate becomes the estimate at
once, a lower one draws it down with the time since the last, exp(-t / decay). While nothing is heard the estimate falls
too, so that who was slow is tried again. It stands in the endpoint's record: all workers add to it and go by it, and a
reload forgets nothing.

* A sample is the time until the response began; what comes after may be a download or a tunnel. None counts for more
  than ten times the default, so that nobody is shunned for minutes because of one.
* Failures are slow samples, or an endpoint that fails fast would draw the traffic: at least the default, and twice the
  estimate the next time.
* Who is cold, that is without a sample, costs nothing while it is idle and the default once it has something to do: one
  request at a time is tried on it. The same for an estimate older than the decay: it says little, so it may not draw a
  burst however low it has fallen.
* Who comes back on probation is cold (health.py): how it failed is no longer so.
"""

from __future__ import annotations

from math import exp

from gateway.upstream.balancers.balancer import Chance, Clock
from gateway.upstream.balancers.power_of_two import PowerOfTwo
from gateway.upstream.endpoint import Endpoint

# Samples and failures raise an estimate to this many times the default, so that who is back is not shunned for minutes.
_WORST = 10.0


class PeakEWMA(PowerOfTwo):
    learns = True

    def __init__(self, offset: float, chance: Chance, now: Clock, *, decay: float = 10.0, default: float = 1.0) -> None:
        """decay: seconds in which what was seen loses its weight. default: the latency of who is cold and has something
        to do, and of a failure. Those of linkerd and of tower."""
        super().__init__(offset, chance, now)
        self._now = now
        self._decay = decay
        self._default = default

    def cost(self, endpoint: Endpoint) -> float:
        latency = endpoint.latency.cells  # not by `read`: this is the costly part of a pick
        load = endpoint.load()
        at = latency[1]
        now = self._now()
        seconds = latency[0] * exp((at - now) / self._decay)
        if load and seconds < self._default and (now - at >= self._decay or not at):
            seconds = self._default
        return seconds * (load + 1) / (endpoint.weight * endpoint.share)

    def observe(self, endpoint: Endpoint, seconds: float, failed: bool) -> None:
        now = self._now()
        old, at = endpoint.latency.read()
        worst = _WORST * self._default
        seconds = min(seconds, worst)
        if failed:
            seconds = max(seconds, self._default, min(2.0 * old, worst))
        if seconds < old:
            kept = exp((at - now) / self._decay)
            seconds = old * kept + seconds * (1.0 - kept)
        endpoint.latency.write(seconds, now)
