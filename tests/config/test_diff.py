"""What a reload says it changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.config.diff import changes
from gateway.config.model import Config

BASE = """
[upstreams.app]
endpoints = ["a:1", { address = "b:1", weight = 2 }]
[[routes]]
name = "one"
path = "/one"
upstream = "app"
[[routes]]
name = "two"
path = "/two"
respond = { body = "two" }
"""


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("", "", []),
        ("[process]\ndrain_timeout = '60s'", "[process]\ndrain_timeout = '1m'", []),
        ("", "[process]\ndrain_timeout = '5s'", ["~ process.drain_timeout: 30s -> 5s"]),
        ("", "[process]\nmax_age = '2h'", ["+ process.max_age: 2h"]),
        ("[process]\nmax_age = '2h'", "", ["- process.max_age"]),
        ("", "[admin]\nlisten = ':99'", ["+ admin"]),
        ("", "[[listeners]]\nname = 'web2'\nlisten = ':81'", ["+ listeners.web2"]),
        ("[[listeners]]\nname = 'web2'\nlisten = ':81'", "", ["- listeners.web2"]),
        (
            "[[listeners]]\nname = 'web2'\nlisten = ':81'",
            "[[listeners]]\nname = 'web2'\nlisten = '[::1]:82'",
            ["~ listeners.web2.listen: :81 -> [::1]:82"],
        ),
        ("weight = 2", "weight = 3", ["~ upstreams.app.endpoints[1].weight: 2 -> 3"]),
        (', { address = "b:1", weight = 2 }', "", ["- upstreams.app.endpoints[1]"]),
        ('path = "/one"', 'path = "/1"', ["~ routes.one.path.prefix: /one -> /1"]),
        ('path = "/one"', 'path = { exact = "/one" }', ["- routes.one.path.prefix", "+ routes.one.path.exact: /one"]),
        ('path = "/one"', "", ["- routes.one.path"]),
        ('path = "/one"', 'path = "/one"\nhosts = ["a", "b"]', ['~ routes.one.hosts: [] -> ["a", "b"]']),
        ('body = "two"', 'body = ""', ['~ routes.two.respond.body: two -> ""']),
        ('respond = { body = "two" }', 'upstream = "app"', ["+ routes.two.upstream: app", "- routes.two.respond"]),
        ("[[routes]]\nname = 'x'\npath = '/x'\nredirect.to = '/y'", "", ["- routes.x"]),
        ('"a:1"', '"http://a:1/x"', ["~ upstreams.app.endpoints[0].address: a:1 -> http://a:1/x"]),
        ('name = "two"', 'name = "2.0"', ["- routes.two", '+ routes."2.0"']),
    ],
)
def test_changes(config: Callable[..., Config], before: str, after: str, lines: list[str]) -> None:
    old, new = (BASE, BASE.replace(before, after)) if before and before in BASE else (BASE + before, BASE + after)
    assert changes(config(old), config(new)) == lines


def test_the_order_of_routes_counts(config: Callable[..., Config]) -> None:
    first, second = '[[routes]]\nname = "a"\npath = "/a"\nrespond = {}\n', '[[routes]]\nname = "b"\nrespond = {}\n'
    assert changes(config(first + second), config(second + first)) == ["~ routes: another order"]
    assert changes(config(first), config(second + first)) == ["+ routes.b"]


def test_long_values_are_cut(config: Callable[..., Config]) -> None:
    (line,) = changes(config(BASE), config(BASE.replace('"two" }', f'"{"x" * 500}" }}')))
    assert len(line) < 130 and line.endswith("xxx...")
