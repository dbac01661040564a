"""From http to https."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.middleware.redirect_https import RedirectHttps
from tests.listeners.site import get
from tests.middleware.rig import Inner, ask, layer
from tests.middleware.surroundings import place, refused
from tests.upstream.peer import live


async def location(target: str, host: str = "example.com", **options: Any) -> str | None:
    inner = Inner(b"app")
    one = layer(RedirectHttps, inner, **options)
    request = get(target.encode()).replace(b"host: example.com", b"host: " + host.encode())
    answer = await ask(one, request)
    if inner.was_asked:
        return None
    assert answer.status == options.get("status", 308) and answer.exchange.begun
    return answer[b"location"].decode()


@live
async def test_https_goes_on() -> None:
    assert (await ask(layer(RedirectHttps, Inner(b"app")), get(), scheme="https")).body == b"app"


@live
async def test_the_same_place_by_https() -> None:
    assert await location("/a%20b?c=d&e") == "https://example.com/a%20b?c=d&e"
    assert await location("/", status=301) == "https://example.com/"
    assert await location("//evil.example/x") == "https://example.com//evil.example/x"
    assert await location("/") == "https://example.com/"


@live
async def test_hosts_and_ports() -> None:
    assert await location("/x", "example.com:8080") == "https://example.com/x"
    assert await location("/x", "example.com:8080", port=8443) == "https://example.com:8443/x"
    assert await location("/x", "[::1]") == "https://[::1]/x"
    assert await location("/x", "[::1]:80", port=8443) == "https://[::1]:8443/x"
    assert await location("/x", "example.com:") == "https://example.com/x"


@live
async def test_a_target_with_what_no_uri_has() -> None:
    request = get(b"/X").replace(b"/X", b'/"<\xe9>')
    assert (await ask(layer(RedirectHttps, Inner()), request))[b"location"] == b"https://example.com/%22%3C%E9%3E"
    request = get(b"*", method=b"OPTIONS")
    assert (await ask(layer(RedirectHttps, Inner()), request))[b"location"] == b"https://example.com/"


@live
async def test_a_request_without_a_host() -> None:
    there = place()
    answer = await ask(layer(RedirectHttps, Inner(), there), b"GET / HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.reason, refused(there)) == (400, "host_missing", 1)


@live
@pytest.mark.parametrize(
    ("path", "passes"),
    [
        ("/.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", True),
        ("/.well-known/acme-challenge/x?y=/../", True),
        ("/.well-known/acme-challenge", False),
        ("/.well-known/acme-challenge/../../admin", False),
        ("/.well-known/acme-challenge/%2e%2e/admin", False),
        ("/.well-known/acme-challenge/..;/admin", False),
        ("/.well-known/acme-challenge/..\\admin", False),
        ("/.well-known/acme-challenge//admin", False),
    ],
)
async def test_what_is_served_by_http(path: str, passes: bool) -> None:
    assert (await location(path) is None) is passes


@live
async def test_no_exceptions() -> None:
    assert await location("/.well-known/acme-challenge/x", except_paths=[])
