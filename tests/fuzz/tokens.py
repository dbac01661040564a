"""What the layer `jwt` says to any token: nothing but a refusal, except to one that somebody with the key has signed
and that says what it must.

An input is a token. One that begins with "S" and a line end is a header and a payload, of which a token is made with
the right signature: so the fuzzer gets beyond it.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Any

import msgspec

from gateway.middleware.identity.jose import TokenRefused
from gateway.middleware.jwt import Jwt
from gateway.wire import is_field
from tests.fuzz.loop import Finding, Loop
from tests.middleware.rig import Layers

_SECRET = "a secret that is known to nobody but everybody who reads this"
_SIGN = b"S\r\n"
_LINES = re.compile(rb"(?:\r\nx-[a-z]+: [^\r\n\0]*)*")


def token_of(header: bytes, payload: bytes) -> bytes:
    signed = _coded(header) + b"." + _coded(payload)
    return signed + b"." + _coded(hmac.digest(_SECRET.encode(), signed, "sha256"))


def _coded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


_HEADER = b'{"alg":"HS256","typ":"JWT"}'
_PAYLOAD = b'{"sub":"ann","iss":"i","aud":["a","b"],"scope":"read write","exp":4102444800,"roles":["x","y"]}'
_GOOD = token_of(_HEADER, _PAYLOAD)
_OTHER = token_of(b'{"alg":"HS256","kid":"1"}', b'{"iss":"i","aud":"a","scp":["read"],"exp":4.1e9,"nbf":1,"iat":1}')

SEEDS: tuple[bytes, ...] = (
    _GOOD,
    _OTHER,
    _GOOD[:-1] + bytes((_GOOD[-1] + 1,)),  # bits behind the last byte
    _GOOD + b"=",
    _GOOD + b"." + _GOOD,
    _GOOD.rpartition(b".")[0] + b".",
    b"..",
    _coded(b'{"alg":"none"}') + b"." + _coded(_PAYLOAD) + b".",
    _SIGN + _HEADER + b"\r\n" + _PAYLOAD,
    _SIGN + b'{"alg":"none"}\r\n' + _PAYLOAD,
    _SIGN + b'{"alg":"HS256","crit":[]}\r\n' + _PAYLOAD,
    _SIGN + b'{"alg":"HS256","kid":1,"typ":"at+jwt"}\r\n' + _PAYLOAD,
    _SIGN + _HEADER + b'\r\n{"exp":1e999,"exp":true,"nbf":NaN,"iat":-1,"sub":"\\ud800","a":[[[[{}]]]]}',
    _SIGN
    + _HEADER
    + b'\r\n{"sub":"a\\r\\nx: y","roles":["a,b"," "],"exp":4102444800,"iss":"i","aud":"a","scope":"read"}',
)
_WRITTEN = (_GOOD, _OTHER)


@lru_cache
def _layer() -> Any:
    told = {"sub": "x-user", "roles": "x-roles", "a.b": "x-nested"}
    options: dict[str, Any] = {"issuer": "i", "audience": "a", "scopes": ["read"], "max_token": "8KiB"}
    layers = Layers.of(Jwt, secret=_SECRET, algorithms=["HS256"], claims_to_headers=told, **options)
    [made] = layers.layers
    return made


def run(loop: Loop, data: bytes) -> None:
    signed = data.startswith(_SIGN)
    header, _, payload = data[len(_SIGN) :].partition(b"\r\n")
    written = token_of(header, payload) if signed else data
    try:
        _layer()._verified(written).send(None)
    except TokenRefused as refused:
        if not is_field(b"x", refused.said.encode("ascii")) or '"' in refused.said:
            raise Finding("what is said of it can't be said") from None
    except StopIteration as done:
        _check(done.value, written, header if signed else b"", payload)
    else:
        raise Finding("it waits for something")


def _check(found: Any, written: bytes, header: bytes, payload: bytes) -> None:
    """Whether a token could be believed."""
    if not header:
        if written not in _WRITTEN:
            raise Finding("a token was believed that nobody has signed")
        return
    said = msgspec.json.decode(header)
    if said["alg"] != "HS256" or {"crit", "b64", "jwk", "jku", "x5c", "x5u"} & said.keys():
        raise Finding("a header was believed that must not be")
    claims = msgspec.json.decode(payload)
    if claims.keys() != found.claims.keys() or type(claims["exp"]) not in (int, float) or claims["exp"] < 1.7e9:
        raise Finding("it is read in two ways")
    if claims["iss"] != "i" or "a" not in claims["aud"]:
        raise Finding("it is for somebody else")
    if not _LINES.fullmatch(found.lines):
        raise Finding("it says more than one thing in a field")
    msgspec.json.encode(found.claims)
