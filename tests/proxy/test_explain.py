"""What would become of a request, as the data path would have it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.model import Config
from gateway.errors import GatewayError
from gateway.middleware import KINDS
from gateway.proxy.explain import Destination, Explanation, Outcome, Portion, Shaping, explain

CONFIG = Config.model_validate(
    {
        "listeners": [
            {"name": "web", "listen": ":8080"},
            {"name": "inner", "listen": ":8081", "path_policy": "pass"},
        ],
        "upstreams": {
            "app": {"endpoints": ["http://a/base", "b:81"]},
            "chat": {"endpoints": ["unix:/run/chat.sock"], "host": "endpoint"},
            "api": {"endpoints": ["c:80"], "host": "api.example"},
        },
        "routes": [
            {"name": "chat", "path": "/chat", "methods": ["GET"], "upstream": "chat", "upgrade": "any"},
            {"name": "old", "path": "/old", "redirect": {"to": "/new", "keep_query": True}},
            {"name": "down", "path": {"exact": "/down"}, "respond": {"status": 503}},
            {
                "name": "shop",
                "hosts": ["shop.example", "*.shop.example"],
                "path": "/shop",
                "headers": {"x-tenant": "blue"},
                "query": {"v": "1"},
                "client_ip": ["10.0.0.0/8"],
                "upstream": "app",
                "rewrite": {"strip_prefix": True, "add_prefix": "/v1"},
            },
            {"name": "api", "path": {"regex": "/api/.*"}, "upstream": "api", "rewrite": {"replace_path": "/rpc"}},
            {"name": "app", "path": "/app", "upstream": "app"},
        ],
    }
)


def asked(method: str, url: str, *fields: tuple[str, str], client: str = "10.0.0.1") -> Explanation:
    return explain(CONFIG, method, url, list(fields), client)


def failed(told: Explanation) -> dict[str, Any]:
    return {one.name: one.failed for one in told.candidates}


def test_a_rewritten_request() -> None:
    told = asked("GET", "http://www.shop.example:8080/shop/x?v=1", ("X-Tenant", "blue"))
    assert (told.host, told.target, told.path) == ("www.shop.example:8080", "/shop/x?v=1", "/shop/x")
    assert told.is_taken and told.candidates[0].name == told.outcome.route == "shop"
    assert (told.outcome.upstream, told.outcome.upgrade, told.outcome.status) == ("app", ("websocket",), 0)
    assert told.outcome.destinations == (
        Destination("app", "http://a:80/base", "www.shop.example:8080", "/base/v1/x?v=1"),
        Destination("app", "b:81", "www.shop.example:8080", "/v1/x?v=1"),
    )


def test_what_failed_says_what_it_wants() -> None:
    told = asked("PUT", "http://shop.example/shop", client="192.0.2.1")
    assert (told.outcome.route, told.outcome.status, told.is_taken) == ("", 404, False)
    assert failed(told) == {
        "shop": {"headers": "x-tenant: blue", "query": "v=1", "client_ip": "10.0.0.0/8"},
        "chat": {"path": "prefix /chat"},
        "old": {"path": "prefix /old"},
        "down": {"path": "exact /down"},
        "api": {"path": "regex /api/.*"},
        "app": {"path": "prefix /app"},
    }
    assert failed(asked("GET", "http://x/shop"))["shop"] == {"host": "shop.example, *.shop.example"}


@pytest.mark.parametrize(
    ("method", "url", "route", "status", "more"),
    [
        ("GET", "/old?a=b", "old", 308, {"location": "/new?a=b"}),
        ("GET", "/down", "down", 503, {}),
        ("GET", "/chat", "chat", 0, {"upgrade": "any", "upstream": "chat"}),
        ("POST", "/chat", "", 405, {"allow": ("GET",)}),
        ("GET", "/none", "", 404, {}),
        ("OPTIONS", "*", "", 404, {}),
    ],
)
def test_outcomes(method: str, url: str, route: str, status: int, more: dict[str, Any]) -> None:
    outcome = asked(method, url, ("Host", "x")).outcome
    assert (outcome.route, outcome.status) == (route, status)
    assert {key: getattr(outcome, key) for key in more} == more


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://x/chat", [("unix:/run/chat.sock", "localhost", "/chat")]),
        ("http://x/api/a?b", [("c:80", "api.example", "/rpc?b")]),
        ("/app", [("http://a:80/base", "a", "/base/app"), ("b:81", "b:81", "/app")]),
        ("HTTP://x?a#b", []),
    ],
)
def test_what_endpoints_get(url: str, sent: list[tuple[str, str, str]]) -> None:
    told = asked("GET", url)
    assert [(one.address, one.host, one.target) for one in told.outcome.destinations] == sent


def test_an_ambiguous_path() -> None:
    told = asked("GET", "/x/../app/a;b")
    assert (told.path, told.ambiguity) == ("/app/a;b", "dot_segment")
    assert told.listeners == {"web": "reject", "inner": "pass"}
    assert told.is_taken and told.outcome.destinations[1].target == "/x/../app/a;b"
    strict = CONFIG.model_copy(update={"listeners": CONFIG.listeners[:1]})
    assert not explain(strict, "GET", "/app//", [], "unix").is_taken
    assert asked("GET", "/app").listeners == {}


def test_fields_are_read_as_a_listener_reads_them() -> None:
    url = "http://shop.example/shop?v=1"
    assert asked("GET", url, ("x_tenant", "blue")).outcome.route == ""
    assert asked("GET", url, ("X-Tenant", "blue"), ("Host", "shop.example")).outcome.route == "shop"
    assert asked("GET", url, ("X-Tenant", "blue"), ("host", "other.example")).outcome.route == ""


def test_bytes_that_are_no_text() -> None:
    told = asked("GET", "/app/\udcff")
    assert (told.path, told.outcome.destinations[1].target) == ("/app/\\xff", "/app/\\xff")


@pytest.mark.parametrize(
    ("method", "url", "fields"),
    [("G T", "/", []), ("GET", "/a b", []), ("GET", "app", []), ("GET", "/", [("Host", "a b")]), ("GET", "", [])],
)
def test_what_is_no_request(method: str, url: str, fields: list[tuple[str, str]]) -> None:
    with pytest.raises(GatewayError, match="refused before any route is asked: 4"):
        explain(CONFIG, method, url, fields, "10.0.0.1")


SHAPED = Config.model_validate(
    {
        "listeners": [{"name": "web", "listen": ":8080"}],
        "upstreams": {
            "app": {"endpoints": ["a:80", "b:80"]},
            "next": {"endpoints": ["c:80"]},
            "found": {"discovery": {"kind": "dns", "name": "app.internal", "port": 81}, "host": "endpoint"},
        },
        "routes": [
            {
                "name": "split",
                "path": "/split",
                "upstream": [{"name": "app", "weight": 2}, {"name": "next"}, {"name": "found", "weight": 0}],
                "split_key": "cookie:uid",
                "canary": {"upstream": "found", "by": "header:X-Canary", "value": "yes"},
                "fallback": "next",
                "mirror": {"upstream": "next", "percent": 12.5},
            },
            {"name": "chance", "path": "/chance", "upstream": [{"name": "app"}, {"name": "next"}]},
            {"name": "only", "path": "/only", "upstream": [{"name": "next"}, {"name": "app", "weight": 0}]},
            {"name": "plain", "upstream": "found"},
        ],
    }
)


def shaped(url: str, *fields: tuple[str, str]) -> Outcome:
    return explain(SHAPED, "GET", url, list(fields), "10.0.0.1").outcome


def test_how_a_route_is_shaped() -> None:
    assert shaped("/split").shaping == Shaping(
        shares=(Portion("app", 66.67), Portion("next", 33.33), Portion("found", 0.0)),
        split_key="cookie:uid",
        canary="header:X-Canary = yes",
        canary_upstream="found",
        fallback="next",
        mirror="next",
        mirror_percent=12.5,
    )
    assert shaped("/").shaping == Shaping(shares=(Portion("found", 100.0),))


def test_who_gets_a_request_that_is_shared() -> None:
    def asked(*lines: tuple[str, str], url: str = "/split") -> tuple[str, str, list[str]]:
        outcome = shaped(url, *lines)
        return outcome.upstream, outcome.decided_by, [one.address for one in outcome.destinations]

    assert asked() == asked(("Cookie", "uid=")) == ("", "chance", ["a:80", "b:80", "c:80"])
    decided = [asked(("Cookie", f"uid={number}")) for number in range(20)]
    assert decided == [asked(("Cookie", f"uid={number}")) for number in range(20)]
    addresses = {"app": ["a:80", "b:80"], "next": ["c:80"]}
    assert {name for name, _, _ in decided} == addresses.keys()
    assert all(by == "cookie:uid" and where == addresses[name] for name, by, where in decided)
    canary = ("found", "header:X-Canary", ["dns:app.internal:81"])
    assert asked(("X-Canary", "yes"), ("Cookie", "uid=1")) == canary
    assert asked(("X-Canary", "no"), ("Cookie", "uid=1")) == asked(("Cookie", "uid=1"))
    assert asked(url="/chance") == asked(("Cookie", "uid=1"), url="/chance")
    assert asked(url="/chance")[:2] == ("", "chance")
    assert asked(url="/only") == ("next", "", ["c:80"])


def test_what_discovered_endpoints_get() -> None:
    assert shaped("http://x/a?b").destinations == (Destination("found", "dns:app.internal:81", "its own", "/a?b"),)


LAYERED = Config.model_validate(
    {
        "listeners": [{"name": "web", "listen": ":8080"}],
        "middleware": [{"kind": "request_id"}],
        "middleware_sets": {"plain": {"middleware": [{"kind": "headers", "response": {"remove": ["server"]}}]}},
        "routes": [
            {
                "name": "a",
                "path": "/a",
                "respond": {},
                "middleware": ["plain", {"kind": "headers", "name": "mine", "request": {"set": {"a": "b"}}}],
            },
            {"name": "b", "path": "/b", "respond": {}},
        ],
    },
    context=KINDS,
)


@pytest.mark.parametrize(
    "url, layers",
    [
        (
            "http://x/a",
            [
                ("request_id", "request_id", "all", {}),
                ("headers", "headers", "set plain", {"response": {"remove": ["server"]}}),
                ("mine", "headers", "route a", {"request": {"set": {"a": "b"}}}),
            ],
        ),
        ("http://x/b", [("request_id", "request_id", "all", {})]),
        ("http://x/c", [("request_id", "request_id", "all", {})]),
    ],
)
def test_the_layers_that_a_request_goes_through(url: str, layers: list[Any]) -> None:
    onion = explain(LAYERED, "GET", url, [], "10.0.0.1").outcome.onion
    assert [(one.name, one.kind, one.where, one.options) for one in onion] == layers


PAGES = {"kind": "cors", "origins": ["https://app.example"]}


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_preflight(everywhere: bool) -> None:
    route = {"name": "get", "path": "/a", "methods": ["GET"], "respond": {}}
    config = Config.model_validate(
        {
            "listeners": [{"name": "web", "listen": ":8080"}],
            "middleware": [PAGES] if everywhere else [],
            "routes": [{**route, "middleware": [] if everywhere else [PAGES]}],
        },
        context=KINDS,
    )
    fields = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")]
    told = explain(config, "OPTIONS", "/a", fields, "10.0.0.1")
    assert (told.outcome.route, told.candidates[0].failed) == ("get", {})
    assert [one.kind for one in told.outcome.onion] == ["cors"]
    told = explain(config, "OPTIONS", "/a", fields[:1], "10.0.0.1")
    assert (told.outcome.status, told.candidates[0].failed) == (405, {"methods": "GET"})
