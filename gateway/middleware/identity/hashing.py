"""How many passwords a process hashes at the same time: layers share that, or more of them would take more CPUs, and
all the threads that others need too."""

from __future__ import annotations

import asyncio

from gateway.middleware.identity.passwords import Hash


class Hashing:
    """At most as many at the same time as the layer may check that may check most."""

    def __init__(self) -> None:
        self._most = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # whose turns these are
        self._turns: asyncio.Semaphore | None = None

    def allow(self, count: int) -> None:
        """A layer may check so many at the same time."""
        if count > self._most:
            self._most = count
            self._turns = None

    async def matches(self, hashed: Hash, password: bytes) -> bool:
        """In a thread, when it is this one's turn."""
        loop = asyncio.get_running_loop()
        if self._turns is None or loop is not self._loop:
            self._turns, self._loop = asyncio.Semaphore(self._most), loop
        async with self._turns:
            return await asyncio.to_thread(hashed.matches, password)


HASHING = Hashing()
