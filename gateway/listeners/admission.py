"""Whether there is room for one more client, and who goes if there is not.

Two bounds: a listener's own limit of connections, and the descriptors of the process. At either the connections that
have been idle for longest are closed first, as nginx does. When nobody is idle the listener's limit is an answer, 503;
but at the end of the descriptors there must be no accepting at all: what can't be accepted waits in the kernel's queue,
which is no loss, while a failing accept makes the event loop throw the waiting ones away.

Sessions of datagrams cost nobody a handshake, so anybody can have any number of them: they get a part of the room, and
the rest is always for connections.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from time import monotonic
from typing import TYPE_CHECKING, Any

from gateway.scoreboard import Cells, Fact

if TYPE_CHECKING:
    from gateway.listeners.listener import Connection

log = logging.getLogger("gateway")

# When a walk has found nobody, the next one waits for this many times as long as it took: whoever hammers at a full
# listener makes us look for a twentieth of our time and no more.
_BARREN = 20
# Seconds between looks whether there is room again, and the part of the room that must be free by then.
_LOOK = 0.05
_FREE = 0.05
# The part of the room that sessions of datagrams may take, all listeners together.
_SESSIONS = 0.5


class Admission:
    """One for a worker. `pause` and `resume` stop and start the accepting; whoever accepts puts them there."""

    def __init__(self, cells: Cells, upstream_most: int) -> None:
        """upstream_most: connections to endpoints that the configuration allows a worker."""
        self._cells = cells
        self._upstream_most = upstream_most
        self._room: float = float("inf")
        self._connections: Collection[Any] = ()
        self._sharing = 0  # listeners of datagrams
        self._sessions = 0  # of theirs; each is among the open ones to endpoints, too
        self._more = 0  # descriptors that clients have beside their connection and one to where it goes
        self._stale: dict[Any, deque[tuple[float, Connection]]] = {}
        self._barren_until = 0.0
        self._told = False  # that there are none left
        self.paused = False
        self.pause: Callable[[], None] = lambda: None
        self.resume: Callable[[], None] = lambda: None

    def limit(self, descriptors: int, connections: Collection[Any]) -> None:
        """How many descriptors there are for connections, of clients and to endpoints together. connections: all of the
        worker's clients, now and later."""
        self._room = max(2, descriptors)
        self._connections = connections

    def admits(self, connection: Connection, connections: Collection[Any]) -> bool:
        """Whether this connection, new among all of the worker's, may stay."""
        entry = connection.entry
        if len(entry.connections) > entry.max_connections:
            if not self._make_room(connection, entry.connections, entry):
                return False
        elif self._needed(len(connections)) >= self._room and not self.paused:
            if self._make_room(connection, connections, None):
                return True
            self.paused = True
            if not self._told:
                self._told = True
                log.warning(
                    "listener %s: no descriptors for more than %d connections; others wait until some have ended",
                    entry.name,
                    len(connections),
                )
            self.pause()
            entry.loop.call_later(_LOOK, self._look, entry.loop, connections)
        return True

    # What is no connection.

    def share(self) -> None:
        """There is one more listener of datagrams: each has the same part of what they may take."""
        self._sharing += 1

    def has_room(self, sessions: int) -> bool:
        """Whether a listener of datagrams that has so many sessions may have one more. If it may not because clients
        have the room, one that is idle is closed, and there is room soon."""
        if sessions * self._sharing >= self._room * _SESSIONS:
            return False
        if self._needed(len(self._connections)) < self._room:
            return True
        self._make_room(None, self._connections, None)
        return False

    def session(self, change: int) -> None:
        """So many sessions more, or fewer."""
        self._sessions += change

    def takes_more(self) -> bool:
        """Whether a client may have one more descriptor; to be given back."""
        if self._needed(len(self._connections)) >= self._room:
            return False
        self._more += 1
        return True

    def give_back(self, count: int) -> None:
        self._more -= count

    def _needed(self, clients: int) -> int:
        """Descriptors for so many clients: each may need a connection to an endpoint, as far as the pools go."""
        may_need = min(clients, self._upstream_most)
        return clients + self._more + max(self._cells[Fact.UPSTREAM_OPEN], self._sessions + may_need)

    def _look(self, loop: Any, connections: Collection[Any]) -> None:
        """Accept again when there is room, or somebody who can make it."""
        has_room = self._needed(len(connections)) < self._room * (1 - _FREE)
        if has_room and self._told:
            self._told = False
            log.warning("there are descriptors again for more than %d connections", len(connections))
        if has_room or any(one.idle for one in connections):
            self.paused = False
            self.resume()
        else:
            loop.call_later(_LOOK, self._look, loop, connections)

    def _make_room(self, newcomer: Connection | None, among: Collection[Any], whose: Any) -> bool:
        """Close the connection that has been idle for longest among these. whose: by what they are remembered.

        All that are idle are walked once, and closed one by one as room is needed: who becomes idle later is younger.
        """
        stale = self._stale.setdefault(whose, deque())
        if self._closes_one(stale):
            return True
        now = monotonic()
        if now < self._barren_until:
            return False
        idle = [(one.idle_since, id(one), one) for one in among if one.idle and not one.closed and one is not newcomer]
        idle.sort()
        stale.extend((since, one) for since, _, one in idle)
        if self._closes_one(stale):
            return True
        self._barren_until = now + _BARREN * (monotonic() - now)
        return False

    def _closes_one(self, stale: deque[tuple[float, Connection]]) -> bool:
        """Close the first of these that is still idle, and has no request on the way."""
        while stale:
            since, connection = stale.popleft()
            if connection.idle_since == since and connection.close_if_idle():
                return True
        return False
