"""Fields in which the application is told who a client is. Pure."""

from __future__ import annotations


def line(name: str, value: str) -> bytes:
    """The field line, CRLF before it. value: without what can't stand in a field."""
    return b"\r\n%b: %b" % (name.encode(), value.encode())
