"""What a request is hashed by, so that the same comes to the same endpoint. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.wire import RequestHead, cookie, parameter

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
            return lambda exchange, head: head.value(wanted.lower()) or b""
        case "cookie":
            return lambda exchange, head: cookie(head, wanted)
        case _:
            return lambda exchange, head: parameter(head.target, wanted) or b""
