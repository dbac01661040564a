"""jwt, basic_auth and api_key between real sockets: what endpoints, clients and the access log get to see."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.listeners.site import Site, get
from tests.middleware.tokens import SECRET, key_document, public_jwk, token
from tests.upstream.peer import Message, Origin, Peer, live, noting, ok

SHARED: dict[str, Any] = {"kind": "jwt", "secret": SECRET, "algorithms": ["HS256"], "audience": "api"}
KEY = b"5f0c6e9d2b7a4e81"
BY_KEY: dict[str, Any] = {
    "kind": "api_key",
    "query": "key",
    "keys": [{"name": "ci", "sha256": sha256(KEY).hexdigest()}],
    "name_header": "x-client",
}
_RIGHT: dict[str, bytes] = {}


def right() -> bytes:
    return _RIGHT.setdefault("token", token("HS256"))


@pytest.fixture
def staff(tmp_path: Path) -> Iterator[dict[str, Any]]:
    path = tmp_path / "htpasswd"
    path.write_bytes(b"ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)))
    yield {"kind": "basic_auth", "htpasswd": str(path), "user_header": "x-user"}


def bearer(written: bytes) -> bytes:
    return b"Authorization: Bearer " + written + b"\r\n"


class Around:
    """A site with these layers around all routes. seen: what its endpoint got."""

    def __init__(self, *layers: dict[str, Any], **more: Any) -> None:
        self.seen: list[Message] = []
        self._origin = Origin(noting(self.seen, lambda request: ok()))
        self._layers = [*layers]
        self._more = more

    async def __aenter__(self) -> Around:
        origin = await self._origin.__aenter__()
        self.site = await Site(origin, middleware=self._layers, **self._more).__aenter__()
        return self

    async def __aexit__(self, *left: Any) -> None:
        await self.site.__aexit__(*left)
        await self._origin.__aexit__(*left)

    async def ask(self, target: bytes = b"/", fields: bytes = b"") -> Message:
        return await self.site.ask(get(target, fields))


@live
async def test_a_token() -> None:
    async with Around({**SHARED, "claims_to_headers": {"sub": "x-user"}}) as around:
        assert (await around.ask(fields=bearer(right()))).status == 200
        [request] = around.seen
        assert request[b"x-user"] == b"ann"
        assert request[b"authorization"] == b"Bearer " + right()
        exchange = await around.site.exchange()
        assert exchange.user == "ann" and exchange.claims is not None
        answer = await around.ask()
        assert answer.status == 401 and answer[b"www-authenticate"] == b'Bearer realm="api"'
        answer = await around.ask(fields=bearer(right()[:-1]))
        assert answer[b"www-authenticate"].startswith(b'Bearer realm="api", error="invalid_token", error_descr')
        assert [(await around.site.exchange()).reason for _ in range(2)] == ["token_missing", "token_invalid"]
        assert len(around.seen) == 1


@live
async def test_two_authorizations_come_no_further_than_the_parser() -> None:
    async with Around(SHARED) as around:
        assert (await around.ask(fields=bearer(right()) + bearer(right()))).status == 400
        assert (await around.site.exchange()).reason == "repeated_field"


@live
async def test_an_authorization_that_ends_at_this_hop() -> None:
    """What Connection names isn't there for the endpoint, and so not for us."""
    async with Around(SHARED) as around:
        fields = bearer(right()) + b"Connection: authorization\r\n"
        assert (await around.ask(fields=fields))[b"www-authenticate"] == b'Bearer realm="api"'


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]])
def test_nobody_else_says_who_it_is(trusted: list[str]) -> None:
    """Not by another case, by an underscore, in front, behind, or as a proxy whom the listener trusts."""

    @live
    async def test() -> None:
        names = {"sub": "x-user", "iss": "X-Forwarded-User", "none": "x-forwarded-groups"}
        layer = {**SHARED, "claims_to_headers": names, "optional": True}
        forged = (
            b"X-USER: root\r\nx-user: root\r\nX_User: root\r\nX-Forwarded-User: root\r\nX_Forwarded_User: root\r\n"
            b"x-forwarded-groups: admin\r\n"
        )
        async with Around(layer, trusted_proxies=trusted) as around:
            for fields in (forged, forged + bearer(right()), bearer(right()) + forged):
                assert (await around.ask(fields=fields)).status == 200
            nobody, *both = around.seen
            for name in (b"x-user", b"x_user", b"x-forwarded-user", b"x_forwarded_user", b"x-forwarded-groups"):
                assert name not in nobody
            for ann in both:
                assert ann[b"x-user"] == b"ann" and ann[b"x-forwarded-user"] == b"https://id.example"
                assert b"x_user" not in ann and b"x-forwarded-groups" not in ann

    test()


