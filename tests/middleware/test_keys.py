"""For whom a limit counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.middleware.limits.keys import LimitKey, Missing, key_of
from gateway.ranges import network
from gateway.wire import read_request
from tests.listeners.site import get


def key(text: str, fields: bytes = b"", missing: Missing = "refuse", **facts: Any) -> bytes | None:
    found = read_request(get(b"/a?user=me&empty=", fields))
    assert found is not None
    exchange = SimpleNamespace(
        client="2001:db8:1:2:3::4", route=SimpleNamespace(name="web"), verified=None, target=found[0].target, host=b"h"
    )
    for name, value in facts.items():
        setattr(exchange, name, value)
    return key_of(text, 64, missing)(exchange, found[0])


@pytest.mark.parametrize(
    ("address", "prefix", "whose"),
    [
        ("192.0.2.1", 64, b"192.0.2.1"),
        ("2001:db8:1:2:3::4", 64, b"2001:db8:1:2::/64"),
        ("2001:db8:1:2:3::4", 48, b"2001:db8:1::/48"),
        ("2001:db8:1:2:3::4", 128, b"2001:db8:1:2:3::4/128"),
        ("::ffff:192.0.2.1", 64, b"192.0.2.1"),
        ("fe80::1%eth0", 64, b"fe80::/64"),
        ("unix", 64, b"unix"),
    ],
)
def test_an_address_is_its_network(address: str, prefix: int, whose: bytes) -> None:
    assert network(address, prefix) == whose


@pytest.mark.parametrize("subject", [" x", "a\r\n", "\x00", ["a,b"], [""], [["x"]]])
@pytest.mark.parametrize("text", ["jwt:sub", "jwt:https://id.example/sub"])
def test_nobody_gets_rid_of_a_limit_by_a_strange_name(text: str, subject: Any) -> None:
    claims = {text.removeprefix("jwt:"): subject}
    assert key(text, missing="pass", verified=claims) != key(text, missing="pass", verified={"sub": "x"})
    assert key(text, missing="pass", verified=claims)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("client_ip", b"2001:db8:1:2::/64"),
        ("route", b"web"),
        ("header:X-Tenant", b"acme"),
        ("cookie:session", b"s1"),
        ("query:user", b"me"),
        ("jwt:sub", b"alice"),
        ("jwt:realm.id", b"7"),
        ("{client_ip}/{header:x-tenant}", b"2001:db8:1:2::/64/acme"),
        ("{query:user}@{host}", b"me@h"),
    ],
)
def test_what_a_request_is_counted_by(text: str, found: bytes) -> None:
    fields = b"x-tenant: acme\r\ncookie: a=b; session=s1\r\n"
    assert key(text, fields, verified={"sub": "alice", "realm": {"id": 7}}) == found


@pytest.mark.parametrize("text", ["header:x-tenant", "cookie:session", "query:none", "query:empty", "jwt:sub"])
def test_a_request_without_a_key(text: str) -> None:
    assert key(text, missing="refuse") == b""
    assert key(text, missing="pass") is None
    assert key(text, missing="client_ip") == b"\x002001:db8:1:2::/64"


@pytest.mark.parametrize(
    "text", ["{client_ip}/{header:x-tenant}", "{header:x-tenant}{cookie:a}", "t:{header:x-tenant}"]
)
def test_a_request_that_has_not_all_of_a_text(text: str) -> None:
    fields = b"cookie: a=b\r\n"
    assert key(text, fields, missing="refuse") == b""
    assert key(text, fields, missing="pass") is None
    assert key(text, fields, missing="client_ip") == b"\x002001:db8:1:2::/64"
    assert key(text, fields + b"x-tenant: acme\r\n", missing="refuse")


def test_nobody_sends_the_key_of_an_address() -> None:
    """The account of an address is none that a field could name."""
    assert key("header:x-tenant", b"x-tenant: 2001:db8:1:2::/64\r\n") != key("header:x-tenant", missing="client_ip")


@pytest.mark.parametrize(
    "text", ["", "ip", "header:", "header:a b", "query:", "{nobody}", "{client_ip", "{jwt:}", "path"]
)
def test_what_is_no_key_is_said(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(LimitKey).validate_python(text)
