"""Whether there is room for one more client, and who goes if there is not.

Two bounds: a listener's own limit of connections, and the descriptors of the process. At either the connections that
have been idle for longest are closed first, as nginx does. When nobody is idle the listener's limit is an answer, 503;
but at the end of the descriptors there must be no accepting at all: what can't be accepted waits in the kernel's queue,
which is no loss, while a failing accept makes the event loop throw the waiting ones away.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from time import monotonic
from typing import TYPE_CHECKING, Any

from gateway.scoreboard import Cells, Fact

if TYPE_CHECKING:
    from gateway.listeners.http1 import Http1Connection

log = logging.getLogger("gateway")

# The part of the idle connections that one walk over all of them finds for the next closings.
_HARVEST = 0.05
# Seconds for which it is believed that nobody is idle, once a walk has found so.
_BARREN = 0.1
# Seconds between looks whether there is room again, and the part of the room that must be free by then.
_LOOK = 0.05
_FREE = 0.05


class Admission:
    """One for a worker. `pause` and `resume` stop and start the accepting; whoever accepts puts them there."""

    def __init__(self, cells: Cells, upstream_most: int) -> None:
        """upstream_most: connections to endpoints that the configuration allows a worker."""
        self._cells = cells
        self._upstream_most = upstream_most
        self._room: float = float("inf")
        self._stale: dict[Any, deque[tuple[float, Http1Connection]]] = {}
        self._barren_until = 0.0
        self.paused = False
        self.pause: Callable[[], None] = lambda: None
        self.resume: Callable[[], None] = lambda: None

    def limit(self, descriptors: int) -> None:
        """How many descriptors there are for connections, of clients and to endpoints together."""
        self._room = max(2, descriptors)

    def admits(self, connection: Http1Connection, connections: Collection[Any]) -> bool:
        """Whether this connection, new among all of the worker's, may stay."""
        entry = connection.entry
        if len(entry.connections) > entry.max_connections and not self._make_room(connection):
            return False
        if self._needed(len(connections)) >= self._room and not self._make_room(connection) and not self.paused:
            self.paused = True
            log.warning(
                "listener %s: no descriptors for more than %d connections; accepting again when some have ended",
                entry.name,
                len(connections),
            )
            self.pause()
            entry.loop.call_later(_LOOK, self._look, entry.loop, connections)
        return True

    def _needed(self, clients: int) -> int:
        """Descriptors for so many clients: each may need a connection to an endpoint, as far as the pools go."""
        return clients + max(self._cells[Fact.UPSTREAM_OPEN], min(clients, self._upstream_most))

    def _look(self, loop: Any, connections: Collection[Any]) -> None:
        if self._needed(len(connections)) < self._room * (1 - _FREE):
            self.paused = False
            log.warning("accepting connections again")
            self.resume()
        else:
            loop.call_later(_LOOK, self._look, loop, connections)

    def _make_room(self, newcomer: Http1Connection) -> bool:
        """Close the connection of this listener that has been idle for longest."""
        stale = self._stale.setdefault(newcomer.entry, deque())
        while True:
            while stale:
                since, connection = stale.popleft()
                if connection.idle_since == since and connection.close_if_idle():
                    return True
            now = monotonic()
            if now < self._barren_until:
                return False
            idle = [
                (one.idle_since, id(one), one)
                for one in newcomer.entry.connections
                if one.idle and not one.closed and one is not newcomer
            ]
            if not idle:
                self._barren_until = now + _BARREN
                return False
            idle.sort()
            stale.extend((since, one) for since, _, one in idle[: max(1, int(len(idle) * _HARVEST))])
