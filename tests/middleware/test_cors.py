"""Which pages of other origins may read responses. The client's side of the Fetch standard is played by `may_read` and
`passes_preflight`, which follow its algorithms ("CORS check", "CORS-preflight fetch")."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.middleware.cors import Cors
from tests.listeners.site import get
from tests.middleware.rig import Answer, Inner, ask, layer
from tests.middleware.surroundings import place, refused
from tests.upstream.peer import live

APP = "https://app.example.com"
OTHER = "https://other.example.com"


def may_read(answer: Answer, origin: str, credentials: bool = False) -> bool:
    """Several fields are combined by a browser, and then are none."""
    allowed = b", ".join(answer.all(b"access-control-allow-origin")).decode()
    if not credentials and allowed == "*":
        return True
    if not allowed or allowed != origin:
        return False
    return not credentials or answer.all(b"access-control-allow-credentials") == [b"true"]


def _listed(answer: Answer, name: bytes) -> list[str]:
    return [one.strip() for one in b",".join(answer.all(name)).decode().split(",") if one.strip()]


def passes_preflight(answer: Answer, origin: str, method: str, names: str = "", credentials: bool = False) -> bool:
    if not may_read(answer, origin, credentials) or not 200 <= answer.status < 300:
        return False
    methods = _listed(answer, b"access-control-allow-methods")
    if method not in ("GET", "HEAD", "POST") and method not in methods and (credentials or "*" not in methods):
        return False
    allowed = [name.lower() for name in _listed(answer, b"access-control-allow-headers")]
    return all(name in allowed for name in names.split(",") if name)


def preflight(origin: str, method: str = "PUT", names: str = "", more: bytes = b"") -> bytes:
    fields = b"origin: %b\r\naccess-control-request-method: %b\r\n" % (origin.encode(), method.encode())
    if names:
        fields += b"access-control-request-headers: %b\r\n" % names.encode()
    return get(b"/x", fields + more, b"OPTIONS")


def actual(origin: str, method: str = "GET") -> bytes:
    return get(b"/x", b"origin: %b\r\n" % origin.encode(), method.encode())


def vary(answer: Answer) -> set[str]:
    return {one.lower() for one in _listed(answer, b"vary")}


# Preflights.


@live
async def test_a_preflight_is_answered_here() -> None:
    inner = Inner(b"app")
    one = layer(Cors, inner, origins=[APP], methods=["GET", "PUT"], headers=["x-a", "X-B"], max_age="1h")
    answer = await ask(one, preflight(APP, "PUT", "x-a,x-b"))
    assert answer.status == 204 and answer.exchange.begun and not inner.was_asked
    assert passes_preflight(answer, APP, "PUT", "x-a,x-b")
    assert not passes_preflight(answer, APP, "DELETE")
    assert not passes_preflight(answer, APP, "PUT", "x-c")
    assert not passes_preflight(answer, APP, "PUT", credentials=True)
    assert answer[b"access-control-max-age"] == b"3600"
    assert b"access-control-allow-private-network" not in answer
    assert vary(answer) == {"origin", "access-control-request-method", "access-control-request-headers"}


@live
async def test_a_preflight_of_another_origin() -> None:
    inner, there = Inner(b"app"), place()
    answer = await ask(layer(Cors, inner, there, origins=[APP]), preflight(OTHER))
    assert (answer.status, answer.reason, refused(there)) == (403, "origin_denied", 1)
    assert not may_read(answer, OTHER) and "origin" in vary(answer) and not inner.was_asked


@live
async def test_options_that_are_no_preflight_go_on() -> None:
    one = layer(Cors, Inner(b"app"), origins=[APP])
    for request in (
        get(method=b"OPTIONS"),
        actual(APP, "OPTIONS"),
        get(fields=b"access-control-request-method: PUT\r\n", method=b"OPTIONS"),
        preflight(APP).replace(b"OPTIONS", b"GET"),
    ):
        assert (await ask(one, request)).body == b"app"


@live
async def test_any_origin() -> None:
    one = layer(Cors, Inner(b"app"), origins=["*"])
    answer = await ask(one, preflight(OTHER, "POST", "content-type"))
    assert passes_preflight(answer, OTHER, "POST", "content-type") and b"vary" not in answer
    answer = await ask(one, actual(OTHER))
    assert may_read(answer, "https://any.example") and b"vary" not in answer


@live
async def test_whatever_is_asked_for() -> None:
    one = layer(Cors, Inner(b"app"), origins=[APP], methods=["*"], headers="mirror", credentials=True)
    answer = await ask(one, preflight(APP, "PURGE", "authorization,x-any"))
    assert passes_preflight(answer, APP, "PURGE", "authorization,x-any", credentials=True)
    # What can't be a list of names is not repeated.
    for names in ("x-a,<b>", "x-a;b", "a, ,b", "x" * 5000):
        answer = await ask(one, preflight(APP, "PUT", names))
        assert b"access-control-allow-headers" not in answer
    assert b"access-control-allow-methods" not in await ask(one, preflight(APP, "P T"))


@live
async def test_private_networks() -> None:
    wanted = b"access-control-request-private-network: true\r\n"
    for private in (False, True):
        one = layer(Cors, Inner(), origins=[APP], private_network=private)
        answer = await ask(one, preflight(APP, more=wanted))
        assert (b"access-control-allow-private-network" in answer) is private
        assert b"access-control-allow-private-network" not in await ask(one, preflight(APP))


# Origins.


@live
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.preview.example.com", True),
        ("https://a.preview.example.com.evil.example", False),
        ("https://evil.example/https://a.preview.example.com", False),
        ("http://a.preview.example.com", False),
        ("https://app.example.com", True),
        ("https://APP.example.com", False),
        ("https://app.example.com:8443", False),
        ("https://app.example.com https://other.example.com", False),
        ("null", False),
        ("*", False),
        ("", False),
        ("https://" + "a" * 300 + ".preview.example.com", False),
    ],
)
async def test_origins_are_matched_whole(origin: str, allowed: bool) -> None:
    one = layer(Cors, Inner(b"app"), origins=[APP], origin_regex=r"https://[a-z]+\.preview\.example\.com")
    for _ in range(2):
        answer = await ask(one, actual(origin))
        assert answer.body == b"app" and may_read(answer, origin) is allowed
        assert (b"access-control-allow-origin" in answer) is allowed
        assert vary(answer) == {"origin"}


@live
async def test_pages_without_an_origin_only_when_listed() -> None:
    answer = await ask(layer(Cors, Inner(), origins=["null"]), actual("null"))
    assert may_read(answer, "null")


@live
async def test_verdicts_are_kept_within_bounds() -> None:
    one = layer(Cors, Inner(), origin_regex=r"https://a[0-9]+\.example")
    for number in range(3000):
        assert may_read(await ask(one, actual(f"https://a{number}.example")), f"https://a{number}.example")
    assert len(one._known) <= 1024  # type: ignore[attr-defined]


# Responses.

BOTH: list[Any] = [
    b"access-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\nserver: x",
    [(b"Access-Control-Allow-Origin", b"*"), (b"Access-Control-Allow-Credentials", b"true"), (b"server", b"x")],
]


@live
@pytest.mark.parametrize("fields", BOTH)
async def test_what_stands_here_replaces_what_the_origin_server_says(fields: Any) -> None:
    one = layer(Cors, Inner(b"app", fields=fields), origins=[APP], expose_headers=["x-total"])
    answer = await ask(one, actual(APP))
    assert may_read(answer, APP) and not may_read(answer, APP, credentials=True)
    assert answer[b"access-control-expose-headers"] == b"x-total" and answer[b"server"] == b"x"
    answer = await ask(one, actual(OTHER))
    assert not any(name.lower().startswith(b"access-control-") for name, _ in answer.fields)
    assert vary(answer) == {"origin"}


@live
async def test_what_the_origin_server_says_is_kept_once() -> None:
    said = b"access-control-allow-origin: %b\r\n" % OTHER.encode()
    for fields in (said, said + said, said + said + b"access-control-allow-credentials: true\r\n" * 2):
        inner = Inner(b"app", fields=fields[:-2])
        answer = await ask(layer(Cors, inner, origins=[APP], mode="merge"), actual(OTHER))
        assert may_read(answer, OTHER, credentials=b"credentials" in fields)
    answer = await ask(layer(Cors, Inner(b"app"), origins=[APP], mode="merge"), actual(APP))
    assert may_read(answer, APP)
    two = said + b"access-control-allow-origin: *\r\naccess-control-allow-credentials: true"
    answer = await ask(layer(Cors, Inner(b"a", fields=two), origins=[APP], mode="merge", credentials=True), actual(APP))
    assert may_read(answer, APP, credentials=True)


@live
async def test_the_origin_server_answers_all_itself() -> None:
    inner = Inner(b"app", fields=b"x-own: 1")
    one = layer(Cors, inner, origins=[APP], mode="passthrough")
    assert (await ask(one, preflight(APP))).body == b"app"
    answer = await ask(one, actual(APP))
    assert not may_read(answer, APP) and b"vary" not in answer
    # An answer of the gateway's own is pairs.
    one = layer(Cors, Inner(b"no", status=502, fields=[]), origins=[APP], mode="passthrough")
    assert may_read(await ask(one, actual(APP)), APP)


@live
async def test_pages_can_read_refusals() -> None:
    async def refusing(scope: Any, receive: Any, send: Any) -> None:
        await there.refuse(scope["gateway"], send, "token_missing")

    there = place()
    answer = await ask(layer(Cors, refusing, origins=[APP], credentials=True), actual(APP))
    assert answer.status == 401 and may_read(answer, APP, credentials=True)


@live
async def test_vary_is_told_also_where_no_origin_was() -> None:
    for fields, wanted in [
        (b"", [b"Origin"]),
        (b"vary: Accept", [b"Accept, Origin"]),
        (b"vary: Accept\r\nVary: Cookie", [b"Accept, Cookie, Origin"]),
        (b"vary: accept, origin", [b"accept, origin"]),
        (b"vary: *", [b"*"]),
    ]:
        answer = await ask(layer(Cors, Inner(fields=fields), origins=[APP]), get())
        assert answer.all(b"vary") == wanted


@live
async def test_upgrades_are_left_alone() -> None:
    answer = await ask(layer(Cors, Inner(status=101, fields=b"upgrade: websocket"), origins=[APP]), actual(APP))
    assert b"access-control-allow-origin" not in answer


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "expected origins or origin_regex"),
        ({"origins": ["*"], "credentials": True}, "any page"),
        ({"origins": [APP, "null"], "credentials": True}, "any page"),
        ({"origins": ["https://app.example.com/"]}, "without a path"),
        ({"origins": ["app.example.com"]}, "an origin such as"),
        ({"origins": ["https://App.example.com"]}, "lower case"),
        ({"origins": ["https://app.example.com:443"]}, "the usual port"),
        ({"origins": ["https://*.example.com"]}, "an origin such as"),
        ({"origins": [APP], "headers": ["*"]}, "mirror"),
        ({"origins": [APP], "expose_headers": ["*"], "credentials": True}, "the name of a field"),
        ({"origin_regex": "("}, "not a regular expression"),
    ],
)
def test_options_that_are_wrong(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        layer(Cors, Inner(), **options)
