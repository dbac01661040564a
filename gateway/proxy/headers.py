"""The head that goes on to the endpoint. Pure.

Ordinary lines are copied as one block; framing is always written anew; what ends at this hop has no line here. A client
can't introduce itself: whatever it said in X-Forwarded-* or Forwarded is left out and our own word put in.
"""

from __future__ import annotations

from gateway.wire import RequestHead


def outbound(head: RequestHead, forwarded: bytes, via: bytes, authority: bytes) -> bytes:
    """The request head for the endpoint.

    forwarded: the listener's fields about the client, up to "x-forwarded-host: "; via: our name; authority: the Host
    when the client (HTTP/1.0) gave none.
    """
    special = head.special
    host = special.get(b"host") or authority
    before = special.get(b"via")
    received = (before + b", 1." if before else b"1.") + (b"1 " if head.minor else b"0 ")
    if head.length > 0 or b"content-length" in special:
        framing = b"\r\ncontent-length: %d\r\n\r\n" % head.length
    elif head.length:
        framing = b"\r\ntransfer-encoding: chunked\r\n\r\n"
    else:
        framing = b"\r\n\r\n"
    return b"".join((head.lines, b"\r\nhost: ", host, forwarded, host, b"\r\nvia: ", received, via, framing))
