"""Fields that hold lists (RFC 9110, section 5.6.1), as layers extend them. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gateway.wire import edited, listed, tokens

VARY = frozenset((b"vary",))


def varying(headers: Any, *names: bytes) -> Any:
    """The fields of a response, with Vary telling that these fields of a request may lead to another one (RFC 9110,
    section 12.5.5)."""
    line = vary_line(headers, *names)
    return edited(headers, VARY, line) if line else headers


def vary_line(headers: Any, *names: bytes) -> bytes:
    """The line that has to take the place of Vary for that, CRLF before it; b"" where it says so already."""
    return _extended(listed(headers, b"vary"), names)


@lru_cache(maxsize=256)
def _extended(value: bytes | None, names: tuple[bytes, ...]) -> bytes:
    """Remembered, for an origin has few."""
    if value is None:
        return b"\r\nvary: " + b", ".join(names)
    known = tokens(value)
    missing = [name for name in names if name.lower() not in known]
    if not missing or b"*" in known:
        return b""
    return b"\r\nvary: " + b", ".join([value, *missing])
