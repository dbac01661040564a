"""The fields of a message as ASGI has them: a head that came over the wire, or pairs that somebody made."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from gateway.wire.grammar import tokens
from gateway.wire.heads import Head, RequestHead, ResponseHead
from gateway.wire.lines import pairs_of


def value_of(headers: Any, name: bytes) -> bytes | None:
    """The first field of this lower-case name, None for none."""
    if isinstance(headers, Head):
        return headers.value(name)
    return next((value for known, value in headers if known.lower() == name), None)


def listed(headers: Any, name: bytes) -> bytes | None:
    """All fields of this lower-case name as one list (RFC 9110, section 5.3), None for none."""
    if isinstance(headers, Head):
        return headers.listed(name)
    values = [value for known, value in headers if known.lower() == name]
    return b", ".join(values) if values else None


def edited(headers: Any, drop: frozenset[bytes], add: bytes) -> Any:
    """The same without the fields of some names, and with further lines, CRLF before each."""
    if isinstance(headers, Head):
        if drop:
            headers.drop(drop)
        if add:
            headers.add(add)
        return headers
    return [pair for pair in headers if pair[0].lower() not in drop] + pairs_of(add)


def amended(message: dict[str, Any], drop: frozenset[bytes], add: bytes) -> dict[str, Any]:
    """A message whose fields are `edited`. It is the same one when it has a head, which is changed in its place."""
    headers = message["headers"]
    if isinstance(headers, Head):
        if drop:
            headers.drop(drop)
        headers.added += add
        return message
    return {**message, "headers": edited(headers, drop, add)}


def with_headers(message: dict[str, Any], headers: Any) -> dict[str, Any]:
    """A message with these fields: the same one when it has them already."""
    return message if message["headers"] is headers else {**message, "headers": headers}


def reframed(headers: Any) -> Any:
    """The same for a body of which nobody knows how long it is."""
    if type(headers) is ResponseHead:
        headers.reframe()
        return headers
    return [pair for pair in headers if pair[0].lower() != b"content-length"]


def cookie(head: RequestHead, name: bytes) -> bytes:
    """The value of a cookie, b"" for none."""
    for pair in (head.value(b"cookie") or b"").split(b";"):
        known, _, value = pair.strip(b" \t").partition(b"=")
        if known == name:
            return value
    return b""


def went_round(head: Head, via: bytes) -> bool:
    """Whether the message came past here before: our own name is in its Via (RFC 9110, section 7.6.3)."""
    return any(hop.split()[1:2] == [via] for hop in tokens(head.special.get(b"via", b"")))


def parameter(target: bytes, name: bytes) -> bytes | None:
    """The value of the first query parameter of this name, decoded; None for none."""
    query = target.partition(b"?")[2].decode("latin-1")
    wanted = name.decode("utf-8", "surrogateescape")
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape") if query else ()
    return next((value.encode("utf-8", "surrogateescape") for known, value in pairs if known == wanted), None)
