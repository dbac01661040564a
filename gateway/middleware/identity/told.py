"""Fields in which the application is told who a client is, and which nobody else may write. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.wire import HOP_BY_HOP

# What frames and routes a message; a credential in one of the last three would be another layer's.
_NOT_OURS = HOP_BY_HOP | {b"host", b"content-length", b"expect", b"via", b"cookie", b"authorization", b"content-type"}


def checked(names: Iterable[str]) -> None:
    """Raises ValueError for a field that a layer must not write."""
    for name in names:
        if name.encode() in _NOT_OURS:
            raise ValueError(f'who a client is can\'t be told in "{name}"')
        if "_" in name:
            raise ValueError(f'"{name}" has a "_", and such fields of a request are dropped')


def line(name: str, value: str) -> bytes:
    """The field line, CRLF before it. value: without what can't stand in a field."""
    return b"\r\n%b: %b" % (name.encode(), value.encode())
