"""What claims have to say, and how they are told to the application."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.middleware.identity.claims import Rules, claim, field_text, scopes_of, user_of
from gateway.middleware.identity.jose import TokenRefused
from gateway.wire import is_field

NOW = 1_700_000_000.0
LEEWAY = 30
ANY = Rules(any_audience=True)


def good(**more: Any) -> dict[str, Any]:
    return {"exp": NOW + 600, **more}


def refused(rules: Rules, claims: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(TokenRefused) as caught:
        rules.check(claims, NOW)
    return caught.value.reason, caught.value.said


def test_until_when_it_is_good() -> None:
    assert ANY.check(good(), NOW) == NOW + 600 + LEEWAY
    assert Rules(any_audience=True, max_age=60).check(good(iat=NOW), NOW) == NOW + 60 + LEEWAY


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    [None, "1700000600", True, False, [], {}, -1, -0.5, NOW * 1000, 10**30, 1e300, [NOW], float("inf"), float("nan")],
)
def test_a_time_that_is_none(name: str, value: object) -> None:
    assert refused(ANY, good() | {name: value}) == ("token_invalid", "A time in the token is malformed")


def test_times() -> None:
    assert refused(ANY, {}) == ("token_invalid", "The token does not expire")
    assert refused(ANY, {"exp": NOW - LEEWAY}) == ("token_expired", "The token has expired")
    assert ANY.check({"exp": NOW - LEEWAY + 1}, NOW) == NOW + 1
    assert refused(ANY, {"exp": 0})[0] == "token_expired"
    assert refused(ANY, good(nbf=NOW + LEEWAY + 1)) == ("token_invalid", "The token is not valid yet")
    ANY.check(good(nbf=NOW + LEEWAY, iat=NOW + LEEWAY), NOW)
    assert refused(ANY, good(iat=NOW + LEEWAY + 1)) == ("token_invalid", "The token was issued in the future")
    young = Rules(any_audience=True, max_age=60)
    assert refused(young, good()) == ("token_invalid", "The token does not say when it was issued")
    assert refused(young, good(iat=NOW - 60 - LEEWAY)) == ("token_expired", "The token is too old")
    young.check(good(iat=NOW - 60 - LEEWAY + 1), NOW)


@pytest.mark.parametrize("issuer", [None, "", "https://id.exampl", "https://id.example/", ["https://id.example"], 1])
def test_another_issuer(issuer: object) -> None:
    rules = Rules(any_audience=True, issuers=frozenset(("https://id.example", "https://old.example")))
    rules.check(good(iss="https://old.example"), NOW)
    assert refused(rules, good(iss=issuer)) == ("token_invalid", "The issuer of the token is not accepted")
    assert refused(rules, good())[1] == "The issuer of the token is not accepted"


def test_audiences() -> None:
    rules = Rules(audiences=frozenset(("api", "web")))
    for meant in ("api", "web", ["else", "api"], ["api", "web"]):
        rules.check(good(aud=meant), NOW)
    for other in (None, "", "ap", "API", [], ["else"], [["api"]], ["api", 1], {"api": 1}, 1, True, "api web"):
        assert refused(rules, good(aud=other))[1] == "The token is meant for somebody else"
    assert refused(rules, good())[1] == "The token is meant for somebody else"
    # Who isn't told who it is can't be the one that somebody else's token is for.
    Rules().check(good(), NOW)
    assert refused(Rules(), good(aud="api"))[1] == "The token is meant for somebody else"
    ANY.check(good(aud=[1]), NOW)


def test_claims_that_must_be_there() -> None:
    rules = Rules(any_audience=True, required=("sub", "jti"))
    rules.check(good(sub="a", jti="b"), NOW)
    assert refused(rules, good(sub="a"))[1] == "The token lacks a claim that is required"
    assert refused(rules, good(sub="a", jti=None))[1] == "The token lacks a claim that is required"


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": "a b"}, {"a", "b"}),
        ({"scope": ["a", "b", 1]}, {"a", "b"}),
        ({"scp": "a"}, {"a"}),
        ({"scp": ["a b"]}, {"a b"}),
        ({"scope": "a", "scp": ["b"]}, {"a", "b"}),
        ({"scope": {"a": 1}, "scp": 1}, set()),
        ({"scope": "a\tb"}, {"a\tb"}),
    ],
)
def test_scopes(claims: dict[str, Any], scopes: set[str]) -> None:
    assert scopes_of(claims) - {""} == scopes


def test_a_claim_by_its_path() -> None:
    claims = {"a": {"b": {"c": 1}}, "a.b": 2, "https://x.example/roles": ["r"]}
    assert claim(claims, "a.b.c") == 1
    assert claim(claims, "a.b") == 2
    assert claim(claims, "https://x.example/roles") == ["r"]
    assert claim(claims, "a.c") is claim(claims, "a.b.c.d") is claim(claims, "x") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("", ""),
        ("ann", "ann"),
        ("Änn O'X", "Änn O'X"),
        (7, "7"),
        (1.5, "1.5"),
        (True, "true"),
        (["a", "b", 1, False], "a,b,1,false"),
        ([], ""),
    ],
)
def test_a_claim_in_a_field(value: object, text: str | None) -> None:
    assert field_text(value) == text


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nx-admin: 1",
        "a\nb",
        "a\0",
        "a\tb",
        "\x7f",
        " admin",  # whoever reads the field next would take the space away
        "admin ",
        ["a,admin"],
        ["a", ""],
        ["a\n"],
        [["a"]],
        [{"a": 1}],
        [None],
        {"a": 1},
    ],
)
def test_a_claim_that_would_read_otherwise(value: object) -> None:
    with pytest.raises(TokenRefused, match="passed on"):
        field_text(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_whatever_is_told_can_stand_in_a_field(value: object) -> None:
    try:
        text = field_text(json.loads(json.dumps(value)))
    except TokenRefused:
        return
    assert text is None or (is_field(b"x", text.encode()) and text.encode().strip(b" \t") == text.encode())
    assert user_of({"sub": value}, "sub") in ("", str(value))
