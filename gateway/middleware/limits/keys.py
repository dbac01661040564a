"""For whom a limit counts: a client's address, what a request says of itself, or a text made of several such things.

An account is known by the key that is made here, so two clients that get the same key share it. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from gateway.middleware.identity.claims import claim
from gateway.middleware.template import Template, claim_text, part
from gateway.ranges import network
from gateway.wire import RequestHead, parameter

# Of a request, the name of its account; b"" where it has none, or no more than a part of it.
Key = Callable[[Any, RequestHead], bytes]
Missing = Literal["client_ip", "refuse", "pass"]

_PLAIN = re.compile(r"client_ip|route|(header|cookie|query|jwt):[^\s{}]+")
_KNOWN = (
    '"client_ip", "route", "header:NAME", "cookie:NAME", "query:NAME", "jwt:CLAIM" '
    'or a text such as "{client_ip}/{host}"'
)


def _limit_key(text: str) -> str:
    _key(text, 64)
    return text


LimitKey = Annotated[str, AfterValidator(_limit_key)]


def key_of(text: str, prefix: int, missing: Missing) -> Callable[[Any, RequestHead], bytes | None]:
    """What makes the keys of a limit. prefix: the bits of an IPv6 address that tell clients apart. missing: what a
    request without a key is counted by; b"" for one that must be refused, None for one that no limit is for."""
    key = _key(text, prefix)
    if text in ("client_ip", "route"):
        return key  # every request has one
    instead: bytes | None = None if missing == "pass" else b""
    address = _client(prefix)

    def found(exchange: Any, head: RequestHead) -> bytes | None:
        return key(exchange, head) or instead

    def found_or_address(exchange: Any, head: RequestHead) -> bytes | None:
        # No value of a field can hold a NUL, so nobody who sends one gets into the account of an address.
        return key(exchange, head) or b"\0" + address(exchange, head)

    return found_or_address if missing == "client_ip" else found


def _key(text: str, prefix: int) -> Key:
    """Raises ValueError."""
    address = _client(prefix)

    def place(name: str) -> Key:
        if name == "client_ip":
            return address
        kind, _, rest = name.partition(":")
        if kind == "query" and rest:
            wanted = rest.encode()
            return lambda exchange, head: parameter(head.target, wanted) or b""
        if kind == "jwt" and rest:
            return partial(_claimed, rest)
        return part(name)

    if "{" in text or "}" in text:
        return Template(text, place).whole
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"expected {_KNOWN}")
    return place(text)


def _claimed(path: str, exchange: Any, head: RequestHead) -> bytes:
    """A claim. One that can't be told in a field counts all the same: nobody gets rid of a limit by it."""
    found = claim(exchange.verified, path) if exchange.verified else None
    return claim_text(found) or (json.dumps(found).encode() if isinstance(found, str | list) and found else b"")


def _client(prefix: int) -> Key:
    return lambda exchange, head: network(exchange.client, prefix)
