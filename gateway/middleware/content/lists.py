"""Fields that hold lists (RFC 9110, section 5.6.1), as layers extend them. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gateway.wire import edited, listed, tokens

_NONE: frozenset[bytes] = frozenset()
_VARY = frozenset((b"vary",))


def varying(headers: Any, *names: bytes) -> Any:
    """The fields of a response, with Vary telling that these fields of a request may lead to another one (RFC 9110,
    section 12.5.5)."""
    value = listed(headers, b"vary")
    if value is None:
        return edited(headers, _NONE, b"\r\nvary: " + b", ".join(names))
    line = _extended(value, names)
    return edited(headers, _VARY, line) if line else headers


@lru_cache(maxsize=256)
def _extended(value: bytes, names: tuple[bytes, ...]) -> bytes:
    """The line that says all of it, b"" where the value says so already. Remembered, for an origin has few."""
    known = tokens(value)
    missing = [name for name in names if name.lower() not in known]
    if not missing or b"*" in known:
        return b""
    return b"\r\nvary: " + b", ".join([value, *missing])
