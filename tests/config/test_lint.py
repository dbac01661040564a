"""Warnings: of what no request can reach, and only of that."""

from __future__ import annotations

import tomllib
from itertools import product
from typing import Any

import pytest
from hypothesis import given

from gateway.config.lint import lint
from gateway.config.load import load_and_lint
from gateway.config.model import Config, Route
from gateway.config.problems import dotted
from gateway.middleware import KINDS, MIDDLEWARE
from gateway.proxy.routes import Asked, NoRoute, Table, compiled
from tests.proxy.test_routes import configurations

from .conftest import UNHURRIED, Write

WEB = {"name": "web", "listen": ":8080"}


def told(*routes: dict[str, Any], **more: Any) -> list[str]:
    named = [{"name": f"r{index}", "respond": {}} | route for index, route in enumerate(routes)]
    config = Config.model_validate({"listeners": [WEB], "routes": named, **more})
    return [f"{problem.path} {problem.message}" for problem in lint(config)]


@pytest.mark.parametrize(
    ("taker", "taken"),
    [
        # "/" goes before regexes and before no path.
        ({"path": "/"}, {"path": {"regex": "/a.*"}}),
        ({"path": "/", "hosts": ["a.example"]}, {"hosts": ["a.example"], "methods": []}),
        ({"path": "/", "methods": ["GET"]}, {"path": {"regex": "/a"}, "methods": ["GET"], "query": {"q": "1"}}),
        # A priority goes before everything.
        ({"priority": 1}, {"hosts": ["a.example"], "path": {"exact": "/a"}, "methods": ["GET"], "headers": {"x": "1"}}),
        ({"priority": 1, "path": "/a"}, {"path": "/a/b"}),
        ({"priority": 1, "path": "/a/"}, {"path": {"exact": "/a/b/c"}}),
        ({"priority": 1, "path": "/a"}, {"path": {"exact": "/a"}}),
        ({"priority": 1, "hosts": ["*.example"]}, {"hosts": ["a.example", "b.c.example"], "path": "/a"}),
        ({"priority": 1, "hosts": ["*.example"]}, {"hosts": ["*.a.example"]}),
        ({"priority": 1, "headers": {"x": "1"}}, {"headers": {"x": "1", "y": "2"}}),
        ({"priority": 0}, {"path": "/a", "priority": -1}),
    ],
)
def test_routes_that_another_takes_all_of(taker: dict[str, Any], taken: dict[str, Any]) -> None:
    assert told(taker, taken) == ["('routes', 1) never reached: routes[0] takes all its requests"]
    assert told(taken, taker) == ["('routes', 0) never reached: routes[1] takes all its requests"]


