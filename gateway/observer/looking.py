"""What everything has in common that goes on looking by itself, each thing at its own time, and tells the master what
comes out."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable
from typing import Any

from gateway.child import is_read

_SOON = 0.01  # seconds between two looks whether the master has read


class Looking(ABC):
    """`_outbox`: what the master was not told yet, by name."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._outbox: dict[str, Any] = {}
        self._is_sending = False
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @abstractmethod
    def _is_awaited(self) -> bool:
        """Whether there is something of which nobody knows anything yet."""

    @abstractmethod
    def _tell(self) -> bool:
        """Say something of the outbox to the master and forget it; False when it does not take it."""

    async def _begin(self, looks: Iterable[Coroutine[Any, Any, None]], within: float) -> None:
        """Returns when everything was looked at once and the master knows, but after so many seconds at the most; what
        takes longer, and all that follows, goes on by itself."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(look) for look in looks]
        try:
            async with asyncio.timeout(within):
                while self._outbox or self._is_awaited():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            pass

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _looked(self) -> None:
        """A look is over, with or without news."""
        self._moved.set()
        if self._outbox and not self._is_sending:  # with what else comes out in this turn of the loop
            self._is_sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Tell the master, or do so as soon as it has read what it was told before."""
        while self._outbox and is_read(self._channel) and self._tell():
            pass
        if self._outbox:
            asyncio.get_running_loop().call_later(_SOON, self._send)
        else:
            self._is_sending = False
            self._moved.set()
