"""Where connections lead: an address, and the pool of those there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.values import TcpAddress, UnixAddress

if TYPE_CHECKING:
    from gateway.upstream.pool import Pool


class Remote:
    """All that dialling, a pool and a connection ask of the other side. An endpoint of an upstream is one, and so is
    any server that is asked beside the data path (`clients.py`)."""

    __slots__ = ("address", "authority", "cells", "name", "pool", "upstream")

    def __init__(
        self, upstream: str, name: str, address: TcpAddress | UnixAddress, authority: bytes, cells: int
    ) -> None:
        """upstream: what people call the group it belongs to. name: what errors and logs call it. authority: as in
        Host. cells: where its series start."""
        self.upstream = upstream
        self.name = name
        self.address = address
        self.authority = authority
        self.cells = cells
        self.pool: Pool

    def __repr__(self) -> str:
        return f"<Remote {self.upstream} {self.name}>"
