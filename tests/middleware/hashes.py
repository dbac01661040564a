"""Passwords, hashed as cheaply as their kinds allow, each once."""

from __future__ import annotations

from functools import lru_cache

import bcrypt
from argon2 import PasswordHasher


@lru_cache
def hashed(password: bytes) -> bytes:
    return bcrypt.hashpw(password, bcrypt.gensalt(4))


@lru_cache
def argon2id(password: bytes) -> bytes:
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(password).encode()


def user_line(name: bytes, password: bytes) -> bytes:
    return name + b":" + hashed(password) + b"\n"
