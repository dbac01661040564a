"""Datagrams that the kernel dropped because those before them had not been read."""

from __future__ import annotations

import socket
import struct

from gateway.ledger import TAG, Ledger

# Linux 4.12.
_SO_MEMINFO = 55
_SO_COOKIE = 57  # a number that no other socket has
_DROPS = struct.Struct("=32xI")  # SK_MEMINFO_DROPS, behind eight others of four bytes
_SIZE = 36
# What a choice can be but for 0, which is none.
_ALL = (1 << TAG) - 1
_FOR_GOOD = 10 * 365 * 86_400 * 1_000_000_000


class Overflow:
    """Those of one socket, as one of its workers counts them. The socket outlives its workers, and may have several:
    what was counted already stands in the ledger, so that each is counted once, also what came while nobody was there.
    """

    __slots__ = ("_key", "_ledger", "_seen", "_sock")

    def __init__(self, sock: socket.socket, ledger: Ledger) -> None:
        self._sock = sock
        self._ledger = ledger
        self._seen = 0
        self._key = b"overflow\0" + _asked(sock, _SO_COOKIE, 8)

    def count(self) -> int:
        """How many that nobody has counted."""
        told = _asked(self._sock, _SO_MEMINFO, _SIZE)
        if len(told) < _SIZE:
            return 0
        [total] = _DROPS.unpack(told)
        if total == self._seen:
            return 0
        self._seen = total
        before = self._ledger.chosen(self._key)
        self._ledger.choose(self._key, total % _ALL + 1, _FOR_GOOD)
        return int((total - max(0, before - 1)) % _ALL)


def _asked(sock: socket.socket, option: int, size: int) -> bytes:
    """b"" when the kernel does not know."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, option, size)
    except OSError:
        return b""