@pytest.mark.parametrize(
    ("taker", "taken"),
    [
        ({"methods": ["GET", "PUT"]}, {"methods": ["GET"]}),
        ({"client_ip": ["10.0.0.0/8", "::/0"]}, {"client_ip": ["10.1.0.0/16", "2001:db8::/32"]}),
        ({"path": {"regex": "/a"}}, {"path": {"regex": "/a"}, "methods": ["GET"]}),
    ],
)
def test_routes_that_an_equal_one_before_them_takes_all_of(taker: dict[str, Any], taken: dict[str, Any]) -> None:
    assert told(taker, taken) == ["('routes', 1) never reached: routes[0] takes all its requests"]
    assert told(taken, taker) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"path": "/a"}),
        ({"path": "/a"}, {"path": "/a/b"}),
        ({}, {"hosts": ["a.example"]}),
        ({"hosts": ["*.example"]}, {"hosts": ["a.example"]}),
        ({"methods": ["GET"]}, {"methods": ["GET", "PUT"]}),
        ({"methods": ["GET"]}, {}),
        ({}, {"methods": ["GET"]}),
        ({"client_ip": ["10.0.0.0/8"]}, {"client_ip": ["::/0"]}),
        ({"client_ip": ["10.0.0.0/16"]}, {"client_ip": ["10.0.0.0/8"]}),
        ({"priority": 1, "hosts": ["*.example"]}, {"hosts": ["example"]}),
        ({"priority": 1, "hosts": ["a.example"]}, {"hosts": ["a.example", "b.example"]}),
        ({"priority": 1, "path": "/a"}, {"path": "/ab"}),
        ({"priority": 1, "path": {"exact": "/a"}}, {"path": "/a"}),
        ({"priority": 1, "path": {"regex": "/a"}}, {"path": "/a"}),
        ({"priority": 1, "query": {"q": "1"}}, {"query": {"q": "2"}}),
        ({"path": "/", "hosts": ["a.example"]}, {"path": {"regex": "/a"}}),
    ],
)
def test_routes_that_are_reached(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert told(first, second) == []


def test_each_host_may_have_another_taker() -> None:
    routes = ({"priority": 1, "hosts": ["a.example"]}, {"priority": 1, "hosts": ["*.b.example"]})
    assert told(*routes, {"hosts": ["a.example", "x.b.example"]}) == [
        "('routes', 2) never reached: routes[0] takes all its requests"
    ]


def test_the_rules_of_many_routes_are_compared_quickly() -> None:
    assert told(*({"hosts": [f"h{n}.example"], "path": f"/p{n}"} for n in range(5000))) == []
    assert told(*({"path": f"/p{n}"} for n in range(5000))) == []


@UNHURRIED
@given(configurations())
def test_no_request_reaches_what_is_warned_of(routes: list[Route]) -> None:
    config = Config.model_validate({"listeners": [WEB], "upstreams": {"app": {"endpoints": ["a:1"]}}})
    warned = {problem.path[1] for problem in lint(config.model_copy(update={"routes": tuple(routes)}))}
    if not warned:
        return
    table = Table([(route, compiled(route, index, None)) for index, route in enumerate(routes)])
    for host, path, method, query, client, fields in product(
        (b"a.example", b"b.a.example", b"c.b.a.example", b"x.example", b"other"),
        ("/", "/a", "/a/", "/a/b", "/a/b/c", "/b/c", "*"),
        (b"GET", b"POST"),
        (b"", b"q=1"),
        ("10.0.0.1", "192.0.2.1"),
        ([], [(b"x", b"1")], [(b"x", b"1"), (b"y", b"2")]),
    ):
        found = table.find(host, path, Asked(method, query, client, lambda fields=fields: fields))  # type: ignore[misc]
        assert isinstance(found, NoRoute) or found.order[-1] not in warned


# Predicates that hold for no request.


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ({"path": "/a%20b"}, 'never matches: paths are compared decoded and normalised, without "%20"'),
        ({"path": {"exact": "/a%2fb"}}, 'decoded and normalised, without "%2f"'),
        ({"path": {"exact": "/a//"}}, 'decoded and normalised, without "//"'),
        ({"path": "/a/../b"}, 'decoded and normalised, without "/../"'),
        ({"path": "/."}, 'decoded and normalised, without "/."'),
        ({"path": "/a%2Fb"}, 'with path_policy = "reject" a path with "%2F" is answered 400'),
        ({"path": "/a\\b"}, 'with path_policy = "reject" a path with "\\" is answered 400'),
        ({"headers": {"X_Tenant": "blue"}}, 'never matches: header fields with "_" in their names are dropped'),
    ],
)
def test_predicates_that_never_hold(route: dict[str, Any], message: str) -> None:
    [warning] = told(route)
    assert message in warning


@pytest.mark.parametrize(
    "route",
    [
        *({"path": path} for path in ("/", "/a/", "/a//", "/a b", "/café", "/.well-known/x", "/a%25", "/a;b", "/%zz")),
        *({"path": {"exact": path}} for path in ("/a/", "/...", "/a..")),
        {"path": {"regex": "/a//b%20"}},
        {"headers": {"x-tenant": "a_b"}},
    ],
)
def test_predicates_that_may_hold(route: dict[str, Any]) -> None:
    assert told(route) == []


def test_an_escaped_slash_matches_where_it_may_pass() -> None:
    passing = {"name": "inner", "listen": ":8081", "path_policy": "pass"}
    assert told({"path": "/a%2Fb"}, listeners=[WEB, passing]) == []


# Loops.


