"""The layer `jwt`: who passes, what they bring along, and what everybody else is told."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.middleware.identity.jose import decode64
from gateway.middleware.jwt import Jwt
from tests.middleware.bearer import (
    ALGORITHM,
    BOUND,
    HEADER,
    MALFORMED,
    SIGNATURE,
    asking,
    bearer,
    invalid,
    signed,
    told,
    with_header,
)
from tests.middleware.issuer import (
    ALGORITHMS,
    SECRET,
    b64,
    claims,
    key_document,
    private_key,
    public_jwk,
    signature,
    token,
)
from tests.middleware.lone import Lone


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_document(public_jwk("ES256"), public_jwk("RS256"), public_jwk("ES384")))
    return path


# Who passes.


def test_a_good_token(jwks: Path) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND)
    for _ in range(3):  # the second and third are known
        asked = asking(layer, bearer(token()))
        assert asked.passed
        assert asked.exchange.user == "ann"
        assert asked.exchange.claims["iss"] == "https://id.example"
        assert asked.values(b"authorization") == [b"Bearer " + asked.values(b"authorization")[0][7:]]
    assert layer.cells == [0] * 8


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_algorithm(tmp_path: Path, alg: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_document(public_jwk(alg)))
    layer = Lone(Jwt, jwks=str(path), algorithms=["EdDSA" if alg == "Ed448" else alg], audience="api")
    assert asking(layer, bearer(token(alg))).passed
    assert invalid(asking(layer, bearer(token(alg)[:-4] + b"AAAA"))) == "The signature of the token can not be verified"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_secret(alg: str) -> None:
    layer = Lone(Jwt, secret=SECRET, algorithms=[alg], audience="api")
    assert asking(layer, bearer(token(alg))).passed
    assert asking(layer, bearer(token(alg, header={"kid": None}))).passed
    other = Lone(Jwt, secret=SECRET.upper(), algorithms=[alg], audience="api")
    assert invalid(asking(other, bearer(token(alg)))) == "The signature of the token can not be verified"


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"bEaReR    "])
def test_the_scheme(jwks: Path, scheme: bytes) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND)
    assert asking(layer, b"authorization: " + scheme + token()).passed


@pytest.mark.parametrize(
    "line", [b"x: y", b"authorization: Basic YTpi", b"authorization: Bearertoken", b"authorization:"]
)
def test_no_token(jwks: Path, line: bytes) -> None:
    """RFC 6750, section 3.1: no error code for who didn't even try."""
    layer = Lone(Jwt, jwks=str(jwks), realm='a "b"', **BOUND)
    asked = asking(layer, line)
    assert (asked.status, asked.reason) == (401, "token_missing")
    assert asked.challenge == 'Bearer realm="a \\"b\\""'
    optional = Lone(Jwt, jwks=str(jwks), optional=True, **BOUND)
    asked = asking(optional, line)
    assert asked.passed and asked.exchange.user == "" and asked.exchange.claims is None
    assert told(asking(optional, bearer(b"x")))[1] == "token_invalid"


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer",
        b"Bearer\t%b",
        b"bEARER,%b",
        b"Bearer, %b",
        b"Bearer=%b",
        b'Bearer"%b"',
        b"Bearer\xa0%b",
        b", Bearer %b",
        b",\t,Bearer\t%b",
        b"Basic YTpi, Bearer %b",
        b"Bearer %b, Bearer %b",
        b"Bearer %b Bearer",
        b"Bearer \t%b",
    ],
)
def test_what_might_be_a_token_to_somebody(jwks: Path, value: bytes) -> None:
    """It never passes as a request without one."""
    for more in ({}, {"forward": False}):
        layer = Lone(Jwt, jwks=str(jwks), optional=True, **BOUND, **more)
        for one in (token(), b"forged"):
            assert asking(layer, bearer(token())).passed
            assert invalid(asking(layer, b"authorization: " + value.replace(b"%b", one))) == MALFORMED


@pytest.mark.parametrize(
    "value", [b"Digest a=b, bearer=c", b'Digest realm="bearer x"', b"Bearertoken x", b"x Bearer y"]
)
def test_credentials_of_others(jwks: Path, value: bytes) -> None:
    assert asking(Lone(Jwt, jwks=str(jwks), optional=True, **BOUND), b"authorization: " + value).passed


# Who doesn't.


