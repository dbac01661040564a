"""The contract of a balancing policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from gateway.upstream.endpoint import Endpoint


class Balancer(ABC):
    """Orders ready endpoints. It never asks about health and never extracts keys."""

    def __init__(self, offset: float = 0.0) -> None:
        """offset: 0 <= offset < 1, where in its cycle this worker starts, so that workers don't march in step."""
        self.offset = offset

    @abstractmethod
    def rebuild(self, ready: Sequence[Endpoint]) -> None:
        """Membership, a weight or readiness changed; `ready` may be empty."""

    @abstractmethod
    def order(self, key: bytes) -> Iterator[Endpoint]:
        """Every ready endpoint once, best first. key: what the route hashes by, b"" for nothing."""
