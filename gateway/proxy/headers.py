"""The head that goes on to the endpoint. Pure.

Ordinary lines are copied as one block; framing is always written anew; what ends at this hop has no line here. A client
can't introduce itself: whatever it said in X-Forwarded-* or Forwarded is left out and the listener's word put in.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from gateway.wire import RequestHead, announced_trailers, tokens


def outbound(head: RequestHead, start: bytes, host: bytes, via: bytes, asking: bytes) -> bytes:
    """The request head for the endpoint.

    start: the start line, `head.start` unless the target is another; via: our name; asking: what `asking_lines` made,
    and other lines of ours, CRLF before each.
    """
    before = head.special.get(b"via")
    received = (before + b", 1." if before else b"1.") + (b"1 " if head.minor else b"0 ")
    if head.length > 0 or b"content-length" in head.special:
        framing = b"\r\ncontent-length: %d\r\n\r\n" % head.length
    elif head.length:
        framing = b"\r\ntransfer-encoding: chunked\r\n\r\n"
    else:
        framing = b"\r\n\r\n"
    return b"".join(
        (
            start,
            head.fields.ordinary,
            head.added,
            b"\r\nhost: ",
            host,
            head.introduced or b"",
            b"\r\nvia: ",
            received,
            via,
            asking,
            framing,
        )
    )


_PREFIX = re.compile(rb"\r\nx-forwarded-prefix: ([^\r\n]*)")


def with_prefix(introduced: bytes, prefix: bytes) -> bytes:
    """The lines about the client, with one that tells of the prefix that is stripped: behind what a trusted proxy has
    stripped before us."""
    before = _PREFIX.search(introduced)
    if before is None:
        return introduced + b"\r\nx-forwarded-prefix: " + prefix
    return introduced[: before.end()].rstrip(b"/") + prefix + introduced[before.end() :]


def asking_lines(head: RequestHead, upgrade: bytes, expect: bool) -> bytes:
    """The fields that ask something of each hop on the way, as they go on to the next.

    upgrade: the tokens that may be asked for; expect: whether the endpoint is to be asked for the body first.
    """
    special = head.special
    lines = b""
    options = []
    if b"trailers" in tokens(special.get(b"te", b"")):
        options.append(b"te")
        lines += b"\r\nte: trailers"
    if upgrade:
        options.append(b"upgrade")
        lines += b"\r\nupgrade: " + upgrade
    if expect:
        lines += b"\r\nexpect: 100-continue"
    announced = announced_trailers(head)
    if announced:
        lines += b"\r\ntrailer: " + announced
    hops = special.get(b"max-forwards")
    if hops is not None:
        counts = head.method in COUNTED and hops.isdigit()
        lines += b"\r\nmax-forwards: " + (b"%d" % (int(hops) - 1) if counts else hops)
    if options:
        lines += b"\r\nconnection: " + b", ".join(options)
    return lines


# The methods that Max-Forwards counts for (RFC 9110, section 7.6.2); with others it means nothing.
COUNTED = (b"OPTIONS", b"TRACE")


def last_hop(head: RequestHead) -> bool:
    """Whether the request must not go any further than here: its Max-Forwards is used up."""
    hops = head.special.get(b"max-forwards")
    return hops is not None and head.method in COUNTED and hops.isdigit() and int(hops) == 0


def hops_malformed(head: RequestHead) -> bool:
    """Whether Max-Forwards, where it counts, is no number."""
    hops = head.special.get(b"max-forwards")
    return hops is not None and head.method in COUNTED and not (hops.isdigit() and len(hops) < 10)


def upgrade_asked(head: RequestHead, allowed: Collection[bytes] | None) -> bytes:
    """The protocols that the client offers to switch to and may, b"" for none. allowed: tokens in lower case, None for
    any.

    A request with a body is not upgraded: a server may ignore Upgrade (RFC 9110, section 7.8), and so nobody has to
    know where the body ends and the other protocol begins.
    """
    offered = head.special.get(b"upgrade")
    if offered is None or head.length or not head.minor:
        return b""
    if b"upgrade" not in tokens(head.special.get(b"connection", b"")):
        return b""
    names = [name.strip(b" \t") for name in offered.split(b",")]
    return b", ".join([name for name in names if name and (allowed is None or name.lower() in allowed)])


# What a client sent to let somebody in is nothing that TRACE may send back (RFC 9110, section 9.3.8).
_SECRETS = (b"authorization", b"cookie", b"proxy-authorization")


def traced(head: RequestHead) -> bytes:
    """A request as its final recipient sends it back for TRACE, without what is secret."""
    lines = [b"%b: %b" % pair for pair in head.pairs() if pair[0] not in _SECRETS]
    return b"\r\n".join((b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor), *lines)) + b"\r\n\r\n"
