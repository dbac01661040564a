"""Redirects: the Location, and that nobody but the configuration says where it leads."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import Redirect as RedirectConfig
from gateway.proxy.redirect import Redirect


def redirect(to: str, **more: Any) -> Redirect:
    return Redirect(RedirectConfig(to=to, **more))


@pytest.mark.parametrize(
    ("to", "query", "location"),
    [
        ("/new", b"", b"/new"),
        ("/new", b"a=b", b"/new?a=b"),
        ("/new?x=y", b"a=b", b"/new?x=y&a=b"),
        ("/new#top", b"a=b", b"/new?a=b#top"),
        ("/new#why?", b"a=b", b"/new?a=b#why?"),
        ("/new?x=y#top", b"", b"/new?x=y#top"),
        ("https://example.com", b"a=b", b"https://example.com?a=b"),
        ("https://example.com/x", b"a=%2F%zz&b=\xc3\xa9#c", b"https://example.com/x?a=%2F%25zz&b=%C3%A9%23c"),
        ("/", b"//evil.example", b"/?//evil.example"),
        ("/", b"@evil.example", b"/?@evil.example"),
    ],
)
def test_location(to: str, query: bytes, location: bytes) -> None:
    assert redirect(to, keep_query=True).location(query) == location
    assert redirect(to).location(query) == to.encode()


TARGETS = ["/", "/new", "/new?x=y", "/new#top", "https://example.com", "http://example.com:81/a?b#c"]


@given(st.sampled_from(TARGETS), st.binary(max_size=30))
def test_a_query_changes_only_the_query(to: str, query: bytes) -> None:
    location = redirect(to, keep_query=True).location(query)
    assert not set(location) & set(b"\r\n\0 \t")
    found, wanted = urlsplit(location), urlsplit(to.encode())
    assert found._replace(query=b"") == wanted._replace(query=b"")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_answer(status: int) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(redirect("/new", status=status, keep_query=True)({"query_string": b"a=b"}, None, send))
    start, body = sent
    fields = dict(start["headers"])
    assert (start["status"], fields[b"location"]) == (status, b"/new?a=b")
    assert int(fields[b"content-length"]) == len(body["body"]) > 0
    assert body["body"].startswith(b"%d " % status)
