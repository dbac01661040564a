"""The worked examples of plug-ins do what they say."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import testing
from gateway.errors import StartError
from gateway.worker.plugins import Plugins

PLUGINS = Path(__file__).parent.parent.parent / "conf" / "plugins"


def gateway(use: str, origin: testing.Origin | None = None, kind: str = "hooks", **options: Any) -> testing.Gateway:
    layer = {"kind": kind, "use": use, "options": options}
    return testing.Gateway(middleware=[layer], origin=origin, python_path=[PLUGINS])


def test_the_smallest_greets_both_sides() -> None:
    async def scene() -> None:
        async with gateway("my_hooks:Hooks", greeting="good day") as one:
            response = await one.get("/x")
            assert response.body == b"hello\n"
            assert response["x-greeting"] == "good day"
            assert one.origin.requests[0].all("x-greeting") == ["good day"]

    asyncio.run(scene())


def test_an_asgi_middleware_says_how_long_it_took() -> None:
    async def scene() -> None:
        origin = testing.Origin(testing.Answer(delay=0.02))
        async with gateway("my_middleware:Timing", origin, "asgi", header="X-Took") as one:
            took = (await one.get("/x"))["x-took"]
            assert float(took.removesuffix("ms")) >= 20

    asyncio.run(scene())


def test_tenants() -> None:
    async def scene() -> None:
        origin = testing.Origin(testing.Answer(body=b"hi"))
        async with gateway("tenants:Tenants", origin, prefixes={"acme": "/t/acme"}) as one:
            response = await one.get("/a%20b?c=%20", {"X-Tenant": "acme"})
            assert response.body == b"hi"
            assert origin.requests[0].target == "/t/acme/a%20b?c=%20"
            assert "x-tenant" not in origin.requests[0]

            response = await one.get("/")
            assert (response.status, response.body) == (400, b"x-tenant is missing\n")
            assert (await one.get("/", {"x-tenant": "nobody"})).status == 404
            assert len(origin.requests) == 1

    asyncio.run(scene())


def test_tenants_in_words_of_its_own() -> None:
    async def scene() -> None:
        def broken(request: testing.Recorded) -> testing.Answer:
            return testing.Answer(status=999, headers={"content-length": "no number"})

        async with gateway("tenants:Tenants", testing.Origin(broken), prefixes={"acme": ""}) as one:
            response = await one.get("/", {"x-tenant": "acme"})
            assert response.status == 502
            told = json.loads(response.body)
            assert told["tenant"] == "acme" and told["reason"] == "http_protocol_error"
            assert (await one.outcome()).reason == "http_protocol_error"

    asyncio.run(scene())


def test_the_options_of_tenants_are_checked() -> None:
    async def scene() -> None:
        async with gateway("tenants:Tenants", prefixes="none", heeder="x"):
            pass

    with pytest.raises(StartError) as raised:
        asyncio.run(scene())
    assert "options.heeder: there is no such option" in str(raised.value)
    assert "options.prefixes: Input should be a valid dictionary" in str(raised.value)


def test_signing(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("s3cret\n")

    async def scene() -> None:
        inside = {"server": "old/1.0", "x-powered-by": "coffee", "x-other": "stays"}
        answers = [
            testing.Answer(headers=inside, body=b"fine"),
            testing.Answer(500, inside, body=b"Traceback: " + b"x" * 200_000),
        ]
        origin = testing.Origin(answers)
        async with gateway("signing:Signing", origin, secret_file=str(secret)) as one:
            response = await one.get("/x?y", {"x-gateway-signature": "mine", "host": "a.example"})
            assert response.body == b"fine"
            assert "server" not in response and "x-powered-by" not in response and response["x-other"] == "stays"
            [signature] = origin.requests[0].all("x-gateway-signature")
            match = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", signature)
            assert match is not None
            text = f"{match[1]}\nGET\na.example\n/x?y".encode()
            assert match[2] == hmac.digest(b"s3cret", text, sha256).hex()

            response = await one.get("/x")
            assert (response.status, response.body) == (500, b"something went wrong\n")
            assert response["content-type"] == "text/plain" and "server" not in response

    asyncio.run(scene())


def test_signing_without_its_file_does_not_start() -> None:
    async def scene() -> None:
        async with gateway("signing:Signing", secret_file="/no/such/file"):
            pass

    with pytest.raises(StartError, match=r'hooks "signing:Signing": .*FileNotFoundError.*signing\.py:\d+'):
        asyncio.run(scene())


def test_masking_over_the_borders_of_chunks() -> None:
    async def scene() -> None:
        def answer(request: testing.Recorded) -> testing.Answer:
            kind = request.target.removeprefix("/").replace(".", "/")
            fields = {"content-type": kind, "etag": '"abc"'}
            if "x-coded" in request:
                fields["content-encoding"] = "br"
            return testing.Answer(headers=fields, body=[b'{"card": 4111', b"1111", b"11111111, ", b'"n": 123}'])

        async with gateway("masking:Masking", testing.Origin(answer)) as one:
            response = await one.get("/application.json", {"accept-encoding": "gzip"})
            assert response.body == b'{"card": ************1111, "n": 123}'
            assert response["etag"] == 'W/"abc"'
            assert "accept-encoding" not in one.origin.requests[0]
            assert b"4111" in (await one.get("/image.png")).body
            response = await one.get("/text.plain", {"x-coded": "1"})
            assert (response.status, response.body) == (502, b"the answer can't be checked\n")

    asyncio.run(scene())


@given(
    text=st.lists(st.sampled_from([b"1234567", b"0", b"99", b"a", b" ", b"12345678901234567890"]), max_size=12),
    cuts=st.lists(st.integers(0, 90), max_size=8),
    shown=st.integers(0, 4),
)
def test_masking_is_the_same_wherever_parts_begin(text: list[bytes], cuts: list[int], shown: int) -> None:
    whole = b"".join(text)
    masking = Plugins([PLUGINS])("masking:Masking")(least=6, shown=shown)

    state: dict[str, Any] = {}
    response = SimpleNamespace(request=SimpleNamespace(state=state))
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    made = b""
    for start, end in pairwise(places):
        if end > start:
            made += masking.transform_response_body(whole[start:end], response)
            assert len(state["held"]) < 6 + 1
    made += masking.transform_response_body(b"", response)
    assert made == re.sub(
        rb"[0-9]{6,}", lambda found: b"*" * (len(found[0]) - shown) + found[0][len(found[0]) - shown :], whole
    )
