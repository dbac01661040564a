"""What was found out a moment ago, in bounded memory. Pure.

Two tables, of which the younger one is written: when it is full it becomes the older one, and what was old is
forgotten. What is asked for moves to the younger one, so what is in use stays, and nothing is sorted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by what they are known by. At most `most` of them, and at least the last half of that."""

    def __init__(self, most: int) -> None:
        self._half = max(1, most // 2)
        self._young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}

    def get(self, key: bytes) -> T | None:
        found = self._young.get(key)
        if found is None and self._old:
            found = self._old.pop(key, None)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: bytes, value: T) -> None:
        if len(self._young) >= self._half and key not in self._young:
            self._old, self._young = self._young, {}
        self._old.pop(key, None)
        self._young[key] = value

    def drop(self, key: bytes) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Forget every value of which this isn't true."""
        self._young = {key: value for key, value in self._young.items() if wanted(value)}
        self._old = {key: value for key, value in self._old.items() if wanted(value)}

    def clear(self) -> None:
        self._young = {}
        self._old = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
