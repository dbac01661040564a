"""Hashes of passwords that are slow on purpose: bcrypt and Argon2id. Pure, and the door to the libraries.

Anything faster is refused when it is read: a graphics card tries billions of SHA-1 or MD5 hashes in a second.
"""

from __future__ import annotations

import re
from typing import Protocol

# A bcrypt hash: cost, then 22 characters of salt and 31 of hash in its own base64. $2x$ is that of a buggy program.
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_ARGON2 = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,8}),t=(\d{1,3}),p=(\d{1,3})\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{16,86}"
)
_MOST_COST = 16  # four seconds; each one more doubles it
_MOST_MEMORY = 1024 * 1024  # KiB
_MOST_PASSES = 50
_LONGEST_BCRYPT = 72  # bytes: what is behind them bcrypt does not look at

_WEAK = (
    ("$apr1$", "an MD5 hash (apr1)"),
    ("{SHA}", "a SHA-1 hash without salt"),
    ("$1$", "an MD5 hash (crypt)"),
    ("$5$", "a SHA-256 hash (crypt)"),
    ("$6$", "a SHA-512 hash (crypt)"),
    ("$2x$", "a hash of a program that made mistakes ($2x$)"),
    ("$argon2i$", "an Argon2i hash"),
    ("$argon2d$", "an Argon2d hash"),
    ("$", "a hash of a kind that is not known, or cut short"),
    ("{", "a hash of a kind that is not known"),
)


class Hash(Protocol):
    """What is known of a password. text: as it is written."""

    @property
    def text(self) -> str: ...

    def matches(self, password: bytes) -> bool:
        """Takes tens of milliseconds, whatever it says, and lets other threads run. Raises nothing."""


def read_hash(text: str) -> Hash:
    """Raises ValueError with what it is instead, and ImportError when the library for it isn't installed."""
    if found := _BCRYPT.fullmatch(text):
        if not 4 <= int(found[1]) <= _MOST_COST:
            raise ValueError(f"a bcrypt hash of cost {int(found[1])}, and 4 to {_MOST_COST} can be used")
        return Bcrypt(text)
    if found := _ARGON2.fullmatch(text):
        if int(found[1]) > _MOST_MEMORY or int(found[2]) > _MOST_PASSES:
            raise ValueError(f"an Argon2id hash that takes {int(found[1])} KiB and {int(found[2])} passes: too much")
        return Argon2id(text)
    for beginning, what in _WEAK:
        if text.startswith(beginning):
            raise ValueError(what)
    raise ValueError("a DES hash (crypt), or a password in plain text")


class Bcrypt:
    def __init__(self, text: str) -> None:
        import bcrypt

        self.text = text
        self._check = bcrypt.checkpw

    def matches(self, password: bytes) -> bool:
        """A longer password than bcrypt looks at is none of ours, but takes as long as one."""
        try:
            same = self._check(password[:_LONGEST_BCRYPT], self.text.encode())
        except ValueError:
            return False
        return same and len(password) <= _LONGEST_BCRYPT


class Argon2id:
    def __init__(self, text: str) -> None:
        from argon2.exceptions import VerificationError
        from argon2.low_level import Type, verify_secret

        self.text = text
        self._verify = verify_secret
        self._type = Type.ID
        self._wrong = VerificationError  # and whatever else is the matter with the hash

    def matches(self, password: bytes) -> bool:
        try:
            return self._verify(self.text.encode(), password, self._type)
        except self._wrong:
            return False
