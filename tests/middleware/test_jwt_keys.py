"""The layer `jwt`: keys that change, that are not there yet and that nobody has, and what its options may say."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.documents import Documents, Look
from gateway.errors import StartError
from gateway.middleware.identity import issuer_keys as keys_module
from gateway.middleware.jwt import Jwt
from tests.middleware.bearer import (
    BOUND,
    SIGNATURE,
    bearer,
    invalid,
    with_header,
)
from tests.middleware.rereading import read_again
from tests.middleware.rig import Layers
from tests.middleware.tokens import (
    SECRET,
    key_document,
    oct_jwk,
    public_jwk,
    token,
)

# Keys that change.


def replace(path: Path, data: bytes, layer: Layers) -> None:
    """Have a file replaced that a layer reads, and the layer know it."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)
    asyncio.run(read_again(layer.layers[0]._keys._file))


@pytest.mark.usefixtures("soon")
def test_a_file_that_changes(jwks: Path, caplog: pytest.LogCaptureFixture) -> None:
    layer = Layers.of(Jwt, jwks=str(jwks), **BOUND)
    old, new = bearer(token()), bearer(token("ES256", 1))
    assert layer.asked(old).passed and not layer.asked(new).passed
    replace(jwks, key_document(public_jwk("ES256"), public_jwk("ES256", 1)), layer)
    assert layer.asked(old).passed and layer.asked(new).passed
    replace(jwks, key_document(public_jwk("ES256", 1), {"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB"}), layer)
    assert invalid(layer.asked(old)) == SIGNATURE  # though it was remembered
    assert layer.asked(new).passed
    assert "key 'weak' is not used: it has 17 bits, and an RSA key at least 2048" in caplog.text
    for bad in (b"", b"{", key_document({"kty": "xyz"})):
        caplog.clear()
        replace(jwks, bad, layer)
        assert layer.asked(new).passed
        assert layer.asked(new).passed
        errors = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert len(errors) == 1 and "stays in use" in errors[0].message
    jwks.unlink()
    assert layer.asked(new).passed
    replace(jwks, key_document(), layer)  # the issuer says: nobody
    assert not layer.asked(new).passed


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", key_document(), key_document({"kty": "xyz"}), None])
def test_a_file_that_is_no_good(tmp_path: Path, document: bytes | None) -> None:
    path = tmp_path / "jwks.json"
    if document is not None:
        path.write_bytes(document)
    with pytest.raises(StartError, match=str(path)):
        Layers.of(Jwt, jwks=str(path), **BOUND)


class Published(Documents):
    """A document that is fetched. next: what comes of each refresh, if anything new does; while `gate` is not set none
    comes to its end."""

    URL = "https://id.example/jwks.json"

    def __init__(self, body: bytes | None = None) -> None:
        super().__init__()
        self.refreshes = 0
        self.next: bytes | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        if body is not None:
            self.publish(body)

    def publish(self, body: bytes) -> None:
        self.take(self.URL, Look(self.look(self.URL).version + 1), body)

    async def refresh(self, url: str, within: float) -> bool:
        assert url == self.URL
        self.refreshes += 1
        await self.gate.wait()
        if self.next is not None:
            self.publish(self.next)
        return True


def published(documents: Published, **more: Any) -> Layers:
    return Layers.of(Jwt, documents, jwks=Published.URL, **BOUND, **more)


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
        await layer.close()

    run(test())


def test_a_refresh_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(keys_module, "_WITHIN", 0.01)
        documents = Published(key_document(public_jwk("ES256")))
        documents.gate.clear()
        layer = published(documents)
        assert invalid(await layer.ask(bearer(token("ES256", 1)))) == SIGNATURE
        assert (await layer.ask(bearer(token()))).passed
        await layer.close()

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
        await layer.close()

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
        ({"algorithms": ["ES256"], "jwks": "a", "claims_to_headers": {"sub": "host"}}, "means something else"),
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
    layer = Layers.of(Jwt, jwks=str(path), algorithms=["HS256", "ES256"], audience="api")
    assert layer.asked(bearer(token("HS256"))).passed
    assert layer.asked(bearer(token("ES256"))).passed
