"""A request body kept while it streams, so that it can be sent once more.

Bounded for each request and for all of a worker together. Past a bound what was kept is let go of, the body streams on,
and the request simply can't be sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]

# What all requests of a worker may keep together: a thousand bodies of the default bound.
MOST = 64 * 1024 * 1024


class Shelf:
    """What the tapes of a worker may take together."""

    __slots__ = ("left",)

    def __init__(self, most: int = MOST) -> None:
        self.left = most

    def take(self, size: int) -> bool:
        if size > self.left:
            return False
        self.left -= size
        return True


class Tape:
    """`receive` as a listener gives it, to be listened to from its beginning again after `rewind`."""

    __slots__ = ("_at", "_most", "_receive", "_shelf", "_size", "_taken", "whole")

    def __init__(self, receive: Callable[[], Awaitable[Message]], most: int, shelf: Shelf) -> None:
        self._receive = receive
        self._most = most
        self._shelf = shelf
        self._taken: list[Message] = []
        self._size = 0
        self._at = 0
        self.whole = True  # everything that was received is on it

    async def receive(self) -> Message:
        if self._at < len(self._taken):
            message = self._taken[self._at]
            self._at += 1
            return message
        message = await self._receive()
        if self.whole and message["type"] == "http.request":
            size = len(message["body"])
            if self._size + size <= self._most and self._shelf.take(size):
                self._size += size
                self._taken.append(message)
                self._at += 1
            else:
                self.let_go()
        return message

    def rewind(self) -> None:
        self._at = 0

    def let_go(self) -> None:
        """Keep nothing any more."""
        self._shelf.left += self._size
        self._size = self._at = 0
        self._taken = []
        self.whole = False
