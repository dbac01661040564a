"""The balancing policies. One file each, one line each in the table; the other files are what several of them share.

They know endpoints: weights, shares, loads. They never ask who is healthy, never see a request, and neither clock nor
chance is their own.
"""

from __future__ import annotations

from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.balancers.consistent_hash import ConsistentHash
from gateway.upstream.balancers.least_requests import LeastRequests
from gateway.upstream.balancers.peak_ewma import PeakEWMA
from gateway.upstream.balancers.power_of_two import PowerOfTwo
from gateway.upstream.balancers.round_robin import RoundRobin
from gateway.upstream.balancers.weighted_lvs import WeightedLVS
from gateway.upstream.balancers.weighted_random import WeightedRandom

BALANCERS: dict[str, type[Balancer]] = {
    "round_robin": RoundRobin,
    "weighted_lvs": WeightedLVS,
    "random": WeightedRandom,
    "least_requests": LeastRequests,
    "power_of_two": PowerOfTwo,
    "peak_ewma": PeakEWMA,
    "consistent_hash": ConsistentHash,
}
