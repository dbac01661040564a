"""A file that is read again when it changes, without a reload.

It is looked at when it is asked for, at most once a second: a `stat` takes some microseconds and asks no other thread.
One that has changed is read and understood in a thread, for that of 200,000 keys takes half a second; what it said
before is gone by meanwhile.
Whoever replaces it in one step (`rename`, as Kubernetes and every good editor do) never has half of it read; half of
one that is written in place may be read, and then the next look finds it changed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from gateway.errors import Absent, StartError

log = logging.getLogger("gateway.middleware")

T = TypeVar("T")

LOOK = 1.0  # seconds between two looks
_Signature = tuple[int, int, int, int]


class Watched(Generic[T]):
    """`value` is what the file last said that could be understood."""

    def __init__(
        self,
        path: str,
        read: Callable[[bytes], T],
        longest: int,
        changed: Callable[[T], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """read: makes a value of the contents, or raises ValueError with a sentence; in a thread. longest: bytes.
        changed: told of each new value, not of the first, in the event loop. Raises StartError when the file can't be
        read or understood now, Absent when there is none."""
        self._path = path
        self._read = read
        self._longest = longest
        self._changed = changed
        self._clock = clock
        self._reading: asyncio.Task[None] | None = None
        if not os.path.lexists(path):
            raise Absent(f"{path}: there is no such file")
        self._signature = self._stat()  # before it is read: what is written meanwhile is a change
        try:
            self.value = self._understood()
        except ValueError as error:
            raise StartError(f"{path}: {error}") from None
        self._next = clock() + LOOK

    def look(self) -> T:
        """The value, after a look at the file when it is time for one: when it has changed the next value is on its
        way."""
        now = self._clock()
        if now >= self._next and self._reading is None:
            self._next = now + LOOK
            found = self._stat()
            if found != self._signature:
                self._reading = asyncio.get_running_loop().create_task(self._renew(found), name="file")
        return self.value

    def close(self) -> None:
        """Nobody will ask any more."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()

    def _stat(self) -> _Signature | None:
        try:
            return _signature(os.stat(self._path))  # noqa: PTH116 pathlib's costs twice as much
        except OSError:
            return None

    async def _renew(self, found: _Signature | None) -> None:
        try:
            value = await asyncio.to_thread(self._understood)
        except ValueError as error:
            self._signature = found
            log.error("%s: %s; what it said before stays in use", self._path, error)
            return
        finally:
            self._reading = None
        self._signature = found
        self.value = value
        log.info("%s: read again", self._path)
        if self._changed is not None:
            self._changed(self.value)

    def _understood(self) -> T:
        try:
            # Whoever opens a pipe waits for its other end.
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                data = file.read(self._longest + 1)
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        if len(data) > self._longest:
            raise ValueError(f"has more than {self._longest} bytes")
        return self._read(data)


def _signature(found: os.stat_result) -> _Signature:
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
