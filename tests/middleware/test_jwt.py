"""The layer `jwt`: who passes, what they bring along, and what everybody else is told."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.errors import StartError
from gateway.middleware import issuer_keys as keys_module
from gateway.middleware import watched
from gateway.middleware.jose import decode64
from gateway.middleware.jwt import Jwt
from tests.middleware.issuer import (
    ALGORITHMS,
    SECRET,
    b64,
    claims,
    key_document,
    oct_jwk,
    private_key,
    public_jwk,
    raw_token,
    signature,
    token,
)
from tests.middleware.lone import Asked, Lone

BOUND: dict[str, Any] = {"algorithms": ["ES256"], "issuer": "https://id.example", "audience": "api"}


def bearer(written: bytes) -> bytes:
    return b"Authorization: Bearer " + written


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_document(public_jwk("ES256"), public_jwk("RS256"), public_jwk("ES384")))
    return path


def asking(layer: Lone, *lines: bytes, target: bytes = b"/") -> Asked:
    return asyncio.run(layer.ask(*lines, target=target))


def told(asked: Asked) -> tuple[int, str, str]:
    """How a request was refused: status, reason, and the sentence in the challenge."""
    assert not asked.passed
    return asked.status, asked.reason, asked.challenge.partition('error_description="')[2].removesuffix('"')


def invalid(asked: Asked) -> str:
    """The sentence with which a token was refused as an invalid one."""
    status, reason, said = told(asked)
    assert (status, reason) == (401, "token_invalid")
    assert 'error="invalid_token"' in asked.challenge
    return said


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


# Who doesn't.


def signed(payload: bytes, alg: str = "ES256") -> bytes:
    return raw_token(json.dumps({"alg": alg, "kid": f"{alg}-0"}).encode(), payload, alg)


def with_header(number: int = 0, /, **header: Any) -> bytes:
    return token("ES256", number, header=header)


SIGNATURE = "The signature of the token can not be verified"
ALGORITHM = "The algorithm of the token is not accepted"
HEADER = "The token has a header parameter that is not accepted"
MALFORMED = "The token is malformed"


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
        assert asked.passed and asked.target == asked.exchange.target == b"/x?a=1&b=2"
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
    assert asked.exchange.target == b"/"


def test_a_bad_token_in_the_query_is_in_no_log(jwks: Path) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND, sources=["query:t"])
    asked = asking(layer, target=b"/?%74=" + token(aud="other") + b"&x=1")
    assert invalid(asked) == "The token is meant for somebody else"
    assert asked.exchange.target == b"/?x=1"


# Keys that change.


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "LOOK", 0.0)


def replace(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


@pytest.mark.usefixtures("soon")
def test_a_file_that_changes(jwks: Path, caplog: pytest.LogCaptureFixture) -> None:
    layer = Lone(Jwt, jwks=str(jwks), **BOUND)
    old, new = bearer(token()), bearer(token("ES256", 1))
    assert asking(layer, old).passed and not asking(layer, new).passed
    replace(jwks, key_document(public_jwk("ES256"), public_jwk("ES256", 1)))
    assert asking(layer, old).passed and asking(layer, new).passed
    replace(jwks, key_document(public_jwk("ES256", 1), {"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB"}))
    assert invalid(asking(layer, old)) == SIGNATURE  # though it was remembered
    assert asking(layer, new).passed
    assert "key 'weak' is not used: it has 17 bits, and an RSA key at least 2048" in caplog.text
    for bad in (b"", b"{", key_document({"kty": "xyz"})):
        caplog.clear()
        replace(jwks, bad)
        assert asking(layer, new).passed
        assert asking(layer, new).passed
        errors = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert len(errors) == 1 and "stays in use" in errors[0].message
    jwks.unlink()
    assert asking(layer, new).passed
    replace(jwks, key_document())  # the issuer says: nobody
    assert not asking(layer, new).passed


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", key_document(), key_document({"kty": "xyz"}), None])
def test_a_file_that_is_no_good(tmp_path: Path, document: bytes | None) -> None:
    path = tmp_path / "jwks.json"
    if document is not None:
        path.write_bytes(document)
    with pytest.raises(StartError, match=str(path)):
        Lone(Jwt, jwks=str(path), **BOUND)


class Published:
    """A document that the observer fetches. answers: what comes of each refresh; None for one that never ends."""

    URL = "https://id.example/jwks.json"

    def __init__(self, body: bytes | None = None) -> None:
        self.version = 0
        self.document: Any = None
        self.refreshes = 0
        self.next: bytes | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        if body is not None:
            self.publish(body)

    def publish(self, body: bytes) -> None:
        self.version += 1
        self.document = SimpleNamespace(body=body, version=self.version)

    def get(self, url: str) -> Any:
        assert url == self.URL
        return self.document

    async def refresh(self, url: str, within: float) -> None:
        assert url == self.URL
        self.refreshes += 1
        await self.gate.wait()
        if self.next is not None:
            self.publish(self.next)


def published(documents: Published, **more: Any) -> Lone:
    return Lone(Jwt, documents, jwks=Published.URL, **BOUND, **more)


def run(test: Any) -> None:
    asyncio.run(test)


def test_keys_that_are_fetched() -> None:
    async def test() -> None:
        documents = Published(key_document(public_jwk("ES256")))
        layer = published(documents)
        assert (await layer.ask(bearer(token()))).passed
        assert documents.refreshes == 0

    run(test())


def test_no_keys_yet() -> None:
    async def test() -> None:
        documents = Published()
        layer = published(documents)
        for _ in range(3):
            asked = await layer.ask(bearer(token()))
            assert (asked.status, asked.reason) == (503, "keys_unavailable")
        assert documents.refreshes == 1
        assert (await layer.ask()).reason == "token_missing"
        documents.publish(key_document(public_jwk("ES256")))
        assert (await layer.ask(bearer(token()))).passed

    run(test())


def test_a_key_that_is_not_known() -> None:
    async def test() -> None:
        documents = Published(key_document(public_jwk("ES256")))
        documents.next = key_document(public_jwk("ES256"), public_jwk("ES256", 1))
        layer = published(documents)
        assert (await layer.ask(bearer(token()))).passed
        assert (await layer.ask(bearer(token("ES256", 1)))).passed
        for number in range(50):  # names that nobody has
            asked = await layer.ask(bearer(with_header(kid=f"made up {number}")))
            assert invalid(asked) == SIGNATURE
        assert documents.refreshes == 1

    run(test())


def test_one_refresh_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(keys_module, "_MOST_WAITING", 5)
        documents = Published(key_document(public_jwk("ES256")))
        documents.gate.clear()
        documents.next = key_document(public_jwk("ES256", 1))
        layer = published(documents)
        asks = [asyncio.ensure_future(layer.ask(bearer(token("ES256", 1)))) for _ in range(8)]
        for _ in range(10):
            await asyncio.sleep(0)
        done = [ask for ask in asks if ask.done()]
        assert len(done) == 3  # there was no room for them to wait
        assert all(ask.result().reason == "token_invalid" for ask in done)
        waiting = [ask for ask in asks if not ask.done()]
        waiting.pop().cancel()
        documents.gate.set()
        answers = await asyncio.gather(*waiting)
        assert [asked.passed for asked in answers] == [True] * 4
        assert documents.refreshes == 1
        await layer.layer.close()

    run(test())


def test_a_refresh_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(keys_module, "_WITHIN", 0.01)
        documents = Published(key_document(public_jwk("ES256")))
        documents.gate.clear()
        layer = published(documents)
        assert invalid(await layer.ask(bearer(token("ES256", 1)))) == SIGNATURE
        assert (await layer.ask(bearer(token()))).passed
        await layer.layer.close()

    run(test())


def test_what_an_issuer_publishes(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        documents = Published(b"<html>")
        layer = published(documents)
        assert (await layer.ask(bearer(token()))).reason == "keys_unavailable"
        documents.publish(key_document(public_jwk("ES256")))
        assert (await layer.ask(bearer(token()))).passed
        for bad in (b"<html>", b"", key_document({"kty": "xyz"}), b"{" * 2_000_000):
            documents.publish(bad)
            assert (await layer.ask(bearer(token()))).passed
        assert "the keys from before stay in use" in caplog.text
        documents.publish(key_document(public_jwk("ES256", 1)))
        assert invalid(await layer.ask(bearer(token()))) == SIGNATURE  # though it was remembered
        await layer.layer.close()

    run(test())


# Options.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "algorithms"),
        ({"algorithms": []}, "at least one"),
        ({"algorithms": ["none"], "jwks": "a"}, "algorithms"),
        ({"algorithms": ["ES256"]}, "exactly one of jwks and secret"),
        ({"algorithms": ["HS256"], "jwks": "a", "secret": SECRET}, "exactly one of jwks and secret"),
        ({"algorithms": ["HS256", "RS256"], "secret": SECRET}, "other algorithms need jwks"),
        ({"algorithms": ["HS256"], "secret": "short"}, "at least 32 bytes, this one has 5"),
        ({"algorithms": ["HS256"], "jwks": "https://id.example/jwks"}, "can't be had from an address"),
        ({"algorithms": ["ES256"], "jwks": "http://id.example/jwks"}, "https:// is needed"),
        ({"algorithms": ["ES256"], "jwks": "http://127.0.0.1.evil.example/"}, "a file|https:// is needed"),
        ({"algorithms": ["ES256"], "jwks": "a", "ca": "b"}, "ca goes with"),
        ({"algorithms": ["ES256"], "jwks": "a", "scopes": ["a b"]}, "not a scope"),
        ({"algorithms": ["ES256"], "jwks": "a", "sources": ["body:x"]}, "query:NAME"),
        ({"algorithms": ["ES256"], "jwks": "a", "sources": []}, "at least one"),
        ({"algorithms": ["ES256"], "jwks": "a", "claims_to_headers": {"sub": "host"}}, "can't be told in"),
        ({"algorithms": ["ES256"], "jwks": "a", "claims_to_headers": {"sub": "x_user"}}, "are dropped"),
        ({"algorithms": ["ES256"], "jwks": "a", "claims_to_headers": {"a": "x", "b": "X"}}, "twice"),
    ],
)
def test_options_that_are_no_good(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as caught:
        Jwt.OPTIONS.model_validate(options)
    assert SECRET not in str(caught.value).replace(f"input_value={options!r}", "")


def test_loopback_needs_no_tls() -> None:
    for url in ("http://localhost:8080/jwks", "http://127.0.0.1/jwks", "http://[::1]:1/jwks"):
        assert Jwt.OPTIONS.model_validate({"algorithms": ["ES256"], "jwks": url})


def test_shared_keys_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_document(oct_jwk(SECRET.encode(), "HS256-0"), public_jwk("ES256")))
    layer = Lone(Jwt, jwks=str(path), algorithms=["HS256", "ES256"], audience="api")
    assert asking(layer, bearer(token("HS256"))).passed
    assert asking(layer, bearer(token("ES256"))).passed
