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
from gateway.middleware.identity.keyset import _implementations
from gateway.middleware.jwt import Jwt
from gateway.testing import Gateway
from tests.middleware.bearer import (
    ALGORITHM,
    BOUND,
    HEADER,
    MALFORMED,
    SIGNATURE,
    bearer,
    invalid,
    signed,
    told,
    with_header,
)
from tests.middleware.plugin_files import layer as plug_in
from tests.middleware.plugin_files import play
from tests.middleware.rig import Layers
from tests.middleware.tokens import (
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

# Who passes.


def test_a_good_token(jwks: Path) -> None:
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND)
    for _ in range(3):  # the second and third are known
        asked = layer.asked(bearer(token()))
        assert asked.passed
        assert asked.exchange.user == "ann"
        assert asked.claims["iss"] == "https://id.example"
        assert asked.told(b"authorization") == [b"Bearer " + asked.told(b"authorization")[0][7:]]
    assert layer.refused() == 0


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_algorithm(tmp_path: Path, alg: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_document(public_jwk(alg)))
    layer = Layers.of(Jwt, jwks=str(path), algorithms=["EdDSA" if alg == "Ed448" else alg], audience="api")
    assert layer.asked(bearer(token(alg))).passed
    assert invalid(layer.asked(bearer(token(alg)[:-4] + b"AAAA"))) == "The signature of the token can not be verified"


@pytest.mark.parametrize("alg", ["HS256", "HS384", "HS512"])
def test_a_secret(alg: str) -> None:
    layer = Layers.of(Jwt, secret=SECRET, algorithms=[alg], audience="api")
    assert layer.asked(bearer(token(alg))).passed
    assert layer.asked(bearer(token(alg, header={"kid": None}))).passed
    other = Layers.of(Jwt, secret=SECRET.upper(), algorithms=[alg], audience="api")
    assert invalid(other.asked(bearer(token(alg)))) == "The signature of the token can not be verified"


@pytest.mark.parametrize("scheme", [b"Bearer ", b"bearer ", b"BEARER ", b"bEaReR    "])
def test_the_scheme(jwks: Path, scheme: bytes) -> None:
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND)
    assert layer.asked(b"authorization: " + scheme + token()).passed


@pytest.mark.parametrize(
    "line", [b"x: y", b"authorization: Basic YTpi", b"authorization: Bearertoken", b"authorization:"]
)
def test_no_token(jwks: Path, line: bytes) -> None:
    """RFC 6750, section 3.1: no error code for who didn't even try."""
    layer = Layers.of(Jwt, jwks=str(jwks), realm='a "b"', **BOUND)
    asked = layer.asked(line)
    assert (asked.status, asked.reason) == (401, "token_missing")
    assert asked.challenge == 'Bearer realm="a \\"b\\""'
    optional = Layers.of(Jwt, jwks=str(jwks), optional=True, **BOUND)
    asked = optional.asked(line)
    assert asked.passed and asked.exchange.user == "" and asked.exchange.claims is None
    assert told(optional.asked(bearer(b"x")))[1] == "token_invalid"


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
    for forward in (True, False):
        layer = Layers.of(Jwt, jwks=str(jwks), optional=True, forward=forward, **BOUND)
        for one in (token(), b"forged"):
            assert layer.asked(bearer(token())).passed
            assert invalid(layer.asked(b"authorization: " + value.replace(b"%b", one))) == MALFORMED


@pytest.mark.parametrize(
    "value", [b"Digest a=b, bearer=c", b'Digest realm="bearer x"', b"Bearertoken x", b"x Bearer y"]
)
def test_credentials_of_others(jwks: Path, value: bytes) -> None:
    assert Layers.of(Jwt, jwks=str(jwks), optional=True, **BOUND).asked(b"authorization: " + value).passed


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
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND)
    asked = layer.asked(bearer(written))
    if said is None:
        assert asked.passed  # white space at the end of a field isn't part of it
        return
    assert invalid(asked) == said
    assert asked.challenge == f'Bearer realm="api", error="invalid_token", error_description="{said}"'
    assert asked.exchange.claims is None and asked.exchange.user == ""
    assert layer.refused() == 1


