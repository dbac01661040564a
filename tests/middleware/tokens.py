"""Who issues tokens in these tests: keys, sets of them, and tokens, good ones and every other kind."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

SECRET = "a secret that is long enough for every hash there is in this table"
CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", *CURVES, "EdDSA", "Ed448")


@lru_cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


@lru_cache
def private_key(alg: str, number: int = 0) -> Any:
    """The same one for all RSA algorithms. number: another one for each."""
    if alg[:2] in ("RS", "PS"):
        return rsa_key(2048, number)
    if alg in CURVES:
        return ec.generate_private_key(CURVES[alg])
    return ed448.Ed448PrivateKey.generate() if alg == "Ed448" else ed25519.Ed25519PrivateKey.generate()


def algorithm(alg: str) -> Any:
    return jwt.get_algorithm_by_name("EdDSA" if alg.startswith("Ed") else alg)


def public_jwk(alg: str, number: int = 0, /, **members: Any) -> dict[str, Any]:
    """A member given as None is left out."""
    made = algorithm(alg).to_jwk(private_key(alg, number).public_key(), as_dict=True)
    made.pop("key_ops", None)
    made |= {"kid": kid_of(alg, number), **members}
    return {name: value for name, value in made.items() if value is not None}


def kid_of(alg: str, number: int = 0) -> str:
    return f"{alg}-{number}"


def oct_jwk(secret: bytes, kid: str = "shared", **members: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": b64(secret).decode(), "kid": kid, **members}


def key_document(*jwks: Any) -> bytes:
    return json.dumps({"keys": jwks}).encode()


def b64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def claims(**more: Any) -> dict[str, Any]:
    """Good ones, for a day: the parameters of tests are made long before these run. A claim given as None is left
    out."""
    now = int(time.time())
    made = {"sub": "ann", "iss": "https://id.example", "aud": "api", "iat": now, "exp": now + 86400, **more}
    return {name: value for name, value in made.items() if value is not None}


def signature(alg: str, signed: bytes, number: int = 0) -> bytes:
    if alg.startswith("HS"):
        return bytes(algorithm(alg).sign(signed, SECRET.encode()))
    return bytes(algorithm(alg).sign(signed, private_key(alg, number)))


def raw_token(header: bytes, payload: bytes, alg: str = "ES256", number: int = 0) -> bytes:
    """A token of these very bytes, rightly signed."""
    signed = b64(header) + b"." + b64(payload)
    return signed + b"." + b64(signature(alg, signed, number))


def token(alg: str = "ES256", number: int = 0, /, header: dict[str, Any] | None = None, **more: Any) -> bytes:
    """A good token, but for what is given otherwise."""
    named = "EdDSA" if alg == "Ed448" else alg
    head = {"alg": named, "typ": "JWT", "kid": kid_of(alg, number), **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    return raw_token(json.dumps(head).encode(), json.dumps(claims(**more)).encode(), alg, number)