@pytest.mark.parametrize(
    ("listen", "endpoint"),
    [
        (":8080", "127.0.0.1:8080"),
        (":8080", "localhost:8080"),
        (":8080", "[::1]:8080"),
        (":80", "http://127.0.0.1/base"),
        ("[::]:8080", "127.1.2.3:8080"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("10.0.0.1:8080", "10.0.0.1:8080"),
        ("localhost:8080", "127.0.0.1:8080"),
        ("127.0.0.1:8080", "localhost:8080"),
        ("unix:/run/a", "unix:/run/a"),
    ],
)
def test_an_endpoint_that_is_the_gateway(listen: str, endpoint: str) -> None:
    listeners = [{"name": "web", "listen": listen}]
    assert told(upstreams={"app": {"endpoints": ["a:1", endpoint]}}, listeners=listeners) == [
        "('upstreams', 'app', 'endpoints', 1) this is the listener web: requests that come round are answered 508"
    ]


@pytest.mark.parametrize(
    ("listen", "endpoint"),
    [
        (":8080", "127.0.0.1:8081"),
        (":8080", "app:8080"),
        (":8080", "10.0.0.1:8080"),
        ("0.0.0.0:8080", "[::1]:8080"),
        ("10.0.0.1:8080", "127.0.0.1:8080"),
        ("unix:/run/a", "unix:/run/b"),
        ("fd:3", "127.0.0.1:3"),
        ("systemd:web", "127.0.0.1:80"),
    ],
)
def test_an_endpoint_that_may_be_another(listen: str, endpoint: str) -> None:
    assert told(upstreams={"app": {"endpoints": [endpoint]}}, listeners=[{"name": "web", "listen": listen}]) == []


def test_warnings_have_a_place(write: Write) -> None:
    text = """
[[listeners]]
name = "web"
listen = ":8080"

[upstreams.app]
endpoints = [
  "127.0.0.1:8080",
]

[[routes]]
name = "all"
priority = 1
upstream = "app"

[[routes]]
name = "never"
path = "/a%20b"
upstream = "app"
"""
    path = write(gateway_toml=text)
    config, warnings = load_and_lint(path, {})
    assert config.routes[1].name == "never"
    loop, taken, never = [str(warning).replace(f"{path.parent}/", "") for warning in warnings]
    assert loop.startswith("gateway.toml:8:3: upstreams.app.endpoints[0]: this is the listener web:")
    assert taken == "gateway.toml:16:3: routes[1]: never reached: routes[0] takes all its requests (gateway.toml:11)"
    assert never.startswith("gateway.toml:18:1: routes[1].path.prefix: never matches: paths are compared")


# Keys without effect, attempts that may have one twice, secrets that are none.


def shaped(route: dict[str, Any] | None = None, **app: Any) -> list[str]:
    """The warnings about a route to "app", which has these keys; "next" is there too."""
    upstreams = {"app": {"endpoints": ["a:1"], **app}, "next": {"endpoints": ["b:1"]}}
    return told({"upstream": "app", "respond": None, **(route or {})}, upstreams=upstreams)


SHARED = [{"name": "app"}, {"name": "next"}]
SECRET = "0123456789abcdef"


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (
            {"mirror": {"upstream": "app"}},
            "('routes', 0, 'mirror', 'upstream') \"app\" gets requests of this route and copies of them too",
        ),
        (
            {"upstream": SHARED, "mirror": {"upstream": "next"}},
            "('routes', 0, 'mirror', 'upstream') \"next\" gets requests of this route and copies of them too",
        ),
        (
            {"fallback": "app"},
            "('routes', 0, 'fallback') never used: it is the upstream that all requests of the route go to",
        ),
        (
            {"canary": {"upstream": "app", "by": "header:x"}},
            "('routes', 0, 'canary', 'upstream') changes nothing: all requests of the route go there",
        ),
    ],
)
def test_shaping_without_effect(route: dict[str, Any], message: str) -> None:
    assert shaped(route) == [message]


