"""The keys of an issuer: which ones may be used for what, and whether a signature is theirs. Pure.

A set is read key by key: one that can't be used, or is too weak to prove anything, is left out and told of, and the
others stay usable. The door to PyJWT, which brings the mathematics and nothing else: it accepts short keys.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from hashlib import sha256
from typing import Any, Literal

from gateway.middleware.identity.jose import decode64, read_json

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448",
    "HS256", "HS384", "HS512",
]  # fmt: skip

_RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
_CURVES = {
    ("EC", "P-256"): frozenset(("ES256",)),
    ("EC", "P-384"): frozenset(("ES384",)),
    ("EC", "P-521"): frozenset(("ES512",)),
    ("OKP", "Ed25519"): frozenset(("EdDSA", "Ed25519")),  # the second name: RFC 9864
    ("OKP", "Ed448"): frozenset(("EdDSA", "Ed448")),
}
# Bytes of the hash: a shorter key is easier to guess than the code it makes (RFC 7518, section 3.2).
_HMAC = {"HS256": 32, "HS384": 48, "HS512": 64}
_SIZES = {"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32, "Ed448": 57}

_RSA_LEAST = 2048  # bits; RFC 7518, section 3.3
_RSA_MOST = 16384  # one signature of a longer one takes milliseconds
_EXPONENT_MOST = 64  # bits: OpenSSL's own bound for long keys, and a long exponent is slow
_MOST_KEYS = 100
_MOST_TRIED = 4  # keys for one token, when it doesn't say which
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth")


class Key:
    """One key. algorithms: what it may be used for. identity: differs for everything that differs in the JWK."""

    __slots__ = ("_key", "algorithms", "identity", "kid")

    def __init__(self, kid: str | None, algorithms: frozenset[str], identity: bytes, key: Any) -> None:
        self.kid = kid
        self.algorithms = algorithms
        self.identity = identity
        self._key = key

    def verifies(self, alg: str, signed: bytes, signature: bytes) -> bool:
        """Whether the signature is of this key. alg: one of `algorithms`. Raises what is wrong with the library itself:
        that says nothing of the signature."""
        implementation = _implementation(alg)
        try:
            return bool(implementation.verify(signed, self._key, signature))
        except _about_signatures():
            return False

    def __repr__(self) -> str:
        return f"<Key {self.kid!r} {' '.join(sorted(self.algorithms))}>"


class KeySet:
    """Keys by `kid`. faults: a sentence for each key that was left out though it is meant for signatures."""

    def __init__(self, keys: Collection[Key], faults: Collection[str] = (), is_empty: bool = False) -> None:
        """is_empty: whether the issuer says that it has no keys, rather than none that can be used."""
        self.faults = tuple(faults)
        self.is_empty = is_empty
        self.identities = frozenset(key.identity for key in keys)
        self._by_kid: dict[str | None, list[Key]] = {}
        for key in keys:
            self._by_kid.setdefault(key.kid, []).append(key)
        self._all = tuple(keys)

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, kid: str) -> bool:
        return kid in self._by_kid

    def fitting(self, alg: str, kid: str | None) -> list[Key]:
        """The keys that may have signed a token: those of its `kid`, or the ones without a name when none is called
        so; all of them for a token that doesn't say. Never more than a few."""
        keys = self._all if kid is None else self._by_kid.get(kid) or self._by_kid.get(None) or ()
        return [key for key in keys if alg in key.algorithms][:_MOST_TRIED]


def key_set(document: bytes, wanted: Collection[str]) -> KeySet:
    """Read a JWK Set (RFC 7517, section 5). wanted: the algorithms that matter. Raises ValueError with a sentence when
    it is none."""
    try:
        value = read_json(document)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    members = value.get("keys") if type(value) is dict else None
    if type(members) is not list:
        raise ValueError('not a JWK Set: there is no array "keys"')
    keys: dict[bytes, Key] = {}
    faults = []
    for place, jwk in enumerate(members):
        if place == _MOST_KEYS:
            faults.append(f"the set has {len(members)} keys, and only the first {_MOST_KEYS} are read")
            break
        try:
            key = _key(jwk, frozenset(wanted))
        except ValueError as error:
            faults.append(f"{_called(jwk, place)} is not used: {error}")
        else:
            if key is not None:
                keys.setdefault(key.identity, key)
    return KeySet(list(keys.values()), faults, is_empty=not members)


