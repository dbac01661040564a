"""Which keys of a set are used, for what, and whose signatures are theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from gateway.middleware.identity.jose import read
from gateway.middleware.identity.keyset import KeySet, key_set, secret_set
from tests.middleware.tokens import (
    ALGORITHMS,
    CURVES,
    SECRET,
    algorithm,
    b64,
    key_document,
    kid_of,
    oct_jwk,
    private_key,
    public_jwk,
    signature,
    token,
)

EVERY = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448")
HMAC = ("HS256", "HS384", "HS512")
SIGNED = b"header.payload"


def keys_of(*jwks: Any, wanted: tuple[str, ...] = EVERY + HMAC) -> KeySet:
    return key_set(key_document(*jwks), wanted)


def named(alg: str) -> str:
    return "EdDSA" if alg == "Ed448" else alg


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_of_each_algorithm(alg: str) -> None:
    keys = keys_of(public_jwk(alg), public_jwk(alg, 1))
    assert not keys.faults
    [key] = keys.fitting(named(alg), kid_of(alg))
    [other] = keys.fitting(named(alg), kid_of(alg, 1))
    good = signature(alg, SIGNED)
    assert key.verifies(named(alg), SIGNED, good)
    assert not other.verifies(named(alg), SIGNED, good)
    assert not key.verifies(named(alg), SIGNED + b"x", good)
    for bad in (b"", good[:-1], good + b"\0", b"\0" + good, b"\0" * len(good), b"\xff" * len(good), good[::-1]):
        assert not key.verifies(named(alg), SIGNED, bad), bad
    for at in range(0, len(good), 7):
        assert not key.verifies(named(alg), SIGNED, good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])


@pytest.mark.parametrize("alg", CURVES)
def test_ecdsa_without_a_secret(alg: str) -> None:
    """CVE-2022-21449 and its like: numbers that make the equation true for everybody."""
    [key] = keys_of(public_jwk(alg)).fitting(alg, None)
    size = len(signature(alg, SIGNED)) // 2
    order = {"ES256": "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"}.get(alg, "ff" * size)
    special = [bytes(size), (1).to_bytes(size), bytes.fromhex(order), b"\xff" * size]
    for r in special:
        for s in special:
            assert not key.verifies(alg, SIGNED, r + s)


@pytest.mark.parametrize("alg", CURVES)
def test_ecdsa_as_certificates_have_it(alg: str) -> None:
    """DER is how OpenSSL writes it, and not how a JWS does (RFC 7518, section 3.4)."""
    from cryptography.hazmat.primitives.asymmetric import ec

    der = private_key(alg).sign(SIGNED, ec.ECDSA(algorithm(alg).hash_alg()))
    assert decode_dss_signature(der)
    [key] = keys_of(public_jwk(alg)).fitting(alg, None)
    assert not key.verifies(alg, SIGNED, der)


def test_what_a_key_is_for() -> None:
    keys = keys_of(public_jwk("RS256"), public_jwk("ES384"), public_jwk("EdDSA"))
    fitting = {alg: [key.kid for key in keys.fitting(alg, None)] for alg in EVERY + HMAC}
    assert {alg: kids for alg, kids in fitting.items() if kids} == {
        **{alg: ["RS256-0"] for alg in ALGORITHMS[:6]},
        "ES384": ["ES384-0"],
        "EdDSA": ["EdDSA-0"],
        "Ed25519": ["EdDSA-0"],
    }
    assert keys.fitting("ES256", "ES384-0") == []
    bound = keys_of(public_jwk("RS256", alg="PS256"))
    assert [alg for alg in EVERY if bound.fitting(alg, None)] == ["PS256"]
    assert [alg for alg in EVERY if keys_of(public_jwk("RS256"), wanted=("RS512",)).fitting(alg, None)] == ["RS512"]


def test_a_public_key_is_nobodys_secret() -> None:
    """The oldest trick: HS256 with the text of the RSA key as the secret."""
    keys = keys_of(public_jwk("RS256"))
    for alg in HMAC:
        assert keys.fitting(alg, None) == keys.fitting(alg, "RS256-0") == []


@pytest.mark.parametrize(
    "members",
    [{"use": "enc"}, {"use": None, "key_ops": ["encrypt"]}, {"key_ops": []}, {"use": "sig", "key_ops": ["sign"]}],
)
def test_keys_for_something_else(members: dict[str, Any]) -> None:
    """They are not even a fault."""
    keys = keys_of(public_jwk("ES256", **members), public_jwk("ES256", 1))
    assert (keys.faults, len(keys)) == ((), 1)
    assert keys.fitting("ES256", "ES256-0") == []
    assert len(keys_of(public_jwk("ES256", use="sig", key_ops=["verify", "sign"]))) == 1


PRIVATE = {"d": b64(b"1" * 32).decode()}


@pytest.mark.parametrize(
    ("jwk", "fault"),
    [
        (1, "not an object"),
        ({}, "kty is not known"),
        ({"kty": "xyz", "kid": "a"}, "kty is not known"),
        ({"kty": ["RSA"]}, "kty is not known"),
        (public_jwk("ES256", **PRIVATE), "private key"),
        (public_jwk("RS256", **PRIVATE), "private key"),
        (public_jwk("EdDSA", **PRIVATE), "private key"),
        (public_jwk("ES256", kid=1), "kid is not a string"),
        (public_jwk("ES256", alg="ES384"), "alg does not fit"),
        (public_jwk("ES256", alg="RS256"), "alg does not fit"),
        (public_jwk("ES256", alg=["ES256"]), "alg does not fit"),
        (public_jwk("RS256", alg="HS256"), "alg does not fit"),
        (public_jwk("RS256", alg="none"), "alg does not fit"),
        (public_jwk("ES256", key_ops="verify"), "key_ops is not an array"),
        (public_jwk("ES256", crv="P-384"), "its x does not have 48 bytes"),
        (public_jwk("ES256", crv="secp256k1"), "crv is not known"),
        (public_jwk("ES256", crv="Ed25519"), "crv is not known"),
        (public_jwk("ES256", crv=None), "crv is not known"),
        (public_jwk("ES256", crv=["P-256"]), "crv is not known"),
        (public_jwk("ES256", x=b64(b"\1" * 32).decode()), "malformed"),  # not on the curve
        (public_jwk("ES256", x=b64(bytes(32)).decode(), y=b64(bytes(32)).decode()), "malformed"),
        (public_jwk("ES256", y=None), "its y is not base64url"),
        (public_jwk("ES256", x="AB=="), "its x is not base64url"),
        (public_jwk("ES256", x=7), "its x is not base64url"),
        (public_jwk("ES256", x="ä"), "its x is not base64url"),
        (public_jwk("EdDSA", x=b64(b"1" * 31).decode()), "its x does not have 32 bytes"),
        (public_jwk("RS256", n=None), "its n is not base64url"),
        (public_jwk("RS256", n=b64(b"\xff" * 255).decode()), "2040 bits"),
        (public_jwk("RS256", n=b64(b"\0\0" + b"\xff" * 128).decode()), "1024 bits"),
        (public_jwk("RS256", n=b64(b"\xff" * 2049).decode()), "16392 bits"),
        (public_jwk("RS256", n=b64(b"\xff" * 255 + b"\xfe").decode()), "modulus is even"),
        (public_jwk("RS256", e=b64(b"\1").decode()), "exponent"),
        (public_jwk("RS256", e=b64(b"\0").decode()), "exponent"),
        (public_jwk("RS256", e=""), "exponent"),
        (public_jwk("RS256", e=b64(b"\2").decode()), "exponent"),
        (public_jwk("RS256", e=b64(b"\xff" * 9).decode()), "exponent"),
        (oct_jwk(b"1" * 31), "it has 31 bytes"),
        (oct_jwk(b"1" * 40, alg="HS384"), "it has 40 bytes"),
        (oct_jwk(b""), "it has 0 bytes"),
        ({"kty": "oct"}, "its k is not base64url"),
    ],
)
def test_keys_that_are_no_good(jwk: Any, fault: str) -> None:
    """They are named, and the others go on."""
    keys = keys_of(jwk, public_jwk("ES256", 1))
    [told] = keys.faults
    assert fault in told
    kid = jwk.get("kid") if isinstance(jwk, dict) else None
    assert (repr(kid) if isinstance(kid, str) else "key 1 of the set") in told
    assert [key.kid for key in keys.fitting("ES256", None)] == ["ES256-1"]
    assert not keys.fitting("ES256", "ES256-0")


@pytest.mark.parametrize("bits", [1024, 2047])
def test_a_short_rsa_key_that_exists(bits: int) -> None:
    numbers = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64(numbers.n.to_bytes(256)).decode(), "e": "AQAB", "kid": "weak"}
    assert f"key 'weak' is not used: it has {bits} bits" in keys_of(jwk).faults[0]


def test_a_shared_key_is_for_the_hashes_that_it_is_long_enough_for() -> None:
    keys = keys_of(oct_jwk(b"1" * 50))
    assert [alg for alg in HMAC if keys.fitting(alg, None)] == ["HS256", "HS384"]
    assert not keys.faults
    with pytest.raises(ValueError, match="at least 64 bytes, this one has 50"):
        secret_set("1" * 50, HMAC)
    [key] = secret_set(SECRET, ("HS512",)).fitting("HS512", "whatever")
    assert key.verifies("HS512", SIGNED, signature("HS512", SIGNED))


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}', b"\xff", b"<html>"])
def test_not_a_set(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"not (JSON|a JWK Set)"):
        key_set(document, EVERY)


MEMBERS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "kty": st.sampled_from(["RSA", "EC", "OKP", "oct", "x", None, 1, []]),
        "crv": st.sampled_from(["P-256", "P-384", "Ed25519", "Ed448", "x", None, 1, {}]),
        "alg": st.sampled_from(["RS256", "ES256", "EdDSA", "HS256", "none", None, 1, []]),
        "use": st.sampled_from(["sig", "enc", None, 1, []]),
        "key_ops": st.sampled_from([["verify"], [], ["sign"], [1], "verify", None, {}]),
        "kid": st.one_of(st.text(max_size=5), st.none(), st.integers()),
        **{
            name: st.one_of(
                st.sampled_from(["", "AQAB", b64(b"\xff" * 256).decode(), b64(b"\1" * 32).decode(), None, 1, []]),
                st.text(max_size=5),
            )
            for name in ("n", "e", "x", "y", "k", "d")
        },
    },
)


@given(st.lists(MEMBERS, max_size=3))
def test_members_of_any_kind(jwks: list[Any]) -> None:
    keys = keys_of(*jwks)
    assert len(keys) <= len(jwks)
    for alg in EVERY + HMAC:
        for key in keys.fitting(alg, None):
            assert not key.verifies(alg, SIGNED, b"")
            assert not key.verifies(alg, SIGNED, b"\0" * 64)


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=600))
def test_any_bytes_as_a_signature(alg: str, data: bytes) -> None:
    [key] = keys_of(public_jwk(alg)).fitting(named(alg), None)
    assert not key.verifies(named(alg), SIGNED, data)


def test_an_empty_set() -> None:
    assert (len(keys_of()), keys_of().is_empty) == (0, True)
    assert (len(keys_of({"kty": "xyz"})), keys_of({"kty": "xyz"}).is_empty) == (0, False)


def test_two_keys_of_one_name() -> None:
    """RFC 7517, section 4.5, asks for different ones, and not everybody listens."""
    keys = keys_of(public_jwk("ES256", kid="a"), public_jwk("ES256", 1, kid="a"), public_jwk("RS256", kid="a"))
    assert [len(keys.fitting(alg, "a")) for alg in ("ES256", "RS256", "ES384")] == [2, 1, 0]
    twice = keys_of(public_jwk("ES256"), public_jwk("ES256"))
    assert len(twice) == 1


def test_tokens_and_keys_without_names() -> None:
    named_ones = [public_jwk("ES256", number) for number in range(6)]
    keys = keys_of(*named_ones)
    assert len(keys.fitting("ES256", None)) == 4  # no token makes us try a hundred keys
    assert keys.fitting("ES256", "other") == []
    keys = keys_of(public_jwk("ES256", kid=None), named_ones[1])
    assert [key.kid for key in keys.fitting("ES256", "other")] == [None]
    assert [key.kid for key in keys.fitting("ES256", "ES256-1")] == ["ES256-1"]
    assert [key.kid for key in keys.fitting("ES256", None)] == [None, "ES256-1"]


def test_a_set_is_read_so_far() -> None:
    keys = keys_of(*({"kty": "xyz"} for _ in range(100)), public_jwk("ES256"))
    assert len(keys.faults) == 101
    assert "only the first 100" in keys.faults[-1]


def test_identities_tell_changes() -> None:
    one, two = keys_of(public_jwk("ES256")), keys_of(public_jwk("ES256", alg="ES256"))
    assert one.identities == keys_of(json.loads(json.dumps(public_jwk("ES256")))).identities
    assert one.identities.isdisjoint(two.identities)


def test_a_token_of_a_library() -> None:
    for alg in ALGORITHMS:
        parts = read(token(alg))
        [key] = keys_of(public_jwk(alg)).fitting(parts.alg, parts.kid)
        assert key.verifies(parts.alg, parts.signed, parts.signature)
