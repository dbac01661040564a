"""What a request is hashed by."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.proxy.hash_key import hash_key
from gateway.wire import read_request


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("client_ip", b"192.0.2.7"),
        ("path", b"/a%20b"),
        ("host", b"example.com:80"),
        ("header:X-Tenant", b"blue"),
        ("cookie:uid", b"u=1"),
        ("query:q", b"x y"),
        ("header:X-None", b""),
        ("cookie:none", b""),
        ("query:none", b""),
    ],
)
def test_each_kind(spec: str, expected: bytes) -> None:
    head = b"GET /a%20b?p=1&q=x+y HTTP/1.1\r\nHost: Example.com:80\r\nx-tenant: blue\r\nCookie: a=b; uid=u=1\r\n\r\n"
    found = read_request(head)
    assert found is not None
    exchange = SimpleNamespace(client="192.0.2.7", host=b"Example.com:80")
    assert hash_key(spec)(exchange, found[0]) == expected
