"""HTTP/1.1 on the wire: bytes in, facts out (RFC 9112). No socket, no clock, no await.

A line that does not match the grammar is refused, never repaired, except where the RFC tells a proxy to. This room
knows no routes, no configuration and no connection; who reads says what came before and how much is too much.

The ways in: `read_request`, or `read_proxied` in a forward proxy, and `read_response` (`refusal` and `is_hopeless` when
there is no head yet), `ChunkedBody`, and for messages on their way `value_of` and its neighbours. Inside, each file
knows only those before it: grammar, names, lines, fields, framing, heads, proxied, then chunked and messages.
"""

from gateway.wire.chunked import ChunkedBody, announced_trailers, passable_trailers, trailer_section
from gateway.wire.fields import Fields
from gateway.wire.grammar import WireError, is_authority, is_field, is_method, is_target, tokens
from gateway.wire.heads import Head, RequestHead, ResponseHead, is_hopeless, read_request, read_response, refusal
from gateway.wire.lines import Pair
from gateway.wire.messages import (
    amended,
    cookie,
    edited,
    listed,
    parameter,
    reframed,
    value_of,
    went_round,
    with_headers,
)
from gateway.wire.names import HOP_BY_HOP, IDENTITY, IDENTITY_PREFIXES, SINGLE
from gateway.wire.proxied import ProxyHead, read_proxied, without_userinfo

__all__ = [
    "HOP_BY_HOP",
    "IDENTITY",
    "IDENTITY_PREFIXES",
    "SINGLE",
    "ChunkedBody",
    "Fields",
    "Head",
    "Pair",
    "ProxyHead",
    "RequestHead",
    "ResponseHead",
    "WireError",
    "amended",
    "announced_trailers",
    "cookie",
    "edited",
    "is_authority",
    "is_field",
    "is_hopeless",
    "is_method",
    "is_target",
    "listed",
    "parameter",
    "passable_trailers",
    "read_proxied",
    "read_request",
    "read_response",
    "reframed",
    "refusal",
    "tokens",
    "trailer_section",
    "value_of",
    "went_round",
    "with_headers",
    "without_userinfo",
]
