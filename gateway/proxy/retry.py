"""Whether a failed exchange may be tried again. Pure."""

from __future__ import annotations

from gateway.errors import ConnectionCut, DescriptorsExhausted, QueueTimeout, UpstreamError

# RFC 9110, section 9.2.2. A proxy must not repeat others by itself.
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


def elsewhere(error: UpstreamError, method: bytes, has_body: bool) -> bool:
    """Another endpoint may be asked: this one got nothing of the request, or it fell silent before any byte of a
    response and the request may be made twice."""
    if error.sent:
        return isinstance(error, ConnectionCut) and not error.reused and method in IDEMPOTENT and not has_body
    return not isinstance(error, QueueTimeout | DescriptorsExhausted) and not error.reused


def again(error: UpstreamError, method: bytes, has_body: bool) -> bool:
    """The same endpoint may be asked on another connection: a kept one was closed before any byte of a response, which
    happens when its keep-alive time runs out as we write; repeating is safe if nothing was sent, or if the method is
    and no body was spent."""
    if not isinstance(error, ConnectionCut) or not error.reused:
        return False
    return not error.sent or (method in IDEMPOTENT and not has_body)
