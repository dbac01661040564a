"""A body on its way, as a short list of byte strings: large parts are never copied, tiny ones are gathered. Pure."""

from __future__ import annotations

_TINY = 4 * 1024  # up to this, copying costs less than a part of its own; it also keeps the list short
WRITE = 16 * 1024  # a write worth its system call


def add(parts: list[bytes], part: bytes) -> None:
    """Put a part at the end."""
    if parts and len(parts[-1]) + len(part) <= _TINY:
        parts[-1] += part
    else:
        parts.append(part)


def take(parts: list[bytes]) -> bytes:
    """Take the first part off, with those behind it while they are small; b"" when there is none."""
    if len(parts) < 2:
        return parts.pop() if parts else b""
    end = 1
    size = len(parts[0])
    while end < len(parts) and size + len(parts[end]) <= WRITE:
        size += len(parts[end])
        end += 1
    data = parts[0] if end == 1 else b"".join(parts[:end])
    del parts[:end]
    return data