@live
async def test_trailers_do_not_say_who_it_is() -> None:
    """They come behind the body, and some servers put them among the fields."""
    raw = bytearray()

    async def handler(peer: Peer) -> None:
        raw.extend(await peer.reader.readuntil(b"x-sum: 1\r\n\r\n"))
        await peer.send(ok())

    layer = {**SHARED, "claims_to_headers": {"sub": "X-User"}}
    async with Origin(handler) as origin, Site(origin, middleware=[layer]) as site:
        fields = bearer(right()) + b"transfer-encoding: chunked\r\ntrailer: x-user, x-sum\r\n"
        body = b"5\r\nhello\r\n0\r\nX-User: root\r\nx-sum: 1\r\n\r\n"
        assert (await site.ask(get(b"/", fields, b"POST") + body)).status == 200
        assert bytes(raw).count(b"x-user: ") == 1
        assert b"x-user: ann\r\n" in raw and b"root" not in raw.lower()
        assert b"trailer: x-sum\r\n" in raw


@live
async def test_a_token_in_the_target() -> None:
    async with Around({**SHARED, "sources": ["query:access_token"]}) as around:
        for target in (b"/a?x=1&access_token=%b", b"http://example.com/a?access_token=%b&x=1"):
            assert (await around.ask(target % right())).status == 200
            assert (await around.site.exchange()).target.endswith(b"/a?x=1")
            assert around.seen.pop().start == b"GET /a?x=1 HTTP/1.1"
        assert (await around.ask(b"/a?access_token=" + right()[:-1])).status == 401
        assert (await around.site.exchange()).target == b"/a"


@live
async def test_a_key_in_the_target() -> None:
    async with Around(BY_KEY) as around:
        assert (await around.ask(b"/a?key=" + KEY + b"&b")).status == 200
        exchange = await around.site.exchange()
        assert (exchange.target, exchange.user) == (b"/a?b", "ci")
        request = around.seen.pop()
        assert request.start == b"GET /a?b HTTP/1.1" and request[b"x-client"] == b"ci"
        for target, reason in ((b"/", "api_key_missing"), (b"/?key=secret", "api_key_unknown")):
            answer = await around.ask(target)
            assert answer.status == 401 and answer[b"www-authenticate"] == b'ApiKey realm="api"'
            exchange = await around.site.exchange()
            assert (exchange.target, exchange.reason, exchange.user) == (b"/", reason, "")
        assert not around.seen


DENY = {"kind": "ip_allow", "allow": ["192.0.2.1"]}


