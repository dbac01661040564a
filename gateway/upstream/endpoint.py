"""One endpoint of an upstream: where it is, how it fares, and its pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.values import TcpAddress, UnixAddress
from gateway.upstream.health import Health

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool


class Endpoint:
    """Identity by object. `in_flight` and `health` are this worker's own."""

    __slots__ = ("address", "cells", "health", "in_flight", "name", "pool", "upstream", "weight")

    def __init__(self, upstream: str, address: TcpAddress | UnixAddress, weight: int, cells: int) -> None:
        self.upstream = upstream
        self.address = address
        self.name = str(address)
        self.weight = weight
        self.cells = cells  # the first of its metric cells
        self.health = Health()
        self.in_flight = 0
        self.pool: Pool

    def __repr__(self) -> str:
        return f"<Endpoint {self.upstream} {self.name} {self.health.condition.name} {self.in_flight} in flight>"
