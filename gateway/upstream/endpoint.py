"""One endpoint of an upstream: where it is, how it fares, and its pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.values import Origin
from gateway.upstream.health import Health

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool


class Endpoint:
    """Identity by object. `in_flight` and `health` are this worker's own."""

    __slots__ = (
        "address", "authority", "base", "cells", "health", "host", "in_flight", "is_old", "name", "pool", "upstream",
        "weight",
    )  # fmt: skip

    def __init__(self, upstream: str, origin: Origin, host: str, weight: int, cells: int) -> None:
        """host: as in the configuration, "preserve", "endpoint" or a literal."""
        self.upstream = upstream
        self.address = origin.peer
        self.base = origin.base.encode()
        self.authority = origin.authority.encode()
        # The Host it gets; b"" for what the client said.
        self.host = b"" if host == "preserve" else self.authority if host == "endpoint" else host.encode()
        self.is_old = False  # it has answered in HTTP/1.0
        self.name = str(origin)
        self.weight = weight
        self.cells = cells  # the first of its metric cells
        self.health = Health()
        self.in_flight = 0
        self.pool: Pool

    def __repr__(self) -> str:
        return f"<Endpoint {self.upstream} {self.name} {self.health.condition.name} {self.in_flight} in flight>"
