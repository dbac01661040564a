"""Reading a signed token: the compact form of a JWS (RFC 7515, section 7.1) and the JSON in it. Pure.

What can be read in two ways is refused: base64url that isn't canonical, names that occur twice in an object, numbers
that JSON doesn't have, text that isn't Unicode. Nothing of a payload is looked at before its signature was verified.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from math import isfinite
from typing import Any, NoReturn


class TokenRefused(Exception):
    """A token that must not be believed. said: what its bearer is told (RFC 6750, section 3: printable ASCII without
    quotes); reason: a code of the table of reasons."""

    def __init__(self, said: str, reason: str = "token_invalid") -> None:
        super().__init__(said)
        self.said = said
        self.reason = reason


_COMPACT = re.compile(rb"([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)")
_BASE64URL = re.compile(rb"[A-Za-z0-9_-]*+")
_LONGEST_KID = 256  # thumbprints have 43 characters, URNs of them some 90
_DEEPEST = 16  # levels of claims; what people nest has three or four
# Members of a header that would have us take the key, or the rules, from the token itself, or that speak of a JWE.
_NOT_FOLLOWED = ("crit", "b64", "jwk", "jku", "x5u", "x5c", "enc", "zip")


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token taken apart. signed: the bytes that the signature is over; payload: still base64url; kind: what `typ`
    says, in lower case and without "application/", "" for nothing."""

    alg: str
    kid: str | None
    kind: str
    signed: bytes
    payload: bytes
    signature: bytes


def read(token: bytes) -> Unverified:
    """Raises TokenRefused."""
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise TokenRefused("The token is malformed")
    header = _object(match[1])
    for name in _NOT_FOLLOWED:
        if name in header:
            raise TokenRefused("The token has a header parameter that is not accepted")
    alg, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "")
    if type(alg) is not str or type(kind) is not str:
        raise TokenRefused("The token is malformed")
    if "kid" in header and (type(kid) is not str or not 0 < len(kid) <= _LONGEST_KID):
        raise TokenRefused("The token is malformed")
    return Unverified(
        alg, kid, kind.lower().removeprefix("application/"), token[: match.end(2)], match[2], _decoded(match[3])
    )


def claims_of(payload: bytes) -> dict[str, Any]:
    """What a payload says. Raises TokenRefused."""
    return _object(payload)


def _decoded(segment: bytes) -> bytes:
    try:
        return decode64(segment)
    except ValueError:
        raise TokenRefused("The token is malformed") from None


def decode64(text: bytes) -> bytes:
    """base64url without padding, in its only form (RFC 7515, section 2). Raises ValueError."""
    if _BASE64URL.fullmatch(text) is None:
        raise ValueError("not base64url")
    try:
        raw = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except Base64Error:
        raise ValueError("not base64url") from None
    if urlsafe_b64encode(raw).rstrip(b"=") != text:  # bits are set behind the last byte
        raise ValueError("not base64url")
    return raw


def _object(segment: bytes) -> dict[str, Any]:
    try:
        value = read_json(_decoded(segment))
    except ValueError:
        raise TokenRefused("The token is malformed") from None
    if type(value) is not dict:
        raise TokenRefused("The token is malformed")
    return value


# JSON that means one thing.


def read_json(data: bytes) -> Any:
    """Raises ValueError for what is not JSON in UTF-8, or could be read in two ways."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _inspect(value)
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name occurs twice")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _inspect(value: Any) -> None:
    """Whether whoever gets it can write it down again: no lone surrogates, no infinities, no great depth."""
    level = [value]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is str:
                if not one.isascii():
                    one.encode()  # UnicodeEncodeError is a ValueError
            elif kind is dict:
                below += one
                below += one.values()
            elif kind is list:
                below += one
            elif kind is float and not isfinite(one):
                raise ValueError("a number is too large")
        if not below:
            return
        level = below
    raise ValueError("nested too deeply")