def hmac_with_the_public_key() -> bytes:
    """The text of an RSA key is public: whoever takes it for a secret believes everybody."""
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = private_key("RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = b64(b'{"alg":"HS256","kid":"RS256-0"}') + b"." + b64(json.dumps(claims()).encode())
    return signed + b"." + b64(hmac.digest(pem, signed, "sha256"))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        *(
            (b".".join((b64(json.dumps({"alg": alg}).encode()), b64(json.dumps(claims()).encode()), end)), said)
            for alg in ("none", "None", "NONE", "nOnE", "", "none ", "HS256")
            for end, said in ((b"", MALFORMED), (b"AA", ALGORITHM))
        ),
        (hmac_with_the_public_key(), ALGORITHM),
        (token("RS256"), ALGORITHM),  # a good one, of an algorithm that isn't wanted here
        (token("ES384"), ALGORITHM),
        (token("ES256", header={"alg": "es256"}), ALGORITHM),
        (token("ES256", 1), SIGNATURE),  # a key that nobody knows
        (with_header(1, kid="ES256-0"), SIGNATURE),  # and that says it were another one
        (with_header(1, kid=None), SIGNATURE),
        (with_header(kid="RS256-0"), SIGNATURE),  # the key is of another type
        (with_header(kid="ES384-0"), SIGNATURE),
        (with_header(kid="../../etc/passwd"), SIGNATURE),
        (with_header(kid="' or 1=1 --"), SIGNATURE),
        (with_header(jwk=public_jwk("ES256")), HEADER),
        (with_header(jku="https://id.example/jwks.json"), HEADER),
        (with_header(x5u="https://id.example/"), HEADER),
        (with_header(x5c=["MII"]), HEADER),
        (with_header(crit=["exp"]), HEADER),
        (with_header(crit=[]), HEADER),
        (with_header(b64=False, crit=["b64"]), HEADER),
        (with_header(b64=False), HEADER),
        (signed(b"[]"), MALFORMED),
        (signed(b"\xff"), MALFORMED),
        (signed(b""), MALFORMED),
        (signed(b'{"exp":9999999999,"exp":1}'), MALFORMED),
        (signed(b'{"exp":NaN}'), MALFORMED),
        (signed(b'{"exp":1e999}'), MALFORMED),
        (signed(b'{"exp":' + b"9" * 5000 + b"}"), MALFORMED),
        (signed(b'{"a":' * 1000 + b"1" + b"}" * 1000), MALFORMED),
        (token() + b"\t", None),
        (token() + b"," + token(), MALFORMED),
        (token() + b", Bearer " + token(), MALFORMED),
        (token() + b" " + token(), MALFORMED),
        (token() + b"=", MALFORMED),
        (token() + b".e30", MALFORMED),
        (b"", MALFORMED),
        (b"x" * 16384, MALFORMED),
        (b"x" * 16385, "The token is too long"),
        (token(exp=None), "The token does not expire"),
        (token(exp=True), "A time in the token is malformed"),
        (token(exp="9999999999"), "A time in the token is malformed"),
        (token(exp=10**30), "A time in the token is malformed"),
        (token(exp=-5), "A time in the token is malformed"),
        (token(nbf=9999999999), "The token is not valid yet"),
        (token(iat=9999999999), "The token was issued in the future"),
        (token(iss="https://evil.example"), "The issuer of the token is not accepted"),
        (token(iss=None), "The issuer of the token is not accepted"),
        (token(aud="other"), "The token is meant for somebody else"),
        (token(aud=None), "The token is meant for somebody else"),
    ],
)
def test_bad_tokens(jwks: Path, written: bytes, said: str | None) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND)
    asked = asking(layer, bearer(written))
    if said is None:
        assert asked.passed  # white space at the end of a field isn't part of it
        return
    assert invalid(asked) == said
    assert asked.challenge == f'Bearer realm="api", error="invalid_token", error_description="{said}"'
    assert asked.exchange.claims is None and asked.exchange.user == ""
    assert layer.cells[1] == 1


def test_an_rsa_signature_of_another_length(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_document(public_jwk("RS256")))
    layer = Lone(Jwt, jwks=str(path), algorithms=["RS256", "PS256"], audience="api")
    signed, _, written = token("RS256").rpartition(b".")
    good = decode64(written)
    for bad in (b"\0" * 256, b"\xff" * 256, good[:-1], good[1:], b"\0" + good, good + b"\0", good + good):
        assert invalid(asking(layer, bearer(signed + b"." + b64(bad)))) == SIGNATURE
    # PKCS #1 v1.5 in a token that says PSS.
    mixed = b64(b'{"alg":"PS256"}') + b"." + b64(json.dumps(claims()).encode())
    assert invalid(asking(layer, bearer(mixed + b"." + b64(signature("RS256", mixed))))) == SIGNATURE


def test_expired(jwks: Path) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND)
    assert told(asking(layer, bearer(token(exp=1000)))) == (401, "token_expired", "The token has expired")


def test_a_remembered_token_expires(jwks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND)
    written = bearer(token())
    assert asking(layer, written).passed
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert asking(layer, written).passed  # within the leeway
    monkeypatch.setattr(time, "time", lambda: now + 631)
    assert told(asking(layer, written))[1] == "token_expired"
    quick = Lone(Jwt, jwks=str(jwks), **BOUND, max_age="10s", leeway="1s")
    monkeypatch.setattr(time, "time", lambda: now + 1)
    assert asking(quick, written).passed
    monkeypatch.setattr(time, "time", lambda: now + 12)
    assert told(asking(quick, written))[2] == "The token is too old"


def test_scopes(jwks: Path) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND, scopes=["write", "read"])
    assert asking(layer, bearer(token(scope="read write x"))).passed
    assert asking(layer, bearer(token(scp=["read", "write"]))).passed
    for _ in range(2):
        asked = asking(layer, bearer(token(scope="read")))
        assert (asked.status, asked.reason) == (403, "scope_missing")
        assert asked.challenge == 'Bearer realm="api", error="insufficient_scope", scope="read write"'