@pytest.mark.parametrize(
    "route",
    [
        {"mirror": {"upstream": "next"}, "fallback": "next", "canary": {"upstream": "next", "by": "header:x"}},
        {"upstream": SHARED, "fallback": "app"},
        {"upstream": SHARED, "canary": {"upstream": "next", "by": "header:x"}},
        {"upstream": [{"name": "app"}, {"name": "next", "weight": 0}], "split_key": "path"},
        {"upstream": [{"name": "app"}, {"name": "next", "weight": 0}], "mirror": {"upstream": "next"}},
    ],
)
def test_shaping_with_effect(route: dict[str, Any]) -> None:
    assert shaped(route) == []


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (
            {"hash_key": "path"},
            "('upstreams', 'app', 'hash_key') not used: balance is \"round_robin\", not \"consistent_hash\"",
        ),
        (
            {"retry": {"methods": ["GET", "POST"]}},
            "('upstreams', 'app', 'retry', 'methods', 1) what a POST does may be done twice: "
            "an attempt that failed may have had its effect",
        ),
        (
            {"retry": {"methods": ["PATCH"]}},
            "('upstreams', 'app', 'retry', 'methods', 0) what a PATCH does may be done twice: "
            "an attempt that failed may have had its effect",
        ),
        (
            {"sticky": {"cookie": "c", "secret": "change me"}},
            "('upstreams', 'app', 'sticky', 'secret') this is the secret of the examples, which everybody knows",
        ),
        (
            {"sticky": {"cookie": "c", "secret": SECRET[1:]}},
            "('upstreams', 'app', 'sticky', 'secret') shorter than 16 bytes: "
            "it can be guessed, and then the cookie can be forged",
        ),
        (
            {"sticky": {"cookie": "c", "secret": SECRET, "same_site": "none", "secure": "never"}},
            "('upstreams', 'app', 'sticky', 'secure') "
            'browsers refuse a cookie of same_site = "none" that is not secure',
        ),
    ],
)
def test_an_upstream_that_cannot_be_meant(app: dict[str, Any], message: str) -> None:
    assert shaped(**app) == [message]


@pytest.mark.parametrize(
    "app",
    [
        {"balance": "consistent_hash", "hash_key": "path"},
        {"retry": {"methods": ["GET", "PURGE"]}},
        {"retry": {"methods": ["POST"], "attempts": 0}},
        {"sticky": {"cookie": "c", "secret": SECRET, "same_site": "none"}},
        {"sticky": {"cookie": "c", "secret": "é" * 8}},
    ],
)
def test_an_upstream_that_can_be_meant(app: dict[str, Any]) -> None:
    assert shaped(**app) == []


def test_a_warning_shows_no_secret() -> None:
    assert "hush" not in "".join(shaped(sticky={"cookie": "c", "secret": "hush"}))


JWT = tomllib.loads(f"layer = {MIDDLEWARE['jwt'].EXAMPLE}")["layer"]
BY_CLAIM = {"kind": "rate_limit", "rate": "1/s", "key": "jwt:sub"}
ADDRESS = {"kind": "concurrency_limit", "max": 1}


def onions(around: list[Any], *routes: list[Any], **sets: list[Any]) -> list[str]:
    named = [{"name": f"r{at}", "path": f"/{at}", "respond": {}, "middleware": one} for at, one in enumerate(routes)]
    data = {
        "listeners": [WEB],
        "middleware": around,
        "routes": named,
        "middleware_sets": {name: {"middleware": layers} for name, layers in sets.items()},
    }
    config = Config.model_validate(data, context=KINDS)
    return [f"{dotted(problem.path)} {problem.message}" for problem in lint(config)]


NO_JWT = "but no jwt layer is outside of it: no request has such a claim"


def test_a_limit_by_a_claim_that_no_request_has() -> None:
    told = f'middleware[0].key counts by "jwt:sub", {NO_JWT}'
    assert onions([BY_CLAIM, JWT], [BY_CLAIM]) == [told]
    assert onions([], [ADDRESS, BY_CLAIM, JWT]) == [f"routes[0].{told.replace('[0]', '[1]')}"]
    text = BY_CLAIM | {"key": "{client_ip}/{jwt:sub}"}
    assert onions([], [], [text]) == [f'routes[1].middleware[0].key counts by "{{client_ip}}/{{jwt:sub}}", {NO_JWT}']
    assert onions([], ["who", "limits"], ["limits"], who=[JWT], limits=[ADDRESS, BY_CLAIM]) == [
        f'routes[1].middleware[0] "limits" counts by "jwt:sub", {NO_JWT}'
    ]


