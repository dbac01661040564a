"""Texts with places for what a request says: "{client_ip}/{header:x-tenant}". Pure.

Whatever is put in can stand in a header field: what came in a field can anyhow, and the rest is made so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote_from_bytes

from pydantic import AfterValidator

from gateway.middleware.identity.claims import claim, field_text
from gateway.middleware.identity.jose import TokenRefused
from gateway.wire import RequestHead, cookie

Part = Callable[[Any, RequestHead], bytes]

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAMES = ("client_ip", "host", "path", "request_id", "route", "header:NAME", "cookie:NAME", "jwt:CLAIM")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_UNSAFE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")


def safe(value: bytes) -> bytes:
    """A value that can stand in a field: what can't is percent-encoded."""
    return _UNSAFE.sub(lambda found: quote_from_bytes(found[0]).encode(), value) if _UNSAFE.search(value) else value


class Template:
    """`is_static`: no request changes it. place: what stands for what is between braces; raises ValueError for what
    nobody knows."""

    __slots__ = ("_parts", "is_static", "text")

    def __init__(self, text: str, place: Callable[[str], Part] | None = None) -> None:
        self.text = text
        self._parts: list[bytes | Part] = []
        at = 0
        literal = ""
        for found in _PLACE.finditer(text):
            literal += text[at : found.start()]
            at = found.end()
            if found[0] in ("{{", "}}"):
                literal += found[0][0]
                continue
            if found[1] is None:
                raise ValueError(f'"{found[0]}" stands alone: write "{found[0] * 2}" for the character itself')
            if literal:
                self._parts.append(literal.encode())
                literal = ""
            self._parts.append((place or part)(found[1]))
        literal += text[at:]
        if literal:
            self._parts.append(literal.encode())
        self.is_static = all(isinstance(one, bytes) for one in self._parts)

    def render(self, exchange: Any, head: Any) -> bytes:
        """The text for a request. Places for what it does not have are empty."""
        return b"".join([one if isinstance(one, bytes) else one(exchange, head) for one in self._parts])

    def whole(self, exchange: Any, head: Any) -> bytes:
        """The same for a request that has something for each place; b"" for any other."""
        found = []
        for one in self._parts:
            value = one if isinstance(one, bytes) else one(exchange, head)
            if not value:
                return b""
            found.append(value)
        return b"".join(found)


def _template_text(text: str) -> str:
    if _UNSAFE.search(text.encode()):
        raise ValueError("it has a character that can't stand in a field")
    Template(text)
    return text


# In options: checked when the configuration is read.
TemplateText = Annotated[str, AfterValidator(_template_text)]


def part(name: str) -> Part:
    """What stands for a place. Raises ValueError."""
    kind, colon, rest = name.partition(":")
    if not colon:
        match kind:
            case "client_ip":
                return lambda exchange, head: exchange.client.encode()
            case "host":
                return lambda exchange, head: exchange.host
            case "path":
                return lambda exchange, head: head.target.partition(b"?")[0]
            case "request_id":
                return lambda exchange, head: exchange.request_id.encode()
            case "route":
                return lambda exchange, head: exchange.route.name.encode() if exchange.route is not None else b""
    elif rest and kind == "jwt":
        return _claim(rest)
    elif kind in ("header", "cookie") and _TOKEN.fullmatch(rest):
        wanted = rest.encode()
        if kind == "cookie":
            return lambda exchange, head: cookie(head, wanted)
        return lambda exchange, head: head.value(wanted.lower()) or b""
    known = ", ".join(f"{{{one}}}" for one in _NAMES)
    raise ValueError(f'there is no "{{{name}}}"; known are {known}')


def _claim(path: str) -> Part:
    def value(exchange: Any, head: RequestHead) -> bytes:
        return claim_text(claim(exchange.verified, path)) if exchange.verified else b""

    return value


def claim_text(value: object) -> bytes:
    """A claim as `claims_to_headers` would tell it: b"" for none, and for one that can't be told, since the request is
    on its way already."""
    try:
        return (field_text(value) or "").encode()
    except (TokenRefused, UnicodeEncodeError):
        return b""
