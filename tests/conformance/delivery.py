"""How bytes are cut on their way: whole, one by one, or in odd places, and each piece read before the next is sent.

The kernel is asked (sock_diag) what the other side of a connection has left unread, so no piece needs a pause to be a
read of its own, and none is merged with the next because a machine is busy.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from time import monotonic

Address = tuple[str, int]

# Of a long message only the ends go byte by byte; the middle is the same byte over and over.
_BEGINNING = 600
_ENDING = 100
_PIECE = 16 * 1024
# Seconds for a piece to be read. Longer means that nobody wants to read: a proxy that has its own reasons to wait.
_UNREAD = 0.05


class Delivery:
    """A way of cutting. The same name cuts the same bytes of the same case in the same places."""

    def __init__(self, name: str) -> None:
        self.name = name

    def pieces(self, data: bytes, seed: str) -> list[bytes]:
        if self.name == "whole" or len(data) < 2:
            return [data]
        return at_cuts(data, self._cuts(data, random.Random(f"{self.name} {seed}")))

    def _cuts(self, data: bytes, chance: random.Random) -> list[int]:
        size = len(data)
        if self.name == "bytes":
            if size <= _BEGINNING + _ENDING:
                return list(range(1, size))
            middle = range(_BEGINNING, size - _ENDING, _PIECE)
            return [*range(1, _BEGINNING), *middle, *range(size - _ENDING, size)]
        # Within line ends, before them, behind them; and anywhere.
        lines = [at for at in range(1, size) if data[at - 1 : at] == b"\r" or data[at : at + 1] == b"\r"]
        lines += [at for at in range(1, size) if data[at - 1 : at] == b"\n"]
        cuts = set(chance.sample(lines, min(len(lines), chance.randint(1, 4))))
        cuts.update(chance.randint(1, size - 1) for _ in range(chance.randint(1, 5)))
        return sorted(cuts)

    def __repr__(self) -> str:
        return self.name


def at_cuts(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


WHOLE = Delivery("whole")
DELIVERIES = (WHOLE, Delivery("bytes"), Delivery("odd-1"), Delivery("odd-2"), Delivery("odd-3"))


class Unread:
    """What the other sides of our connections have not read yet."""

    def __init__(self) -> None:
        self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 4)

    def close(self) -> None:
        self._kernel.close()

    def bytes_of(self, owner: Address, other: Address) -> int:
        """For the socket at `owner` that is connected to `other`; 0 when there is none."""
        # struct inet_diag_req_v2 behind a struct nlmsghdr: IPv4, TCP, any state, exactly this pair of addresses.
        ports = struct.pack("!HH", owner[1], other[1])
        addresses = socket.inet_aton(owner[0]) + bytes(12) + socket.inet_aton(other[0]) + bytes(12)
        body = b"\x02\x06\0\0\xff\xff\xff\xff" + ports + addresses + bytes(4) + b"\xff" * 8
        self._kernel.send(struct.pack("=IHHII", 16 + len(body), 20, 1, 0, 0) + body)
        answer = self._kernel.recv(4096)  # the kernel answers before `send` returns
        if struct.unpack_from("=H", answer, 4)[0] != 20:
            return 0
        unread: int = struct.unpack_from("=I", answer, 16 + 56)[0]
        return unread

    async def read(self, owner: Address, other: Address) -> bool:
        """Returns once nothing is left unread there; False when that takes too long."""
        until = monotonic() + _UNREAD
        while self.bytes_of(owner, other):
            if monotonic() > until:
                return False
            os.sched_yield()  # to the proxy, where there are more processes than CPUs
            await asyncio.sleep(0)
        return True
