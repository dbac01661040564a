"""Names that clash, names that lead nowhere, routes that nothing reaches."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.config.checks import check
from gateway.middleware import KINDS


def told(data: Mapping[str, object]) -> list[str]:
    return [f"{problem.path} {problem.message}" for problem in check(dict(data), KINDS)]


def listeners(*addresses: str) -> dict[str, object]:
    return {"listeners": [{"name": f"l{index}", "listen": address} for index, address in enumerate(addresses)]}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (":80", ":80"),
        (":80", "[::]:80"),
        (":80", "0.0.0.0:80"),
        ("[::]:80", "0.0.0.0:80"),
        ("localhost:80", "127.0.0.1:80"),
        ("unix:/a", "unix:/a"),
        ("fd:3", "fd:3"),
        ("systemd:a", "systemd:a"),
    ],
)
def test_addresses_that_clash(one: str, two: str) -> None:
    assert told(listeners(one, two)) == [
        f"('listeners', 1, 'listen') {two} is already taken by listeners[0], which listens on {one}"
    ]
    assert told({**listeners(one), "admin": {"listen": two}}) == [
        f"('admin', 'listen') {two} is already taken by listeners[0], which listens on {one}"
    ]


@pytest.mark.parametrize(
    ("one", "two"),
    [(":80", ":81"), ("127.0.0.1:80", ":80"), ("127.0.0.1:0", "127.0.0.1:0"), ("unix:/a", "unix:/b"), ("fd:3", "fd:4")],
)
def test_addresses_that_go_together(one: str, two: str) -> None:
    assert told(listeners(one, two)) == []


def route(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "respond": {}, **more}


@pytest.mark.parametrize(
    ("first", "second", "unreached"),
    [
        ({}, {}, 1),
        ({"path": "/a"}, {"path": {"prefix": "/a"}}, 1),
        ({"path": "/a"}, {"path": "/a/"}, 1),
        ({}, {"path": "/"}, 1),
        ({"hosts": ["A.example"]}, {"hosts": ["a.example."]}, 1),
        ({"hosts": ["a", "b"]}, {"hosts": ["b", "a"]}, 1),
        ({"hosts": ["a", "b"]}, {"hosts": ["b"]}, 1),
        ({"methods": ["GET", "PUT"]}, {"methods": ["PUT", "GET"]}, 1),
        ({"headers": {"X-A": "1"}}, {"headers": {"x-a": "1"}}, 1),
        ({}, {"priority": 1}, 0),
        ({"hosts": ["b"]}, {"hosts": ["a", "b"]}, None),
        ({"path": "/a"}, {"path": {"exact": "/a"}}, None),
        ({"path": "/a"}, {"path": "/A"}, None),
        ({"path": {"exact": "/a"}}, {"path": {"exact": "/a/"}}, None),
        ({"query": {"a": "1"}}, {"query": {"a": "2"}}, None),
        ({"client_ip": ["10.0.0.0/8"]}, {}, None),
        ({"methods": ["GET"]}, {}, None),
        ({"path": 5}, {"path": 5}, None),  # the model tells
    ],
)
def test_unreachable_routes(first: dict[str, object], second: dict[str, object], unreached: int | None) -> None:
    found = told({"routes": [route("a", **first), route("b", **second)]})
    if unreached is None:
        assert found == []
    else:
        assert found == [f"('routes', {unreached}) never reached: identical to routes[{1 - unreached}]"]


def test_names_and_destinations() -> None:
    data: dict[str, object] = {
        "upstreams": {"app": {"endpoints": ["app:80"]}},
        "routes": [
            {"name": "a", "upstream": "app"},
            {"name": "a", "upstream": "ap", "respond": {}, "path": "/b"},
            {"name": "c", "path": "/c"},
            {"name": "d", "path": "/d", "respond": {}, "redirect": {"to": "/"}},
        ],
    }
    assert told(data) == [
        "('routes', 1, 'name') \"a\" is already the name of routes[0]",
        "('routes', 1, 'respond') a route has either upstream or respond, not both",
        "('routes', 2) a route needs one of upstream, respond and redirect",
        "('routes', 3, 'redirect') a route has either respond or redirect, not both",
        "('routes', 1, 'upstream') there is no upstream \"ap\"",
    ]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"upstream": "app", "path": "/a", "rewrite": {"strip_prefix": True}, "upgrade": "any"}, ""),
        ({"upstream": "app", "path": {"prefix": "/a"}, "rewrite": {"strip_prefix": True}}, ""),
        ({"upstream": "app", "rewrite": {"strip_prefix": False, "add_prefix": "/a"}}, ""),
        ({"upstream": "app", "rewrite": {"strip_prefix": True}}, "'strip_prefix') strip_prefix needs a prefix"),
        (
            {"upstream": "app", "path": {"exact": "/a"}, "rewrite": {"strip_prefix": True}},
            "'strip_prefix') strip_prefix needs a prefix",
        ),
        ({"respond": {}, "rewrite": {"add_prefix": "/a"}}, "'rewrite') rewrite goes with upstream, not with respond"),
        ({"redirect": {"to": "/"}, "upgrade": []}, "'upgrade') upgrade goes with upstream, not with redirect"),
    ],
)
def test_what_goes_with_an_upstream(item: dict[str, object], message: str) -> None:
    found = told({"upstreams": {"app": {"endpoints": ["app:80"]}}, "routes": [{"name": "a", **item}]})
    assert len(found) == bool(message) and message in "".join(found)


UPSTREAMS = {"app": {"endpoints": ["app:80"]}, "next": {"endpoints": ["next:80"]}}


@pytest.mark.parametrize(
    ("item", "messages"),
    [
        ({"upstream": [{"name": "app"}, {"name": "next", "weight": 0}], "split_key": "path"}, []),
        ({"upstream": "app", "canary": {"upstream": "next"}, "fallback": "next", "mirror": {"upstream": "next"}}, []),
        (
            {"upstream": [{"name": "ap"}, {"name": "nxt"}, {"name": "app"}]},
            [
                "('routes', 0, 'upstream', 0, 'name') there is no upstream \"ap\" -> app",
                "('routes', 0, 'upstream', 1, 'name') there is no upstream \"nxt\" -> next",
            ],
        ),
        (
            {"upstream": [{"name": "app"}, {"name": "app", "weight": 2}]},
            ["('routes', 0, 'upstream', 1, 'name') \"app\" is here already"],
        ),
        (
            {"upstream": [{"name": "app", "weight": 0}, {"name": "next", "weight": 0}]},
            ["('routes', 0, 'upstream') one of them needs a weight above 0"],
        ),
        (
            {"upstream": "app", "canary": {"upstream": "x"}, "fallback": "nex", "mirror": {"upstream": "aap"}},
            [
                "('routes', 0, 'fallback') there is no upstream \"nex\" -> next",
                "('routes', 0, 'canary', 'upstream') there is no upstream \"x\"",
                "('routes', 0, 'mirror', 'upstream') there is no upstream \"aap\" -> app",
            ],
        ),
        (
            {"upstream": "app", "split_key": "path"},
            ["('routes', 0, 'split_key') split_key goes with an array of upstreams"],
        ),
        (
            {"respond": {}, "split_key": "path", "canary": {}, "fallback": "app", "mirror": {}},
            [
                f"('routes', 0, '{key}') {key} goes with upstream, not with respond"
                for key in ("split_key", "canary", "fallback", "mirror")
            ],
        ),
    ],
)
def test_how_a_route_is_shaped(item: dict[str, object], messages: list[str]) -> None:
    found = check({"upstreams": UPSTREAMS, "routes": [{"name": "a", **item}]}, KINDS)
    hinted = [f"{one.path} {one.message}{one.hint and ' -> '}{one.hint}" for one in found]
    assert hinted == messages


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        ({"endpoints": ["a:80"]}, ""),
        ({"discovery": {"kind": "file", "path": "x"}}, ""),
        ({"balance": "random"}, "('upstreams', 'app') an upstream needs endpoints or discovery"),
        (
            {"endpoints": ["a:80"], "discovery": {}},
            "('upstreams', 'app', 'discovery') an upstream has either endpoints or discovery, not both",
        ),
    ],
)
def test_where_endpoints_come_from(upstream: dict[str, object], message: str) -> None:
    assert "".join(told({"upstreams": {"app": upstream}})) == message


@pytest.mark.parametrize("wrong", [5, "x", [], [5], [[]], {}, {"name": 5}, [{"name": [], "listen": 5, "upstream": {}}]])
def test_what_has_the_wrong_type_is_left_to_the_model(wrong: object) -> None:
    for key in ("listeners", "admin", "routes", "upstreams"):
        assert [line for line in told({key: wrong}) if "needs one of" not in line] == []


def test_a_unix_socket_has_no_other_port_for_probes() -> None:
    upstream = {"endpoints": ["10.0.0.1:80", {"address": "unix:/run/a"}, "unix:/run/b"], "health": {"port": 9000}}
    assert [line.partition(")")[2] for line in told({"upstreams": {"app": upstream}})] == [
        ' "unix:/run/a" has no other port: it is a unix socket',
        ' "unix:/run/b" has no other port: it is a unix socket',
    ]
    assert told({"upstreams": {"app": {**upstream, "health": {}}}}) == []


def layer(name: str | None = None) -> dict[str, object]:
    return {"kind": "request_id", **({"name": name} if name is not None else {})}


def test_a_name_for_two_layers_of_a_list() -> None:
    """They would count each request twice, in one account."""
    twice = [layer("a"), layer(), layer("b"), layer("a")]
    for place, data in (
        ("", {"middleware": twice}),
        ("'routes', 0, ", {"routes": [route("r", middleware=twice)]}),
        ("'middleware_sets', 's', ", {"middleware_sets": {"s": {"middleware": twice}}}),
    ):
        first = {"": "", "'r": "routes[0].", "'m": "middleware_sets.s."}[place[:2]] + "middleware[0]"
        assert told(data) == [f"({place}'middleware', 3, 'name') \"a\" is already the name of {first}"]


def test_a_set_that_a_request_would_pass_twice() -> None:
    sets = {"s": {"middleware": [layer()]}, "t": {"middleware": [layer()]}}
    twice = 'the set "s" is already used by {}: a request would pass it twice'
    assert told({"middleware_sets": sets, "middleware": ["s", "t", "s"]}) == [
        f"('middleware', 2) {twice.format('middleware[0]')}"
    ]
    both = {"middleware_sets": sets, "middleware": ["s"], "routes": [route("r", middleware=["t", "s"])]}
    assert told(both) == [f"('routes', 0, 'middleware', 1) {twice.format('middleware[0]')}"]
    one = {"middleware_sets": sets, "routes": [route("r", middleware=["s", "t", "s"])]}
    assert told(one) == [f"('routes', 0, 'middleware', 2) {twice.format('routes[0].middleware[0]')}"]


def test_names_and_sets_that_go_together() -> None:
    data = {
        "middleware_sets": {"s": {"middleware": [layer("a")]}, "t": {"middleware": [layer("a")]}},
        "middleware": [layer("a"), layer(), layer()],
        "routes": [
            route("r", path="/r", middleware=[layer("a"), "s", "t", layer()]),
            route("q", path="/q", middleware=["s", layer("a")]),
        ],
    }
    assert told(data) == []


@pytest.mark.parametrize("kind", ["http", "tcp", "forward", "socks5"])
@pytest.mark.parametrize("accept", ["optional", "require"])
def test_a_proxy_header_that_nobody_may_send(kind: str, accept: str) -> None:
    def asked(**rules: object) -> list[str]:
        one = {"name": "l", "kind": kind, "listen": ":80", "proxy_protocol": rules}
        upstream = {"upstream": "app"} if kind == "tcp" else {}
        return told({"listeners": [one | upstream], "upstreams": {"app": {"endpoints": ["a:1"]}}})

    message = f'accept = "{accept}" needs a list `from`: of those whose header is believed'
    assert asked(accept=accept) == asked(accept=accept, **{"from": []}) == [
        f"('listeners', 0, 'proxy_protocol') {message}"
    ]
    assert asked(accept=accept, **{"from": ["unix"]}) == asked(accept="off") == asked() == []


def passing(*names: str, **more: object) -> dict[str, object]:
    return {"name": f"r{names}", "sni": list(names), "upstream": "db", **more}


def test_a_name_that_leads_to_two_places() -> None:
    tcp = [{"name": name, "kind": "tcp", "listen": f"127.0.0.1:{port}"} for name, port in (("a", 1), ("b", 2))]
    base: dict[str, object] = {"listeners": tcp, "upstreams": {"db": {"endpoints": ["127.0.0.1:9"]}}}
    routes = [passing("x.example", "*.x.example"), passing("y.example", "X.Example.", listeners=["b"])]
    assert told({**base, "tcp_routes": routes}) == [
        "('tcp_routes', 1, 'sni', 1) \"X.Example.\" is taken by tcp_routes[0] already"
    ]
    apart = [passing("x.example", listeners=["a"]), passing("x.example", "y.example", listeners=["b"])]
    assert told({**base, "tcp_routes": apart}) == []