def test_a_limit_by_a_claim_that_somebody_verifies() -> None:
    assert onions([JWT], [BY_CLAIM]) == []
    assert onions([], [JWT, BY_CLAIM]) == []
    assert onions([{"kind": "hooks", "use": "mine:Hooks"}], [BY_CLAIM]) == []
    assert onions([], [BY_CLAIM | {"key": "header:jwt"}], [BY_CLAIM | {"key": "{client_ip}{{jwt:sub}}"}]) == []


DNS = {"name": "dns", "kind": "udp", "listen": ":53", "upstream": "app"}


def told_of_datagrams(upstream: dict[str, Any], *routes: dict[str, Any]) -> list[str]:
    made = {"upstreams": {"app": {"endpoints": ["10.0.0.1:53"], **upstream}}, "listeners": [WEB, DNS]}
    config = Config.model_validate({**made, "routes": list(routes)})
    return [f"{problem.path} {problem.message}" for problem in lint(config)]


def test_what_means_nothing_for_datagrams() -> None:
    upstream = {"retry": {"attempts": 1}, "pool": {}, "max_requests": 9, "outlier": {}}
    assert told_of_datagrams(upstream) == [
        "('upstreams', 'app', 'pool') not used: all that comes here are datagrams of dns",
        "('upstreams', 'app', 'retry') not used: all that comes here are datagrams of dns",
    ]
    assert told_of_datagrams(upstream, {"name": "r", "upstream": "app"}) == []


TCP = {"name": "tcp", "kind": "tcp", "listen": "127.0.0.1:7001", "upstream": "db"}


def streams(upstream: dict[str, Any], *listeners: dict[str, Any], **more: Any) -> list[str]:
    data = {"listeners": listeners or [TCP], "upstreams": {"db": {"endpoints": ["127.0.0.1:9011"], **upstream}}, **more}
    config = Config.model_validate(data, context=KINDS)
    return [f"{dotted(problem.path)} {problem.message}" for problem in lint(config)]


def test_what_connections_do_not_have() -> None:
    hashed = {"balance": "consistent_hash"}
    assert streams(hashed) == []
    told = "upstreams.db.hash_key not used for what comes by the listener tcp: of that only client_ip is known"
    assert streams(hashed | {"hash_key": "path"}) == [told]
    sticky = {"sticky": {"cookie": "c", "secret": "a secret of enough bytes"}}
    assert streams(sticky) == ["upstreams.db.sticky not used for what comes by the listener tcp: that has no cookies"]


def test_a_connection_that_goes_round() -> None:
    told = "this is the listener tcp, which leads here: what comes goes round without end"
    assert streams({"endpoints": ["127.0.0.1:9011", "127.0.0.1:7001"]}) == [f"upstreams.db.endpoints[1] {told}"]
    routed = {"name": "r", "sni": ["a.example"], "upstream": "db"}
    only_routed = {key: value for key, value in TCP.items() if key != "upstream"}
    assert streams({"endpoints": ["127.0.0.1:7001"]}, only_routed, tcp_routes=[routed]) == [
        f"upstreams.db.endpoints[0] {told}"
    ]
    assert streams({"endpoints": ["127.0.0.1:7002"]}) == []


DATAGRAMS = DNS | {"upstream": "db"}
OF_REQUESTS = {
    "timeouts": {"connect": "1s", "total": "2s", "tunnel_idle": "1h", "response": "3s", "idle": "1m"},
    "host": "endpoint",
    "pool": {"max_idle": 3},
    "retry": {"attempts": 0},
    "hedge": {},
    "queue": {},
}


def test_what_means_nothing_for_connections() -> None:
    told = "not used: all that comes here are connections of tcp"
    assert streams(OF_REQUESTS) == [
        f"upstreams.db.timeouts.response {told}",
        f"upstreams.db.timeouts.idle {told}",
        f"upstreams.db.timeouts.tunnel_idle {told}",
        f"upstreams.db.host {told}",
        f"upstreams.db.pool {told}",
        f"upstreams.db.retry {told}; each endpoint that is ready is tried",
        f"upstreams.db.hedge {told}",
    ]
    assert streams({"timeouts": {"connect": "1s"}, "queue": {}}) == []
    assert streams({"host": "db.example", "health": {}}) == []
    assert streams(OF_REQUESTS, WEB, TCP, routes=[{"name": "r", "upstream": "db"}]) == []