def test_an_rsa_signature_of_another_length(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_document(public_jwk("RS256")))
    layer = Layers.of(Jwt, jwks=str(path), algorithms=["RS256", "PS256"], audience="api")
    signed, _, written = token("RS256").rpartition(b".")
    good = decode64(written)
    for bad in (b"\0" * 256, b"\xff" * 256, good[:-1], good[1:], b"\0" + good, good + b"\0", good + good):
        assert invalid(layer.asked(bearer(signed + b"." + b64(bad)))) == SIGNATURE
    # PKCS #1 v1.5 in a token that says PSS.
    mixed = b64(b'{"alg":"PS256"}') + b"." + b64(json.dumps(claims()).encode())
    assert invalid(layer.asked(bearer(mixed + b"." + b64(signature("RS256", mixed))))) == SIGNATURE


def test_expired(jwks: Path) -> None:
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND)
    assert told(layer.asked(bearer(token(exp=1000)))) == (401, "token_expired", "The token has expired")


def test_a_remembered_token_expires(jwks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND)
    now = time.time()
    written = bearer(token(exp=int(now) + 600))
    assert layer.asked(written).passed
    monkeypatch.setattr(time, "time", lambda: now + 601)
    assert layer.asked(written).passed  # within the leeway
    monkeypatch.setattr(time, "time", lambda: now + 631)
    assert told(layer.asked(written))[1] == "token_expired"
    quick = Layers.of(Jwt, jwks=str(jwks), **BOUND, max_age="10s", leeway="1s")
    monkeypatch.setattr(time, "time", lambda: now + 1)
    assert quick.asked(written).passed
    monkeypatch.setattr(time, "time", lambda: now + 12)
    assert told(quick.asked(written))[2] == "The token is too old"


def test_scopes(jwks: Path) -> None:
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND, scopes=["write", "read"])
    assert layer.asked(bearer(token(scope="read write x"))).passed
    assert layer.asked(bearer(token(scp=["read", "write"]))).passed
    for _ in range(2):
        asked = layer.asked(bearer(token(scope="read")))
        assert (asked.status, asked.reason) == (403, "scope_missing")
        assert asked.challenge == 'Bearer realm="api", error="insufficient_scope", scope="read write"'


def test_types_and_required_claims(jwks: Path) -> None:
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND, types=["at+JWT"], required=["jti"])
    assert layer.asked(bearer(token(header={"typ": "application/at+jwt"}, jti="1"))).passed
    assert invalid(layer.asked(bearer(token(jti="1")))) == "The token is of another type"
    good = {"typ": "at+jwt"}
    assert invalid(layer.asked(bearer(token(header=good)))) == "The token lacks a claim that is required"


@given(data=st.data())
def test_a_token_with_a_change_anywhere(data: st.DataObject) -> None:
    layer = _kept()
    good = bytearray(_GOOD)
    at = data.draw(st.integers(0, len(good) - 1))
    good[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    if bytes(good) == _GOOD:
        return
    try:
        asked = layer.asked(bearer(bytes(good)))
    except Exception as error:
        # What can't stand in a field at all never comes this far; white space at its end goes.
        assert type(error).__name__ == "WireError"
        return
    assert not asked.passed or bytes(good).rstrip(b" \t").lstrip(b" ") == _GOOD
    assert asked.passed or asked.reason == "token_invalid"


_GOOD = token()
_LAYERS: list[Layers] = []


def _kept() -> Layers:
    if not _LAYERS:
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"jwks-{os.getpid()}.json"
        path.write_bytes(key_document(public_jwk("ES256")))
        _LAYERS.append(Layers.of(Jwt, jwks=str(path), **BOUND, cache=0))
        path.unlink()
    return _LAYERS[0]


# What the application is told.


def test_claims_in_fields(jwks: Path) -> None:
    layer = Layers.of(
        Jwt,
        jwks=str(jwks),
        **BOUND,
        claims_to_headers={"sub": "X-User", "realm.roles": "x-roles", "nothing": "x-nothing", "vip": "x-vip"},
        user_claim="email",
    )
    forged = (b"x-user: root", b"X-USER: root", b"x-nothing: 1", b"x-other: kept", b"x-roles: admin")
    for _ in range(2):
        asked = layer.asked(
            bearer(token(realm={"roles": ["a", "b"]}, vip=True, email="ann@id.example", exp=4e9)), *forged
        )
        assert asked.passed
        assert asked.told(b"x-user") == [b"ann"]
        assert asked.told(b"x-roles") == [b"a,b"]
        assert asked.told(b"x-nothing") == []
        assert asked.told(b"x-vip") == [b"true"]
        assert asked.told(b"x-other") == [b"kept"]
        assert asked.exchange.user == "ann@id.example"
    assert not layer.asked(*forged).passed
    optional = Layers.of(Jwt, jwks=str(jwks), **BOUND, claims_to_headers={"sub": "X-User"}, optional=True)
    assert optional.asked(*forged).told(b"x-user") == []
    for sub in ("a\r\nx-admin: 1", "a\n", " a", {"a": 1}):
        assert invalid(layer.asked(bearer(token(sub=sub)))) == "A claim of the token can not be passed on"


def test_claims_are_each_requests_own(jwks: Path) -> None:
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND)
    written = bearer(token())
    for _ in range(2):  # the second and third time the token is known
        layer.asked(written).claims.clear()
        asked = layer.asked(written)
        assert asked.claims["sub"] == "ann" and asked.claims is asked.claims


