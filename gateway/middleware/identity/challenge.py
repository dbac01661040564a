"""What a client is told that has to say who it is (RFC 9110, section 11.6.1). Pure."""

from __future__ import annotations


def challenge(scheme: str, **parameters: str) -> list[tuple[bytes, bytes]]:
    """The field for a scheme and its parameters, each of which is text on one line."""
    said = ", ".join(f"{name}={_quoted(value)}" for name, value in parameters.items())
    return [(b"www-authenticate", f"{scheme} {said}".encode())]


def _quoted(text: str) -> str:
    """RFC 9110, section 5.6.4."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
