"""Which side of a split gets a request."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import Route
from gateway.proxy.split import Choice
from gateway.wire import RequestHead, read_request

KEYS = [b"user-%d" % number for number in range(20_000)]


def choice(**weights: int) -> Choice:
    shares = [{"name": name, "weight": weight} for name, weight in weights.items()]
    return Choice(Route.model_validate({"name": "r", "upstream": shares, "split_key": "cookie:uid"}))


def sides(choice: Choice) -> list[str]:
    return [choice.by_key(key) for key in KEYS]


def head(*lines: bytes) -> RequestHead:
    found = read_request(b"\r\n".join((b"GET / HTTP/1.1", b"host: a", *lines, b"", b"")))
    assert found is not None
    return found[0]


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1}, {"a": 90, "b": 10}, {"a": 1, "b": 2, "c": 7}, {"a": 999, "b": 1}]
)
def test_keys_are_dealt_by_weight(weights: dict[str, int]) -> None:
    count = Counter(sides(choice(**weights)))
    for name, weight in weights.items():
        expected = len(KEYS) * weight / sum(weights.values())
        assert abs(count[name] - expected) < 4 * expected**0.5, count  # four standard deviations, at most


def test_a_weight_that_grows_takes_keys_and_moves_none_between_the_others() -> None:
    before, after = sides(choice(a=60, b=30, c=10)), sides(choice(a=60, b=30, c=40))
    moved = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert {other for _, other in moved} == {"c"} and {one for one, _ in moved} == {"a", "b"}
    # From 10 to 40 of what is then 130: no more move than must.
    assert abs(len(moved) / len(KEYS) - (40 / 130 - 10 / 100)) < 0.015


def test_an_upstream_that_comes_or_goes_moves_only_its_own_keys() -> None:
    before, after = sides(choice(a=1, b=1)), sides(choice(a=1, b=1, c=1))
    assert {other for one, other in zip(before, after, strict=True) if one != other} == {"c"}


@given(st.binary(min_size=1), st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 65535), min_size=1), st.data())
def test_stable_for_any_key_and_weights(key: bytes, weights: dict[str, int], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(weights)))
    grown = weights | {name: min(65535, weights[name] + data.draw(st.integers(1, 1000)))}
    before, after = choice(**weights).by_key(key), choice(**dict(reversed(grown.items()))).by_key(key)
    assert before in weights and after in (before, name)


def test_in_proportion_to_each_other_weights_are_the_same() -> None:
    assert sides(choice(a=9, b=1)) == sides(choice(a=900, b=100))


def test_chance_deals_by_weight() -> None:
    dealt = choice(a=3, b=0, c=1)
    assert [dealt.by_chance(chance) for chance in (0.0, 0.749, 0.75, 1 - 2**-53)] == ["a", "a", "c", "c"]


def test_a_weight_of_zero_gets_nothing() -> None:
    dealt = choice(a=0, b=1, c=1)
    assert set(sides(dealt)) == {"b", "c"}
    assert choice(a=0, b=1).decided(None, head()) == "b"


CANARIED: dict[str, Any] = {
    "name": "r",
    "upstream": [{"name": "a", "weight": 1}, {"name": "b", "weight": 1}],
    "split_key": "client_ip",
    "canary": {"upstream": "new", "by": "header:X-Canary", "value": "yes"},
}


@pytest.mark.parametrize(
    ("by", "line", "is_canary"),
    [
        ("header:X-Canary", b"x-canary: yes", True),
        ("header:X-Canary", b"x-canary: Yes", False),
        ("header:X-Canary", b"x-canary: yes, no", False),
        ("header:X-Canary", b"x-canary:", False),
        ("header:X-Canary", b"x-other: yes", False),
        ("cookie:canary", b"cookie: a=b; canary=yes", True),
        ("cookie:canary", b"cookie: a=b; canary=no", False),
        ("cookie:canary", b"canary: yes", False),
    ],
)
def test_the_canary_goes_first(by: str, line: bytes, is_canary: bool) -> None:
    one = Choice(Route.model_validate(CANARIED | {"canary": CANARIED["canary"] | {"by": by}}))
    exchange = SimpleNamespace(client="192.0.2.1")
    assert (one.decided(exchange, head(line)) == "new") is is_canary
    assert one.decided(exchange, head()) == one.by_key(b"192.0.2.1") in ("a", "b")


def test_without_a_key_chance_decides() -> None:
    assert choice(a=1, b=1).decided(None, head()) == ""
    assert choice(a=1, b=1).decided(None, head(b"cookie: uid=")) == ""
    assert choice(a=1, b=1).decided(None, head(b"cookie: uid=7")) != ""
    keyless = Route.model_validate({"name": "r", "upstream": [{"name": "a"}, {"name": "b"}]})
    assert Choice(keyless).decided(None, head(b"cookie: uid=7")) == ""
