"""Decisions that are remembered for a while, within bounds. Pure: the clock is an argument.

What a decision is known by is hashed with a secret of this process: it holds credentials, and must not be found in a
memory dump, nor must two that differ be taken for one.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from gateway.wire import Pair


class Decision(NamedTuple):
    """What a server said of a request. lines: what goes on to the application, CRLF before each, when it lets it pass.
    fields, body: its answer when it doesn't. user: who it says that the client is."""

    passes: bool
    lines: bytes = b""
    user: str = ""
    status: int = 0
    fields: tuple[Pair, ...] = ()
    body: bytes = b""

    @property
    def size(self) -> int:
        """About how many bytes it is held in."""
        return 512 + len(self.lines) + len(self.body) + sum(len(name) + len(value) + 100 for name, value in self.fields)


class Decisions:
    """The one that was made first makes room."""

    def __init__(self, secret: bytes, most: int, most_bytes: int, largest: int) -> None:
        """secret: of this process, 16 bytes at least. largest: bytes above which a decision is not remembered."""
        self._secret = secret
        self._most = most
        self._most_bytes = most_bytes
        self._largest = largest
        self._known: dict[bytes, tuple[float, Decision]] = {}
        self._held = 0

    def key(self, parts: Iterable[bytes]) -> bytes:
        """What a decision is known by: these, in this order, and nothing else."""
        digest = blake2b(key=self._secret, digest_size=20)
        for part in parts:
            digest.update(b"%d:" % len(part))
            digest.update(part)
        return digest.digest()

    def get(self, key: bytes, now: float) -> Decision | None:
        found = self._known.get(key)
        if found is None:
            return None
        if now < found[0]:
            return found[1]
        self._forget(key)
        return None

    def keep(self, key: bytes, decision: Decision, until: float) -> None:
        if decision.size > self._largest:
            return
        self._forget(key)
        self._known[key] = (until, decision)
        self._held += decision.size
        while len(self._known) > self._most or self._held > self._most_bytes:
            self._forget(next(iter(self._known)))

    def _forget(self, key: bytes) -> None:
        found = self._known.pop(key, None)
        if found is not None:
            self._held -= found[1].size

    def __len__(self) -> int:
        return len(self._known)