def test_types_and_required_claims(jwks: Path) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND, types=["at+JWT"], required=["jti"])
    assert asking(layer, bearer(token(header={"typ": "application/at+jwt"}, jti="1"))).passed
    assert invalid(asking(layer, bearer(token(jti="1")))) == "The token is of another type"
    good = {"typ": "at+jwt"}
    assert invalid(asking(layer, bearer(token(header=good)))) == "The token lacks a claim that is required"


@given(data=st.data())
def test_a_token_with_a_change_anywhere(data: st.DataObject) -> None:
    layer = _kept()
    good = bytearray(_GOOD)
    at = data.draw(st.integers(0, len(good) - 1))
    good[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    if bytes(good) == _GOOD:
        return
    try:
        asked = asking(layer, bearer(bytes(good)))
    except Exception as error:
        # What can't stand in a field at all never comes this far; white space at its end goes.
        assert type(error).__name__ == "WireError"
        return
    assert not asked.passed or bytes(good).rstrip(b" \t").lstrip(b" ") == _GOOD
    assert asked.passed or asked.reason == "token_invalid"


_GOOD = token()
_LAYERS: list[Lone] = []


def _kept() -> Lone:
    if not _LAYERS:
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"jwks-{os.getpid()}.json"
        path.write_bytes(key_document(public_jwk("ES256")))
        _LAYERS.append(Lone(Jwt, jwks=str(path), **BOUND, cache=0))
        path.unlink()
    return _LAYERS[0]


# What the application is told.


def test_claims_in_fields(jwks: Path) -> None:
    layer = Lone(
        Jwt,
        jwks=str(jwks),
        **BOUND,
        claims_to_headers={"sub": "X-User", "realm.roles": "x-roles", "nothing": "x-nothing", "vip": "x-vip"},
        user_claim="email",
    )
    forged = (b"x-user: root", b"X-USER: root", b"x-nothing: 1", b"x-other: kept", b"x-roles: admin")
    for _ in range(2):
        asked = asking(
            layer, bearer(token(realm={"roles": ["a", "b"]}, vip=True, email="ann@id.example", exp=4e9)), *forged
        )
        assert asked.passed
        assert asked.values(b"x-user") == [b"ann"]
        assert asked.values(b"x-roles") == [b"a,b"]
        assert asked.values(b"x-nothing") == []
        assert asked.values(b"x-vip") == [b"true"]
        assert asked.values(b"x-other") == [b"kept"]
        assert asked.exchange.user == "ann@id.example"
    assert not asking(layer, *forged).passed
    optional = Lone(Jwt, jwks=str(jwks), **BOUND, claims_to_headers={"sub": "X-User"}, optional=True)
    assert asking(optional, *forged).values(b"x-user") == []
    for sub in ("a\r\nx-admin: 1", "a\n", " a", {"a": 1}):
        assert invalid(asking(layer, bearer(token(sub=sub)))) == "A claim of the token can not be passed on"


def test_claims_are_each_requests_own(jwks: Path) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND)
    written = bearer(token())
    asking(layer, written).exchange.claims.clear()
    assert asking(layer, written).exchange.claims["sub"] == "ann"
    asking(layer, written).exchange.claims.clear()
    assert asking(layer, written).exchange.claims["sub"] == "ann"


@pytest.mark.parametrize("forward", [True, False])
def test_where_a_token_stands(jwks: Path, forward: bool) -> None:
    sources = ["header:authorization", "header:X-Token", "cookie:session", "query:access_token"]
    layer = Lone(Jwt, jwks=str(jwks), **BOUND, sources=sources, forward=forward)
    one, two = token(), token(jti="2")
    for _ in range(2):
        asked = asking(layer, bearer(one))
        assert asked.passed and bool(asked.values(b"authorization")) is forward
        asked = asking(layer, b"x-token: " + one)
        assert asked.passed and bool(asked.values(b"x-token")) is forward
        asked = asking(layer, b"Cookie: a=b; session=" + one + b"; c=d")
        assert asked.passed
        assert asked.values(b"cookie") == [b"a=b; session=" + one + b"; c=d" if forward else b"a=b; c=d"]
        asked = asking(layer, target=b"/x?a=1&access_token=" + one + b"&b=2")
        assert asked.passed and asked.target == b"/x?a=1&b=2"
        assert asked.lines.partition(b"\r\n")[0] == b"GET /x?a=1&b=2 HTTP/1.1"
    assert asking(layer, bearer(one), b"x-token: " + one, target=b"/?access_token=" + one).passed
    for lines in (
        (bearer(one), b"x-token: " + two),
        (b"x-token: " + one, b"x-token: " + one),
        (b"cookie: session=" + one, b"cookie: session=" + two),
        (b"cookie: session=" + one + b"; session=" + two,),
        (bearer(one), b"cookie: session=x"),
    ):
        assert invalid(asking(layer, *lines)) == "The request has more than one token"
    asked = asking(layer, bearer(one), target=b"/?access_token=" + two)
    assert invalid(asked) == "The request has more than one token"
