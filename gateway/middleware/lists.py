"""Fields that hold lists (RFC 9110, section 5.6.1), as layers read and extend them. Pure."""

from __future__ import annotations

from typing import Any

from gateway.wire import Head, edited, tokens, value_of

_NONE: frozenset[bytes] = frozenset()
_VARY = frozenset((b"vary",))


def listed(headers: Any, name: bytes) -> bytes | None:
    """All fields of this lower-case name as one, None for none."""
    value = value_of(headers, name) if not isinstance(headers, Head) else headers.value(name)
    if value is None or (isinstance(headers, Head) and headers.lines.lower().count(b"\r\n" + name + b":") < 2):
        return value
    return b", ".join([value for known, value in headers if known.lower() == name])


def varying(headers: Any, *names: bytes) -> Any:
    """The same, with Vary telling that these fields of a request may lead to another response (RFC 9110, section
    12.5.5)."""
    value = listed(headers, b"vary")
    if value is None:
        return edited(headers, _NONE, b"\r\nvary: " + b", ".join(names))
    known = tokens(value)
    missing = [name for name in names if name.lower() not in known]
    if not missing or b"*" in known:
        return headers
    return edited(headers, _VARY, b"\r\nvary: " + b", ".join([value, *missing]))
