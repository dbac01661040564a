"""What tests of balancing policies need: endpoints whose load is said, a clock that stands, and chance that repeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from random import Random

from gateway.config.values import Origin, TcpAddress
from gateway.upstream.balancers import BALANCERS
from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.endpoint import Endpoint
from tests.upstream.parts import blank


class Asked(Endpoint):
    """An endpoint with so many requests in flight over all workers."""

    __slots__ = ("asked", "requests")

    def __init__(self, number: int, weight: int = 1) -> None:
        origin = Origin(TcpAddress(f"10.0.{number >> 8}.{number & 255}", 9000))
        super().__init__("app", origin, "preserve", weight, **blank())
        self.requests = 0
        self.asked = 0  # how often for its load

    def load(self) -> int:
        self.asked += 1
        return self.requests


def endpoints(*weights: int) -> list[Asked]:
    return [Asked(number, weight) for number, weight in enumerate(weights)]


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(policy: str, offset: float = 0.0, seed: int = 1) -> Balancer:
    return BALANCERS[policy](offset, Random(seed), Time())


def first(balancer: Balancer, key: bytes = b"") -> Asked:
    endpoint = next(balancer.order(key))
    assert isinstance(endpoint, Asked)
    return endpoint


def everybody(balancer: Balancer, key: bytes) -> list[Asked]:
    return [endpoint for endpoint in balancer.order(key) if isinstance(endpoint, Asked)]


def keys() -> Iterator[bytes]:
    return (b"key-%d" % number for number in count())


def shares(balancer: Balancer, turns: int) -> dict[Endpoint, float]:
    """Who was first how often, of so many picks."""
    picked = Counter(first(balancer) for _ in range(turns))
    return {endpoint: times / turns for endpoint, times in picked.items()}