def secret_set(secret: str, wanted: Collection[str]) -> KeySet:
    """A single key of bytes that issuer and gateway share. Raises ValueError when it is too short for one of the
    algorithms."""
    raw = secret.encode()
    for alg in wanted:
        if len(raw) < _HMAC[alg]:
            raise ValueError(f"a secret for {alg} has at least {_HMAC[alg]} bytes, this one has {len(raw)}")
    return KeySet([Key(None, frozenset(wanted), sha256(raw).digest(), raw)])


def _called(jwk: Any, place: int) -> str:
    kid = jwk.get("kid") if type(jwk) is dict else None
    return f"key {kid[:80]!r}" if type(kid) is str else f"key {place + 1} of the set, which has no kid,"


def _key(jwk: Any, wanted: frozenset[str]) -> Key | None:
    """A key of a set; None for one that is for something else. Raises ValueError for one that is no good."""
    if type(jwk) is not dict:
        raise ValueError("it is not an object")
    use, operations = jwk.get("use", "sig"), jwk.get("key_ops", ["verify"])
    if type(operations) is not list:
        raise ValueError("its key_ops is not an array")
    if use != "sig" or "verify" not in operations:
        return None
    kid = jwk.get("kid")
    if kid is not None and type(kid) is not str:
        raise ValueError("its kid is not a string")
    able = _able(jwk)
    if "alg" in jwk:
        if type(jwk["alg"]) is not str or jwk["alg"] not in able:
            raise ValueError("its alg does not fit it")
        able = frozenset((jwk["alg"],))
    able &= wanted
    if not able:
        return None
    identity = sha256(json.dumps(jwk, sort_keys=True).encode()).digest()
    implementation = _implementation(next(iter(able)))
    try:
        made = implementation.from_jwk(jwk)
    except Exception as error:  # a point off its curve, and what else a library finds
        raise ValueError(f"it is malformed ({error})") from None
    return Key(kid, able, identity, made)


def _able(jwk: dict[str, Any]) -> frozenset[str]:
    """What a key of this type and size can be used for. Raises ValueError for one that must not be used at all."""
    kty = jwk.get("kty")
    if kty == "oct":
        size = len(_member(jwk, "k"))
        able = frozenset(alg for alg, least in _HMAC.items() if size >= least)
        wants = _HMAC.get(str(jwk.get("alg")), min(_HMAC.values()))
        if size < wants:
            raise ValueError(f"it has {size} bytes, and an HMAC key at least those of its hash, {wants}")
        return able
    if kty not in ("RSA", "EC", "OKP"):
        raise ValueError("its kty is not known")
    if any(name in jwk for name in _PRIVATE):
        raise ValueError("it is a private key, which is nobody's business but the issuer's")
    if kty == "RSA":
        _check_rsa(int.from_bytes(_member(jwk, "n")), int.from_bytes(_member(jwk, "e")))
        return _RSA
    crv = jwk.get("crv")
    able = _CURVES.get((kty, crv), frozenset()) if type(crv) is str else frozenset()
    if not able or type(crv) is not str:
        raise ValueError("its crv is not known")
    for name in ("x", "y") if kty == "EC" else ("x",):
        if len(_member(jwk, name)) != _SIZES[crv]:
            raise ValueError(f"its {name} does not have {_SIZES[crv]} bytes")
    return able


def _check_rsa(modulus: int, exponent: int) -> None:
    bits = modulus.bit_length()
    if bits < _RSA_LEAST:
        raise ValueError(f"it has {bits} bits, and an RSA key at least {_RSA_LEAST}")
    if bits > _RSA_MOST:
        raise ValueError(f"it has {bits} bits, and more than {_RSA_MOST} take too long")
    if not modulus & 1:
        raise ValueError("its modulus is even")
    if exponent < 3 or not exponent & 1 or exponent.bit_length() > _EXPONENT_MOST:
        raise ValueError("its exponent is not one of an RSA key")


def _member(jwk: dict[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    try:
        if type(value) is str:
            return decode64(value.encode("ascii"))
    except ValueError:
        pass
    raise ValueError(f"its {name} is not base64url")


def _implementation(alg: str) -> Any:
    """PyJWT's class for an algorithm. Imported when the first key is made, for it brings all of OpenSSL."""
    made = _implementations.get(alg)
    if made is None:
        import jwt

        made = _implementations[alg] = jwt.get_algorithm_by_name(_OLDER.get(alg, alg))
    return made


def _about_signatures() -> tuple[type[Exception], ...]:
    """What the library raises of a signature that is none; ValueError is OpenSSL's word for bytes it can't read."""
    import jwt

    return jwt.PyJWTError, ValueError


_implementations: dict[str, Any] = {}
_OLDER = {"Ed25519": "EdDSA", "Ed448": "EdDSA"}
