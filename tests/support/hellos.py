"""ClientHellos: of real clients, and put together part by part (RFC 8446, section 4.1.2)."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Sequence


def real(name: str | None, alpn: Sequence[str] = ()) -> bytes:
    """What OpenSSL would send."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def vector(size: int, data: bytes) -> bytes:
    """data behind its length, which takes so many bytes."""
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(2, data)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes((kind,)) + vector(2, name) for name in names)))


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(2, b"".join(vector(1, name) for name in names)))


def body(
    *extensions: bytes,
    version: bytes = b"\3\3",
    session: bytes = b"",
    suites: bytes = b"\x13\x01",
    compression: bytes = b"\0",
) -> bytes:
    return (
        version
        + bytes(32)
        + vector(1, session)
        + vector(2, suites)
        + vector(1, compression)
        + vector(2, b"".join(extensions))
    )


def message(content: bytes, kind: int = 1) -> bytes:
    return bytes((kind,)) + vector(3, content)


def records(data: bytes, size: int = 1 << 14, kind: int = 22, version: bytes = b"\3\1") -> bytes:
    """A message in records of so many bytes."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(bytes((kind,)) + version + vector(2, piece) for piece in pieces)


def hello(*extensions: bytes, size: int = 1 << 14) -> bytes:
    return records(message(body(*extensions)), size)