def test_what_a_plug_in_makes_of_claims_is_believed_by_nobody(tmp_path: Path) -> None:
    code = """
    class Plug:
        async def rewrite_request(self, request):
            request.claims["sub"] = "root"
            request.claims["realm"]["admin"] = True
            request.claims["realm"]["groups"].append("admins")
    class Foreign:
        def __init__(self, app):
            self.app = app
        async def __call__(self, scope, receive, send):
            claims = scope["gateway"].claims
            claims["realm"]["admin"] = claims["realm"]["groups"][0] = True
            await self.app(scope, receive, send)
    """
    names = {"x-sub": "{jwt:sub}", "x-admin": "{jwt:realm.admin}", "x-groups": "{jwt:realm.groups}"}
    layers = [
        {"kind": "jwt", "secret": SECRET, "algorithms": ["HS256"], "audience": "api"},
        plug_in("hooks"),
        plug_in("asgi", "plug:Foreign"),
        {"kind": "headers", "request": {"set": names}},
    ]

    async def scene(gateway: Gateway) -> None:
        written = token("HS256", realm={"admin": False, "groups": ["users", "ops"]}).decode()
        for _ in range(3):
            assert (await gateway.get("/x", {"authorization": f"Bearer {written}"})).status == 200
            request = gateway.origin.requests[-1]
            assert [request[name] for name in names] == ["ann", "false", "users,ops"]

    play(tmp_path, code, scene, layers)


def test_a_library_that_fails_says_nothing_of_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        @staticmethod
        def verify(*_: object) -> bool:
            raise AttributeError("not the library that it was taken for")

    monkeypatch.setitem(_implementations, "HS256", Broken)

    async def scene(gateway: Gateway) -> None:
        response = await gateway.get("/x", {"authorization": "Bearer " + token("HS256").decode()})
        assert response.status == 500 and b"middleware_failed" in response.body

    play(tmp_path, "", scene, [{"kind": "jwt", "secret": SECRET, "algorithms": ["HS256"], "audience": "api"}])
    assert "layer jwt: it failed on b'/x'" in caplog.text and "not the library" in caplog.text


@pytest.mark.parametrize("forward", [True, False])
def test_where_a_token_stands(jwks: Path, forward: bool) -> None:
    sources = ["header:authorization", "header:X-Token", "cookie:session", "query:access_token"]
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND, sources=sources, forward=forward)
    one, two = token(), token(jti="2")
    for _ in range(2):
        asked = layer.asked(bearer(one))
        assert asked.passed and bool(asked.told(b"authorization")) is forward
        asked = layer.asked(b"x-token: " + one)
        assert asked.passed and bool(asked.told(b"x-token")) is forward
        asked = layer.asked(b"Cookie: a=b; session=" + one + b"; c=d")
        assert asked.passed
        assert asked.told(b"cookie") == [b"a=b; session=" + one + b"; c=d" if forward else b"a=b; c=d"]
        asked = layer.asked(target=b"/x?a=1&access_token=" + one + b"&b=2")
        assert asked.passed and asked.head.target == b"/x?a=1&b=2"
        assert asked.head.lines.partition(b"\r\n")[0] == b"GET /x?a=1&b=2 HTTP/1.1"
    assert layer.asked(bearer(one), b"x-token: " + one, target=b"/?access_token=" + one).passed
    for lines in (
        (bearer(one), b"x-token: " + two),
        (b"x-token: " + one, b"x-token: " + one),
        (b"cookie: session=" + one, b"cookie: session=" + two),
        (b"cookie: session=" + one + b"; session=" + two,),
        (bearer(one), b"cookie: session=x"),
    ):
        assert invalid(layer.asked(*lines)) == "The request has more than one token"
    asked = layer.asked(bearer(one), target=b"/?access_token=" + two)
    assert invalid(asked) == "The request has more than one token"