@pytest.mark.parametrize("listeners", [(TCP, DATAGRAMS), (DATAGRAMS, TCP)])
def test_what_means_nothing_for_connections_and_datagrams(listeners: tuple[dict[str, Any], ...]) -> None:
    told = "not used: all that comes here are connections of tcp and datagrams of dns"
    assert streams({"timeouts": {"connect": "1s", "idle": "1s"}, "queue": {}, "hedge": {}}, *listeners) == [
        f"upstreams.db.timeouts.idle {told}",
        f"upstreams.db.hedge {told}",
    ]


def test_what_no_listener_uses() -> None:
    assert streams({}, TCP, DATAGRAMS | {"backlog": 9}, egress={"lan": {}}) == [
        "egress.lan not used: no listener names it",
        "listeners[1].backlog not used: datagrams wait in the receive buffer",
    ]
    out = {"name": "out", "kind": "forward", "listen": "127.0.0.1:3128", "egress": "lan"}
    assert streams({}, TCP | {"backlog": 9}, out, egress={"lan": {}}) == []


def test_an_address_for_datagrams_that_nobody_may_send() -> None:
    socks = {"name": "socks", "kind": "socks5", "listen": "127.0.0.1:1080", "udp_address": "192.0.2.7"}
    assert streams({}, TCP, socks) == ["listeners[1].udp_address not used: udp_associate is false"]
    assert streams({}, TCP, socks | {"udp_associate": True}) == []


SENDING = TCP | {"proxy_protocol": {"send": "v2"}}


@pytest.mark.parametrize("health", [{}, {"kind": "tcp", "tls": {}}])
def test_probes_that_say_nothing_of_who_asks(health: dict[str, Any]) -> None:
    told = (
        "upstreams.db.health connections of the listener tcp begin with a PROXY header here, and probes with none: "
        "endpoints that require one refuse them; see proxy_protocol"
    )
    assert streams({"health": health}, SENDING) == [told]
    assert streams({"health": health}) == []
    for right in ({"port": 9000}, {"proxy_protocol": "v2"}):
        assert streams({"health": health | right}, SENDING) == []
    assert streams({"health": {"kind": "tcp"}}, SENDING) == []


@pytest.mark.parametrize("kind", ["forward", "socks5"])
def test_a_proxy_for_everybody(kind: str) -> None:
    out = {"name": "out", "kind": kind}
    for listen in (":3128", "10.0.0.1:3128", "0.0.0.0:3128", "[::]:3128"):
        told = "listeners[1] anybody who reaches this may use it: it has neither auth nor clients"
        assert streams({}, TCP, out | {"listen": listen}) == [told]
        for known in ({"clients": ["10.0.0.0/8"]}, {"auth": {"htpasswd": "/etc/users"}}):
            assert streams({}, TCP, out | {"listen": listen} | known) == []
    for listen in ("127.0.0.1:3128", "[::1]:3128", "localhost:3128", "unix:/run/out.sock"):
        assert streams({}, TCP, out | {"listen": listen}) == []


def told_of_egress(*allow: str, **more: Any) -> list[str]:
    out = {"name": "out", "kind": "forward", "listen": "127.0.0.1:3128", "egress": "lan"}
    return streams({}, out, egress={"lan": {"allow": allow, **more}})


def test_a_way_out_that_leads_in() -> None:
    both = 'also lets clients go to loopback and metadata addresses; say "public"'
    assert told_of_egress("10.0.0.0/8", "0.0.0.0/0", "::/0") == [
        f"egress.lan.allow[1] {both}",
        f"egress.lan.allow[2] {both}",
    ]
    assert told_of_egress("128.0.0.0/1") == [f"egress.lan.allow[0] {both.replace('loopback and ', '')}"]
    assert told_of_egress("0.0.0.0/0", deny=["127.0.0.0/8"]) == [
        f"egress.lan.allow[0] {both.replace('loopback and ', '')}"
    ]
    assert told_of_egress("0.0.0.0/0", deny=["127.0.0.0/8", "169.254.0.0/16"]) == []
    assert told_of_egress("public", "10.0.0.0/8", "127.0.0.0/8", "169.254.169.254", "2000::/3", "64.0.0.0/2") == [
        f"egress.lan.allow[5] {both.replace(' and metadata', '')}"
    ]
