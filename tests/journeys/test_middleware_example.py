"""The example of middleware, taken as it is: each line of it does what it says, in real processes."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import bcrypt
import brotli
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.listeners.site import until
from tests.support import access_log
from tests.support.gateway_process import Gateway, Start
from tests.upstream.peer import Message, Origin, Peer, answering, dial, live, ok

EXAMPLE = Path(__file__).parents[3] / "shared/examples/middleware.toml"
PLUGINS = Path(__file__).parents[2] / "conf/plugins"
PAGE = b"<p>hello</p>" * 200


class Issuer:
    """Who signs tokens, and the set of keys that says so."""

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {
            "RS256": rsa.generate_private_key(65537, 2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }

    def jwks(self) -> str:
        keys = []
        for name, key in self._keys.items():
            as_jwk = jwt.get_algorithm_by_name(name).to_jwk(key.public_key(), as_dict=True)
            keys.append({**as_jwk, "kid": name, "use": "sig", "alg": name})
        return json.dumps({"keys": keys})

    def token(self, algorithm: str = "ES256", **claims: Any) -> str:
        told = {"iss": "https://id.example", "aud": "api", "sub": "alice", "exp": int(time.time()) + 600} | claims
        return jwt.encode(told, self._keys[algorithm], algorithm, {"kid": algorithm})


class Example:
    def __init__(self, gateway: Gateway, issuer: Issuer, seen: list[Message], env: dict[str, str]) -> None:
        self.gateway = gateway
        self.env = env
        self.issuer = issuer
        self.seen = seen
        self._port = int(gateway.address().rpartition(":")[2])

    async def ask(self, path: str, fields: str = "", method: str = "GET", body: bytes = b"") -> Message:
        client = await dial(self._port)
        length = f"content-length: {len(body)}\r\n" if body else ""
        await client.send(f"{method} {path} HTTP/1.1\r\nhost: a\r\n{fields}{length}\r\n".encode() + body)
        try:
            answer = await client.response(method.encode())
        finally:
            client.close()
        # What stands around all routes is on every answer, whoever made it.
        assert answer[b"x-frame-options"] == b"DENY" and b"server" not in answer
        assert len(answer[b"x-request-id"]) == 32
        return answer

    async def logged(self, answer: Message) -> dict[str, Any]:
        """The line of the access log that tells of this answer."""
        while True:
            for line in access_log.lines(self.gateway.folder / "stdout.txt"):
                if line["request_id"].encode() == answer[b"x-request-id"]:
                    return line
            await asyncio.sleep(0.05)

    async def statuses(self, *requests: tuple[str, str]) -> list[int]:
        return [(await self.ask(path, fields)).status for path, fields in requests]


async def ids_and_headers(example: Example) -> None:
    answer = await example.ask("/", "x-request-id: mine-mine-mine\r\n")
    assert answer.status == 200 and answer.body == PAGE
    asked = example.seen[-1]
    assert asked[b"x-request-id"] == answer[b"x-request-id"] != b"mine-mine-mine"
    assert asked[b"traceparent"].startswith(b"00-")
    line = await example.logged(answer)
    assert line["trace"].encode() == asked[b"traceparent"].split(b"-")[1]


async def tokens(example: Example) -> None:
    token = example.issuer.token
    for algorithm in ("RS256", "ES256", "EdDSA"):
        fields = f"authorization: Bearer {token(algorithm)}\r\nx-user: mallory\r\n"
        for _ in range(2):  # verified, then remembered
            assert (await example.ask("/jwt", fields)).status == 200
            assert example.seen[-1][b"x-user"] == b"alice"
    before = len(example.seen)
    bad = [
        "",
        f"authorization: Bearer {token(exp=int(time.time()) - 3600)}\r\n",
        f"authorization: Bearer {token(aud='other')}\r\n",
        f"authorization: Bearer {token(iss='https://evil.example')}\r\n",
        f"authorization: Bearer {jwt.encode({'sub': 'eve'}, 'x' * 32, 'HS256')}\r\n",
        f"authorization: Bearer {token()[:-4]}AAAA\r\n",
    ]
    for fields in bad:
        answer = await example.ask("/jwt", fields)
        assert answer.status == 401 and answer[b"www-authenticate"].startswith(b"Bearer")
    assert len(example.seen) == before


async def passwords(example: Example) -> None:
    def basic(text: str) -> str:
        return f"authorization: Basic {base64.b64encode(text.encode()).decode()}\r\n"

    assert await example.statuses(
        ("/basic", basic("ann:open sesame")),
        ("/basic", basic("ann:open sesame")),
        ("/basic", basic("ann:wrong")),
        ("/basic", basic("nobody:open sesame")),
    ) == [200, 200, 401, 401]
    answer = await example.ask("/basic")
    assert answer.status == 401 and b'realm="staff"' in answer[b"www-authenticate"]


async def keys(example: Example) -> None:
    requests = (("/key", "x-api-key: secret\r\n"), ("/key", "x-api-key: Secret\r\n"), ("/key", ""))
    assert await example.statuses(*requests) == [200, 401, 401]


async def others_decide(example: Example) -> None:
    assert (await example.ask("/forward", "cookie: who=ann\r\nx-user: mallory\r\n")).status == 200
    assert example.seen[-1].all(b"x-user") == [b"ann"]
    answer = await example.ask("/forward")
    assert answer.status == 302 and answer[b"location"] == b"https://login.example/"


async def limits(example: Example) -> None:
    answers = Counter([(await example.ask("/limited")).status for _ in range(120)])
    assert answers[200] >= 50 and set(answers) <= {200, 429}
    while (answer := await example.ask("/limited")).status != 429:
        pass
    assert int(answer[b"retry-after"]) >= 1 and b"rate_limited" in answer[b"proxy-status"]
    assert b"ratelimit" in answer and b"ratelimit-policy" in answer
    await asyncio.sleep(1)
    assert (await example.ask("/limited", method="POST", body=b"x" * (1 << 20))).status == 200
    assert (await example.ask("/limited", "content-length: 1048577\r\n", method="POST")).status == 413


async def concurrency(example: Example) -> None:
    slow = [asyncio.ensure_future(example.ask("/limited?slow", "x-tenant: t\r\n")) for _ in range(10)]
    await until(lambda: sum(one.start.startswith(b"GET /limited?slow") for one in example.seen) == 10)
    answer = await example.ask("/limited", "x-tenant: t\r\n")
    assert answer.status == 429 and b"concurrency_limited" in answer[b"proxy-status"]
    assert (await example.ask("/limited", "x-tenant: other\r\n")).status == 200
    assert {(await one).status for one in slow} == {200}


async def browsers(example: Example) -> None:
    origin = "origin: https://app.example.com\r\n"
    answer = await example.ask("/web", origin + "access-control-request-method: POST\r\n", method="OPTIONS")
    assert answer.status in (200, 204) and answer[b"access-control-max-age"] == b"600"
    before = len(example.seen)
    assert answer[b"access-control-allow-origin"] == b"https://app.example.com" and before == len(example.seen)
    answer = await example.ask("/web", origin)
    assert answer[b"access-control-allow-origin"] == b"https://app.example.com"
    assert answer[b"access-control-allow-credentials"] == b"true"
    assert b"access-control-allow-origin" not in await example.ask("/web", "origin: https://evil.example\r\n")


async def codings(example: Example) -> None:
    from backports import zstd

    undo = {b"zstd": zstd.decompress, b"br": brotli.decompress, b"gzip": gzip.decompress}
    for accepted, coding in (("gzip, br, zstd", b"zstd"), ("gzip, br", b"br"), ("gzip;q=1, br;q=0.5", b"gzip")):
        answer = await example.ask("/web", f"accept-encoding: {accepted}\r\n")
        assert answer[b"content-encoding"] == coding and undo[coding](answer.body) == PAGE
        assert b"accept-encoding" in b",".join(answer.all(b"vary")).lower()
    assert b"content-encoding" not in await example.ask("/web")


async def plugins(example: Example) -> None:
    answer = await example.ask("/plugin")
    assert answer.status == 200 and answer[b"x-greeting"] == b"hello" and answer[b"x-took"].endswith(b"ms")
    assert example.seen[-1][b"x-greeting"] == b"hello"


async def explained(example: Example) -> None:
    command = [sys.executable, "-m", "gateway", "explain", "-c", str(example.gateway.config), "GET", "http://a/limited"]
    told = await asyncio.to_thread(
        subprocess.run, command, env=os.environ | example.env, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0
    lines = [line.split() for line in told.stdout.partition("layers, outermost first\n")[2].splitlines()]
    assert [line[0] for line in lines] == [
        "request_id",
        "headers",
        "ip_allow",
        "rate_limit",
        "concurrency_limit",
        "body_limit",
    ]
    assert [line[1] for line in lines[:3]] == ["all", "all", "route"]


async def when_nobody_answers(example: Example) -> None:
    """An endpoint that is down: its 502 passes all layers outside."""
    answer = await example.ask("/web?die", "origin: https://app.example.com\r\n")
    assert answer.status == 502 and answer[b"access-control-allow-origin"] == b"https://app.example.com"


CHECKS = (
    ids_and_headers,
    tokens,
    passwords,
    keys,
    others_decide,
    concurrency,
    limits,
    browsers,
    codings,
    plugins,
    explained,
    when_nobody_answers,
)


def test_the_example_does_what_it_says(gateway: Start, tmp_path: Path) -> None:
    issuer = Issuer()
    (tmp_path / "jwks.json").write_text(issuer.jwks())
    hashed = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"ann:{hashed}\n")
    seen: list[Message] = []

    async def app(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append(request)
            if b"?die" in request.start:
                return
            if b"?slow" in request.start:
                await asyncio.sleep(1)
            await peer.send(ok(PAGE, b"server: secret\r\ncontent-type: text/html\r\n"))

    def decide(request: Message) -> bytes:
        if b"who=ann" in b"".join(request.all(b"cookie")):
            return ok(b"", b"x-user: ann\r\n")
        return b"HTTP/1.1 302 Found\r\nlocation: https://login.example/\r\ncontent-length: 0\r\n\r\n"

    @live
    async def test() -> None:
        async with AsyncExitStack() as stack:
            origin = await stack.enter_async_context(Origin(app))
            auth = await stack.enter_async_context(Origin(answering(decide)))
            env = {"APP_1": origin.address, "AUTH_URL": f"http://{auth.address}/check"}
            env |= {"JWKS": str(tmp_path / "jwks.json"), "HTPASSWD": str(tmp_path / "htpasswd")}
            env |= {"PLUGINS": str(PLUGINS), "RUN_DIR": str(tmp_path / "g0"), "WEB": "127.0.0.1:0"}
            started = await asyncio.to_thread(gateway, EXAMPLE.read_text(), tmp_path / "g0", env=env)
            example = Example(started, issuer, seen, env)
            for check in CHECKS:
                await check(example)

    test()
