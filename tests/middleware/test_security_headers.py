"""Fields that tell browsers what they must not do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.middleware.security_headers import NAMES, PRESETS, SecurityHeaders
from tests.listeners.site import get
from tests.middleware.rig import Answer, Inner, ask, layer
from tests.upstream.peer import live

OURS = {name.encode() for name in NAMES.values()}


def ours(answer: Answer) -> dict[str, str]:
    found = [(name.decode(), value.decode()) for name, value in answer.fields if name in OURS]
    assert len(dict(found)) == len(found)
    return dict(found)


async def sent(scheme: str = "https", fields: Any = b"", **options: Any) -> dict[str, str]:
    return ours(await ask(layer(SecurityHeaders, Inner(b"x", fields=fields), **options), get(), scheme=scheme))


@live
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("fields", [b"server: x", [(b"server", b"x")]])
async def test_presets(preset: str, fields: Any) -> None:
    wanted = {NAMES[key]: value for key, value in PRESETS[preset].items()}
    assert await sent(preset=preset, fields=fields) == wanted
    wanted.pop("strict-transport-security", None)
    assert await sent("http", preset=preset, fields=fields) == wanted


@live
async def test_single_fields_replace_what_the_preset_says() -> None:
    options = {"hsts": "max-age=1", "frame_options": "off", "csp": "default-src 'self'", "coep": "require-corp"}
    assert await sent(**options) == {
        "strict-transport-security": "max-age=1",
        "x-content-type-options": "nosniff",
        "referrer-policy": "strict-origin-when-cross-origin",
        "content-security-policy": "default-src 'self'",
        "cross-origin-embedder-policy": "require-corp",
    }
    assert await sent(preset="none", corp="same-site") == {"cross-origin-resource-policy": "same-site"}


@live
@pytest.mark.parametrize(
    "fields", [b"X-Frame-Options: DENY\r\nserver: x", [(b"X-Frame-Options", b"DENY"), (b"server", b"x")]]
)
async def test_a_field_that_is_there_already(fields: Any) -> None:
    for override, wanted in ((False, b"DENY"), (True, b"SAMEORIGIN")):
        one = layer(SecurityHeaders, Inner(b"x", fields=fields), override=override)
        answer = await ask(one, get())
        assert [value for name, value in answer.fields if name.lower() == b"x-frame-options"] == [wanted]
        assert answer[b"x-content-type-options"] == b"nosniff" and answer[b"server"] == b"x"


@live
async def test_what_is_no_final_answer() -> None:
    answer = await ask(layer(SecurityHeaders, Inner(b"x", interim=103)), get())
    assert answer.of("interim")[0]["headers"] == [] and b"x-content-type-options" in answer
    answer = await ask(layer(SecurityHeaders, Inner(status=101, fields=b"upgrade: websocket")), get())
    assert b"x-content-type-options" not in answer


@pytest.mark.parametrize(
    "options",
    [
        {"hsts": "max-age=soon"},
        {"hsts": "includeSubDomains"},
        {"hsts": "max-age=1; max-age=2"},
        {"hsts": "max-age=1; forever"},
        {"frame_options": "ALLOW-FROM https://a.example"},
        {"csp": "default-src 'self'\r\nset-cookie: a=b"},
        {"preset": "paranoid"},
    ],
)
def test_options_that_are_wrong(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        layer(SecurityHeaders, Inner(), **options)
