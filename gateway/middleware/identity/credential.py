"""Where in a request a credential stands: found, and taken out so that it goes no further. Pure.

A credential that is there twice is found by us in one place and by the origin perhaps in another, so two that differ
are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.wire import RequestHead


class Ambiguous(Exception):
    """The request has more than one, and they differ."""


Find = Callable[[RequestHead], bytes | None]
TakeOut = Callable[[RequestHead], None]
Redact = Callable[[bytes], bytes]

_QUERY = "query:"


class Source(NamedTuple):
    """find: None for a request that has none; raises Ambiguous. take_out: so that it doesn't go on."""

    find: Find
    take_out: TakeOut


def parameters_of(sources: Iterable[str]) -> tuple[str, ...]:
    """The query parameters among them."""
    return tuple([source.removeprefix(_QUERY) for source in sources if source.startswith(_QUERY)])


def redactor(names: Iterable[str]) -> Redact:
    """What takes these parameters from the query of a target; one that has none stays as it is."""
    wanted = frozenset([name.encode() for name in names])

    def redacted(target: bytes) -> bytes:
        path, _, query = target.partition(b"?")
        if not query:
            return target
        parts = query.split(b"&")
        kept = [part for part in parts if _decoded(part.partition(b"=")[0]) not in wanted]
        if len(kept) == len(parts):
            return target
        return path + b"?" + b"&".join(kept) if kept else path

    return redacted


def source_of(text: str) -> Source:
    """text: "header:NAME", "cookie:NAME" or "query:NAME". `header:authorization` is what follows the scheme Bearer (RFC
    6750, section 2.1)."""
    kind, _, written = text.partition(":")
    name = written.encode()
    if kind == "header":
        return _header(name.lower())
    return _cookie(name) if kind == "cookie" else _query(name)


_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*+")


def names_scheme(value: bytes, scheme: bytes) -> bool:
    """Whether anybody could take this value of Authorization for credentials of a scheme, which is in lower case: a
    token (RFC 9110, section 11.4), whatever follows it. One behind a comma, where no second one should be, is one to
    whoever reads a list."""
    if scheme not in value.lower():
        return False
    is_first = True
    for part in value.split(b","):
        member = part.strip(b" \t")
        token = _TOKEN.match(member)
        if token is not None and token[0].lower() == scheme:
            is_parameter = not is_first and member[token.end() :].lstrip(b" \t").startswith(b"=")
            if not is_parameter:
                return True
        is_first = is_first and not member
    return False


def _header(name: bytes) -> Source:
    names = frozenset((name,))

    def bearer(head: RequestHead) -> bytes | None:
        """The parser sees to it that there is no second Authorization. What is no single token, but might be read as
        one, is handed over as it is: it holds what no token does."""
        value = head.value(name)
        if value is None:
            return None
        if value[:7].lower() == b"bearer ":
            return value[7:].lstrip(b" ")
        return value if names_scheme(value, b"bearer") else None

    def field(head: RequestHead) -> bytes | None:
        value = head.value(name)
        if value is not None and head.repeats(name):
            raise Ambiguous
        return value

    def take_out(head: RequestHead) -> None:
        head.drop(names)

    return Source(bearer if name == b"authorization" else field, take_out)


_COOKIE = frozenset((b"cookie",))


def _cookies(head: RequestHead) -> list[bytes]:
    """The pairs of all Cookie fields: there should be one (RFC 6265, section 5.4), and the next hop joins several."""
    if head.repeats(b"cookie"):
        values = [value for name, value in head.pairs() if name == b"cookie"]
    else:
        values = [head.value(b"cookie") or b""]
    return [pair.strip(b" \t") for value in values for pair in value.split(b";")]


def _cookie(name: bytes) -> Source:
    def is_it(pair: bytes) -> bool:
        return pair.partition(b"=")[0].rstrip(b" \t") == name

    def find(head: RequestHead) -> bytes | None:
        return _only([_unquoted(pair.partition(b"=")[2].strip(b" \t")) for pair in _cookies(head) if is_it(pair)])

    def take_out(head: RequestHead) -> None:
        pairs = _cookies(head)
        kept = [pair for pair in pairs if pair and not is_it(pair)]
        if len(kept) != len(pairs):
            head.drop(_COOKIE)
            if kept:
                head.add(b"\r\ncookie: " + b"; ".join(kept))

    return Source(find, take_out)


def _unquoted(value: bytes) -> bytes:
    return value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value


def _query(name: bytes) -> Source:
    def is_it(part: bytes) -> bool:
        return _decoded(part.partition(b"=")[0]) == name

    def find(head: RequestHead) -> bytes | None:
        query = head.target.partition(b"?")[2]
        return _only([_decoded(part.partition(b"=")[2]) for part in query.split(b"&") if is_it(part)])

    without = redactor((name.decode(),))

    def take_out(head: RequestHead) -> None:
        target = without(head.target)
        if target != head.target:
            head.retarget(target)

    return Source(find, take_out)


def _decoded(text: bytes) -> bytes:
    """As forms have it: a name that is spelled with escapes is that name to whoever reads the query next."""
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text


def _only(values: list[bytes]) -> bytes | None:
    if not values:
        return None
    if values.count(values[0]) != len(values):
        raise Ambiguous
    return values[0]
