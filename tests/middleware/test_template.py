from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.middleware.identity.claims import field_text
from gateway.middleware.identity.jose import TokenRefused
from gateway.middleware.template import Template, claim_text, safe
from gateway.wire import RequestHead, is_field, read_request


def request() -> tuple[SimpleNamespace, RequestHead]:
    found = read_request(b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nX-Tenant: blue\r\nCookie: who=me\r\n\r\n")
    assert found is not None
    claims = {"sub": "alice", "roles": ["a", "b"], "org": {"id": 7}, "ok": True, "x": None, "evil": "a\r\nb: c"}
    claims |= {"commas": ["a,b", "c"], "nested": [["a"]], "https://id.example/roles": ["x", "y"]}
    claims |= {"a.b": "whole", "a": {"b": "inside", "c": "inside"}}
    route = SimpleNamespace(name="app")
    exchange = SimpleNamespace(client="::1", host=b"example.com", request_id="id", route=route, verified=claims)
    return exchange, found[0]


@pytest.mark.parametrize(
    "text, value",
    [
        ("plain", b"plain"),
        ("", b""),
        ("{client_ip}|{host}|{path}|{request_id}|{route}", b"::1|example.com|/a|id|app"),
        ("{header:X-Tenant}/{cookie:who}", b"blue/me"),
        ("<{header:x-none}{cookie:none}>", b"<>"),
        ("{jwt:sub} {jwt:roles} {jwt:org.id} {jwt:ok}", b"alice a,b 7 true"),
        ("{jwt:x}{jwt:none}{jwt:sub.deep}{jwt:org}", b""),
        ("{{client_ip}} {{{client_ip}}}", b"{client_ip} {::1}"),
        ("{jwt:evil}{jwt:commas}{jwt:nested}", b""),
        ("{jwt:https://id.example/roles} {jwt:a.b} {jwt:a.c}", b"x,y whole inside"),
        ("ü", "ü".encode()),
    ],
)
def test_places_are_filled(text: str, value: bytes) -> None:
    assert Template(text).render(*request()) == value


def test_a_request_without_route_and_claims() -> None:
    exchange, head = request()
    exchange.route = exchange.verified = None
    assert Template("{route}{jwt:sub}").render(exchange, head) == b""


@pytest.mark.parametrize("text", ["{", "}", "{a", "{nobody}", "{header:}", "{header:a b}", "{jwt:}", "{}", "{route:x}"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"stands alone|there is no"):
        Template(text)


def test_a_text_without_places_is_known_as_such() -> None:
    assert Template("a{{b}}").is_static and not Template("{route}").is_static


@given(st.binary())
def test_whatever_it_is_it_can_stand_in_a_field(value: bytes) -> None:
    assert is_field(b"x", safe(value))
    if is_field(b"x", value):
        assert safe(value) == value


@pytest.mark.parametrize(
    "value", ["x", "", " x", "a\tb", "ü", 7, 1.5, True, None, {}, [], ["a", 1], ["a,b"], [""], ["a\n"]]
)
def test_a_claim_reads_as_claims_to_headers_has_it(value: Any) -> None:
    try:
        told = field_text(value)
    except TokenRefused:
        told = None
    assert claim_text(value) == (told or "").encode()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5))
def test_any_claim_can_stand_in_a_field(value: object) -> None:
    assert is_field(b"x", claim_text(value))
