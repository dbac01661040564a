"""Whether a password is a user's, by a file of users: the layer `basic_auth` asks, and so do proxies.

A password that was right is known for a while without being hashed again, as a code that is of no use to anybody else;
one that was wrong for some seconds. Hashing is done in threads, takes as long for users who don't exist, and only so
many wait for it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from gateway.errors import Refused
from gateway.middleware.identity.hashing import HASHING
from gateway.middleware.identity.htpasswd import users_of
from gateway.middleware.identity.passwords import Hash
from gateway.middleware.identity.recent import Recent
from gateway.middleware.identity.watched import Watched

_LONGEST_FILE = 4 * 1024 * 1024  # bytes; some 50,000 users
_MOST_REMEMBERED = 4096  # credentials, right ones; and as many wrong ones
_WRONG_FOR = 5.0  # seconds: a client that goes on asking with a wrong password costs a hash in this time


class _Users(NamedTuple):
    """known: by name. hashes: of all, in a row."""

    known: Mapping[str, Hash]
    hashes: tuple[Hash, ...]

    @classmethod
    def of(cls, data: bytes) -> _Users:
        known = users_of(data)
        return cls(known, tuple(known.values()))


class _Right:
    """Credentials that were right. until: monotonic seconds; hash: what they matched."""

    __slots__ = ("hash", "until", "user")

    def __init__(self, user: str, until: float, hash: str) -> None:
        self.user = user
        self.until = until
        self.hash = hash


class Verifier:
    """The users of one file, which is read again when it changes."""

    def __init__(self, path: str, *, remember: float = 60.0, checks: int = 2, waiting: int = 64) -> None:
        """remember: seconds for which a right password is known. checks: hashed at the same time, in this process;
        waiting: how many more may wait for that. Raises StartError when the file can't be read or understood, Absent
        when there is none."""
        self._file = Watched(path, _Users.of, _LONGEST_FILE, self._changed)
        self._remember = remember
        self._at_once = checks
        HASHING.allow(checks)
        self._room = checks + waiting
        self._key = os.urandom(32)  # so that what is remembered can't be tried against a list of passwords
        self._right: Recent[_Right] = Recent(_MOST_REMEMBERED)
        self._wrong: Recent[float] = Recent(_MOST_REMEMBERED)
        self._checks: dict[bytes, asyncio.Task[bool]] = {}
        self._turns: asyncio.Semaphore | None = None

    def _changed(self, users: _Users) -> None:
        known = users.known
        self._wrong.clear()
        self._right.keep(lambda one: one.user in known and known[one.user].text == one.hash)

    async def verify(self, user: str, password: bytes) -> bool:
        """Whether that is the user's password. Raises Refused (`auth_busy`) when too many wait already."""
        if not user or not user.isprintable() or has_controls(password):
            return False
        code = self.code(b"%b\0%b" % (user.encode(), password))
        known = self.known(code)
        return bool(known) if known is not None else await self.check(code, user, password)

    def code(self, credentials: bytes) -> bytes:
        """By what credentials are remembered, however they are written: a message authentication code (RFC 7693,
        section 2.9), in a third of the time that HMAC takes."""
        return blake2b(credentials, key=self._key, digest_size=32).digest()

    def known(self, code: bytes) -> str | None:
        """Whose the credentials of this code are; "" when they are nobody's, None when that isn't known."""
        self._file.look()  # before what is remembered: a change makes it forget
        right = self._right.get(code)
        if right is not None and right.until > time.monotonic():
            return right.user
        wrong = self._wrong.get(code)
        return "" if wrong is not None and wrong > time.monotonic() else None

    async def check(self, code: bytes, user: str, password: bytes) -> bool:
        """Find out. Raises Refused (`auth_busy`) when too many wait already."""
        check = self._checks.get(code)
        if check is None:
            if len(self._checks) >= self._room:
                raise Refused("auth_busy", "too many passwords are being checked already")
            matched = self._matched(code, user, password, self._file.value)
            check = asyncio.get_running_loop().create_task(matched, name="password")
            self._checks[code] = check
            check.add_done_callback(lambda _: self._checks.pop(code, None))
        # A page has its browser ask for ten things at once: one check is enough, whoever of them goes away meanwhile.
        await asyncio.wait((check,))
        return not check.cancelled() and check.result()

    async def _matched(self, code: bytes, user: str, password: bytes, users: _Users) -> bool:
        """Whether that is the user's password, which is then remembered, and so is that it isn't."""
        hashed = users.known.get(user)
        if self._turns is None:
            self._turns = asyncio.Semaphore(self._at_once)
        async with self._turns:
            same = await HASHING.matches(hashed or self._somebody(user, users), password)
        now = time.monotonic()
        if hashed is None or not same:
            if users is self._file.value:
                self._wrong.put(code, now + _WRONG_FOR)
            return False
        current = self._file.value.known.get(user)
        if current is None or current.text != hashed.text:
            return False  # the file has changed meanwhile
        self._right.put(code, _Right(user, now + self._remember, hashed.text))
        return True

    def _somebody(self, user: str, users: _Users) -> Hash:
        """Whose hash is computed for a user who doesn't exist: always the same one's for the same name, and nobody can
        tell whose. So an unknown name takes as long as a known one, also when their hashes cost differently."""
        number = int.from_bytes(self.code(user.encode())[:8])
        return users.hashes[number % len(users.hashes)]

    def close(self) -> None:
        """Nobody will ask any more."""
        self._file.close()
        for check in [*self._checks.values()]:
            check.cancel()


def has_controls(text: bytes) -> bool:
    return any(byte < 32 or byte == 127 for byte in text)
