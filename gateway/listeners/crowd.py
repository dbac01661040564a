"""How many connections one client has open at a listener, over all workers: `max_connections_per_client`."""

from __future__ import annotations

from gateway.ledger import Ledger
from gateway.ranges import UNIX, network

# The bits of an IPv6 address that tell clients apart: a site gets a /64 at least (RFC 6177).
_PREFIX = 64


class Crowd:
    """One for each listener that has such a limit. The kernel drops what a worker that was killed has held."""

    __slots__ = ("_holds", "_most", "_name")

    def __init__(self, ledger: Ledger, listener: str, most: int) -> None:
        self._holds = ledger.holds
        self._name = b"connections\0" + listener.encode() + b"\0"
        self._most = most

    def enter(self, address: str) -> bytes | None:
        """One connection more of this client; what to give to `leave`. None: it has as many as it may. Who comes by a
        unix socket is nobody in particular, and is not counted: b""."""
        if address == UNIX:
            return b""
        key = self._name + network(address, _PREFIX)
        return key if self._holds.take(key, self._most) else None

    def leave(self, key: bytes) -> None:
        if key:
            self._holds.release(key)
