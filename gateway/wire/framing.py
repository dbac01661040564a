"""Where a message ends (RFC 9112, section 6.3), and whether another may follow it (section 9.3)."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.wire.grammar import WireError, tokens

_BODYLESS = (204, 304)


def request_length(special: Mapping[bytes, bytes], minor: int) -> int:
    """How many bytes of body follow, -1 for chunked, by the strictest reading: two ways to read it is one too many."""
    coding = special.get(b"transfer-encoding")
    if coding is None:
        return _content_length(special) or 0
    if b"content-length" in special:
        raise WireError(400, "two_framings")
    if not minor:
        raise WireError(400, "transfer_encoding_in_http10")
    if coding.lower() != b"chunked":
        raise WireError(501 if tokens(coding)[-1] == b"chunked" else 400, "transfer_encoding_unknown")
    return -1


def response_length(special: Mapping[bytes, bytes], minor: int, status: int, bodyless: bool) -> int:
    """The same of a response; -2 for all that comes until the connection closes. bodyless: the request was HEAD."""
    length = _content_length(special)
    coding = special.get(b"transfer-encoding")
    if coding is not None and (length is not None or not minor or coding.lower() != b"chunked"):
        raise WireError(502, "framing_ambiguous")
    if bodyless or status in _BODYLESS or status < 200:
        return 0
    if length is not None:
        return length
    return -2 if coding is None else -1


def _content_length(special: Mapping[bytes, bytes]) -> int | None:
    text = special.get(b"content-length")
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:  # 18 digits stay below 2^63
        raise WireError(400, "content_length_invalid")
    return int(text)


def keeps_alive(connection: bytes | None, minor: int) -> bool:
    """Whether the sender means to go on with this connection (RFC 9112, section 9.3)."""
    if connection is None:
        return minor == 1
    if connection in (b"keep-alive", b"Keep-Alive"):
        return True
    named = tokens(connection)
    return b"close" not in named and (minor == 1 or b"keep-alive" in named)
