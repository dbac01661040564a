"""What a request is hashed by, so that the same comes to the same endpoint. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from gateway.wire import RequestHead

HashKey = Callable[[Any, RequestHead], bytes]


def hash_key(spec: str) -> HashKey:
    """A function of the exchange and its head for what the configuration says; b"" where a request has no such thing,
    and then it goes to whoever's turn it is."""
    kind, _, name = spec.partition(":")
    wanted = name.encode()
    match kind:
        case "client_ip":
            return lambda exchange, head: exchange.client.encode()
        case "path":
            return lambda exchange, head: head.target.partition(b"?")[0]
        case "host":
            return lambda exchange, head: exchange.host.lower()
        case "header":
            return lambda exchange, head: _field(head, wanted.lower())
        case "cookie":
            return lambda exchange, head: cookie(head, wanted)
        case _:
            return lambda exchange, head: _parameter(head.target, name)


def _field(head: RequestHead, name: bytes) -> bytes:
    return next((value for known, value in head.pairs() if known == name), b"")


def cookie(head: RequestHead, name: bytes) -> bytes:
    """The value of a cookie, b"" for none."""
    for pair in _field(head, b"cookie").split(b";"):
        known, _, value = pair.strip(b" \t").partition(b"=")
        if known == name:
            return value
    return b""


def _parameter(target: bytes, name: str) -> bytes:
    query = target.partition(b"?")[2].decode("latin-1")
    return next((value.encode() for known, value in parse_qsl(query, keep_blank_values=True) if known == name), b"")