@pytest.mark.parametrize("inner", [BY_KEY, {**SHARED, "sources": ["header:authorization", "query:key"]}])
@pytest.mark.parametrize("deny", [[], [DENY]])
@pytest.mark.parametrize("is_around", [False, True])
def test_a_credential_in_the_target_is_not_written_down(
    inner: dict[str, Any], deny: list[dict[str, Any]], is_around: bool
) -> None:
    """Whoever refuses the request, and whether there is a route for it."""

    @live
    async def test() -> None:
        route = {"name": "app", "upstream": "app", "path": "/app", "methods": ["GET"]}
        other = {"name": "other", "upstream": "app", "path": "/other"}
        layers = [inner] if is_around else []
        own = [] if is_around else [inner]
        async with Around(*deny, *layers, routes=[{**route, "middleware": own}, other]) as around:
            asked = ((b"/app", b"GET"), (b"/nowhere", b"GET"), (b"/app", b"POST"), (b"/a/../app", b"GET"))
            for target, method in asked:
                await around.site.ask(get(target + b"?a&%6bey=secret&b&key=secret", method=method))
                assert (await around.site.exchange()).target == target + b"?a&b"
            await around.site.ask(b"GET /app?key=secret HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")
            assert (await around.site.exchange()).target == b"/app"
            await around.ask(b"/other?key=secret")
            target = (await around.site.exchange()).target
            assert target == (b"/other" if is_around else b"/other?key=secret"), "not a credential there"

    test()


@live
async def test_a_limit_by_what_is_not_written_down() -> None:
    limit = {"kind": "rate_limit", "rate": "1/m", "burst": 1, "key": "query:key"}
    keys = [{"name": one, "sha256": sha256(one.encode()).hexdigest()} for one in ("one", "two")]
    async with Around(limit, {**BY_KEY, "keys": keys}) as around:
        for key in (b"one", b"two"):
            assert [(await around.ask(b"/?key=" + key)).status for _ in range(2)] == [200, 429]


def test_a_password(staff: dict[str, Any]) -> None:
    @live
    async def test() -> None:
        async with Around(staff) as around:
            fields = b"Authorization: Basic " + b64encode(b"ann:secret") + b"\r\nX-User: root\r\n"
            peer = await around.site.client()
            for _ in range(3):  # on one connection, of which the second and third request are known
                await peer.send(get(fields=fields))
                assert (await peer.response()).status == 200
                request = around.seen.pop()
                assert request[b"x-user"] == b"ann" and b"authorization" not in request
                assert (await around.site.exchange()).user == "ann"
            for wrong in (b"", b"Authorization: Basic " + b64encode(b"ann:x") + b"\r\n"):
                answer = await around.ask(fields=wrong)
                assert answer.status == 401
                assert answer[b"www-authenticate"] == b'Basic realm="restricted", charset="UTF-8"'
            assert not around.seen

    test()


def test_layers_inside_of_each_other(tmp_path: Path, staff: dict[str, Any]) -> None:
    """A password for the gateway, a token of its own for the application."""
    keys = tmp_path / "jwks.json"
    keys.write_bytes(key_document(public_jwk("ES256")))
    inner = {"kind": "jwt", "jwks": str(keys), "algorithms": ["ES256"], "audience": "api", "sources": ["cookie:t"]}

    @live
    async def test() -> None:
        async with Around(staff, inner) as around:
            password = b"Authorization: Basic " + b64encode(b"ann:secret") + b"\r\n"
            assert (await around.ask(fields=password)).status == 401
            assert (await around.ask(fields=password + b"Cookie: t=" + token() + b"\r\n")).status == 200

    test()


@live
async def test_a_browser_reads_why_it_was_refused() -> None:
    """And asks beforehand without a token."""
    cors = {"kind": "cors", "origins": ["https://app.example"]}
    async with Around(cors, SHARED) as around:
        fields = b"Origin: https://app.example\r\n"
        asking = fields + b"Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization\r\n"
        answer = await around.site.ask(get(b"/", asking, b"OPTIONS"))
        assert answer.status == 204 and answer[b"access-control-allow-origin"] == b"https://app.example"
        answer = await around.ask(fields=fields)
        assert answer.status == 401 and answer[b"access-control-allow-origin"] == b"https://app.example"


@live
async def test_a_limit_for_each_user() -> None:
    limit = {"kind": "rate_limit", "rate": "1/m", "burst": 1, "key": "jwt:sub"}
    async with Around(SHARED, limit) as around:
        for name in ("ann", "bob"):
            fields = bearer(token("HS256", sub=name))
            assert [(await around.ask(fields=fields)).status for _ in range(2)] == [200, 429]
