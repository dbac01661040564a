"""A bound for the idle connections of several pools together."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.upstream.http1 import Connection


class Idle:
    """So many; for one more the one that is idle for longest is closed."""

    __slots__ = ("_connections", "_most")

    def __init__(self, most: int) -> None:
        self._connections: OrderedDict[Connection, None] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Connection) -> None:
        connections = self._connections
        connections[connection] = None
        if len(connections) > self._most:
            connections.popitem(last=False)[0].close()

    def discard(self, connection: Connection) -> None:
        """It is in use again, or has ended; nothing happens when it is none of these."""
        self._connections.pop(connection, None)
