"""The layer `api_key`: whose keys are known, where they stand, and where they don't go."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.errors import StartError
from gateway.middleware.api_key import ApiKey
from gateway.middleware.identity import watched
from tests.middleware.rereading import read_again
from tests.middleware.rig import Answer, Layers

KEY = b"5f0c6e9d2b7a4e81"
MISSING, UNKNOWN = (401, "api_key_missing"), (401, "api_key_unknown")


def digest(key: bytes) -> str:
    return sha256(key).hexdigest()


def known(key: bytes = KEY, name: str = "ci") -> dict[str, str]:
    return {"name": name, "sha256": digest(key)}


def refusal(asked: Answer) -> tuple[int, str]:
    assert not asked.passed and asked.exchange.user == ""
    assert asked.challenge == 'ApiKey realm="api"'
    return asked.status, asked.reason


def test_a_key_in_a_field() -> None:
    layer = Layers.of(ApiKey, header="X-API-Key", keys=[known(), known(b"old", "ops"), known(b"new", "ops")])
    for key, name in ((KEY, "ci"), (b"old", "ops"), (b"new", "ops")):
        asked = layer.asked(b"x-aPI-key: " + key, b"x-other: 1")
        assert asked.passed and asked.exchange.user == name
        assert asked.told(b"x-api-key") == [] and asked.told(b"x-other") == [b"1"]
    for line in (b"x: y", b"x-api-key:", b"x-api-key:  "):
        assert refusal(layer.asked(line)) == MISSING
    for key in (KEY.upper(), KEY + b"x", KEY[:-1], digest(KEY).encode(), b"ci", b"\xff", KEY + b", " + KEY):
        assert refusal(layer.asked(b"x-api-key: " + key)) == UNKNOWN
    assert refusal(layer.asked(b"x-api-key: " + KEY, b"X-Api-Key: " + KEY)) == UNKNOWN
    assert layer.refused() == 11
    forwarding = Layers.of(ApiKey, header="x-api-key", keys=[known()], forward=True)
    assert forwarding.asked(b"x-api-key: " + KEY).told(b"x-api-key") == [KEY]


def test_a_key_in_the_query() -> None:
    layer = Layers.of(ApiKey, query="api-key", keys=[known(), known(b"a b&c", "ops")])
    for target, left in (
        (b"/x?api-key=" + KEY, b"/x"),
        (b"/x?a=1&api-key=" + KEY + b"&b=%20", b"/x?a=1&b=%20"),
        (b"/x?%61pi-key=" + KEY + b"&api-key=" + KEY, b"/x"),
        (b"/x?a&api-key=" + KEY, b"/x?a"),
        (b"/x?api-key=a+b%26c&a==&", b"/x?a==&"),
    ):
        asked = layer.asked(target=target)
        assert asked.passed, target
        assert asked.head.target == left
        assert asked.head.lines.startswith(b"GET " + left + b" HTTP/1.1")
    assert refusal(layer.asked(target=b"/x")) == MISSING
    assert refusal(layer.asked(target=b"/x?api-key")) == MISSING
    assert refusal(layer.asked(target=b"/x?API-KEY=" + KEY)) == MISSING
    assert refusal(layer.asked(target=b"/x?api-key=" + KEY + b"&api-key=x")) == UNKNOWN
    forwarding = Layers.of(ApiKey, query="k", keys=[known()], forward=True)
    asked = forwarding.asked(target=b"/x?k=" + KEY)
    assert asked.head.target == b"/x?k=" + KEY


def test_a_key_in_a_cookie() -> None:
    layer = Layers.of(ApiKey, cookie="key", keys=[known()])
    asked = layer.asked(b"Cookie: key=" + KEY)
    assert asked.passed and asked.told(b"cookie") == []
    for lines in (
        (b"Cookie: a=b; key=" + KEY + b"; c=d",),
        (b'Cookie: a=b;key="' + KEY + b'";c=d',),
        (b"Cookie: a=b; key=" + KEY, b"cookie: c=d;key=" + KEY),
    ):
        asked = layer.asked(*lines)
        assert asked.passed and asked.told(b"cookie") == [b"a=b; c=d"], lines
    assert refusal(layer.asked(b"cookie: xkey=" + KEY)) == MISSING
    assert refusal(layer.asked(b"cookie: KEY=" + KEY)) == MISSING
    assert refusal(layer.asked(b"cookie: key=" + KEY + b"; key=x")) == UNKNOWN
    assert refusal(layer.asked(b"cookie: key=" + KEY, b"cookie: key=x")) == UNKNOWN
    forwarding = Layers.of(ApiKey, cookie="key", keys=[known()], forward=True)
    assert forwarding.asked(b"cookie: key=" + KEY).told(b"cookie") == [b"key=" + KEY]


def test_the_name_of_the_key() -> None:
    layer = Layers.of(ApiKey, header="x-api-key", keys=[known()], name_header="X-Client", realm="é")
    asked = layer.asked(b"x-api-key: " + KEY, b"x-client: root", b"X-Client: root")
    assert asked.told(b"x-client") == [b"ci"]
    assert layer.asked(b"x-client: root").challenge == 'ApiKey realm="é"'


def test_a_file_of_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(watched, "LOOK", 0.0)
    path = tmp_path / "keys"
    path.write_text(f"# keys\nops:{digest(b'one')}\n\nops: {digest(b'two').upper()}\n")
    layer = Layers.of(ApiKey, header="x-api-key", keys=[known()], keys_file=str(path))
    for key, name in ((KEY, "ci"), (b"one", "ops"), (b"two", "ops")):
        assert layer.asked(b"x-api-key: " + key).exchange.user == name

    def write(text: str) -> None:
        path.write_text(text)
        asyncio.run(read_again(layer.layers[0]._file))

    write(f"new:{digest(b'three')}\n")
    assert layer.asked(b"x-api-key: three").exchange.user == "new"
    assert layer.asked(b"x-api-key: " + KEY).passed
    assert refusal(layer.asked(b"x-api-key: one")) == UNKNOWN
    for bad in (f"new:{digest(b'one')}\nbad:three\n", f"other:{digest(KEY)}\n", "x"):
        write(bad)
        assert layer.asked(b"x-api-key: three").passed
    assert 'line 2, key "bad": expected the SHA-256' in caplog.text
    assert 'line 1, key "other": "ci" has the same key' in caplog.text
    write("")  # all of them are taken back
    assert refusal(layer.asked(b"x-api-key: three")) == UNKNOWN
    path.write_text("x:y\n")
    with pytest.raises(StartError, match=str(path)):
        Layers.of(ApiKey, header="x-api-key", keys_file=str(path))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "exactly one of header, query and cookie"),
        ({"header": "x", "cookie": "y", "keys": [known()]}, "exactly one of header, query and cookie"),
        ({"header": "x"}, "expected keys or keys_file"),
        ({"header": "x", "keys": [{"name": "a", "sha256": "my own key"}]}, "64 hexadecimal digits"),
        ({"header": "x", "keys": [{"name": "a", "sha256": digest(b"")}]}, "of no text at all"),
        ({"header": "x", "keys": [known(), known(name="other")]}, '"ci" and "other" have the same key'),
        ({"header": "x", "name_header": "X", "keys": [known()]}, "same field"),
        ({"header": "x", "name_header": "host", "keys": [known()]}, "means something else to everybody"),
    ],
)
def test_options_that_are_no_good(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ApiKey.OPTIONS.model_validate(options)
