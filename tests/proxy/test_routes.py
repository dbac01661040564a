"""Which route a request belongs to: the precedence rule by rule, then against the rules written down slowly."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import Route as RouteConfig
from gateway.proxy.routes import Asked, NoRoute, Table, compiled, host_name


def config(name: str, **more: Any) -> RouteConfig:
    return RouteConfig.model_validate({"name": name.translate(_NO_SPACES), "upstream": "app", **more})


_NO_SPACES = str.maketrans(" ,", "_.")


def table(*routes: RouteConfig) -> Table:
    return Table([(route, compiled(route, index, None)) for index, route in enumerate(routes)])


def ask(
    routes: Table,
    host: bytes = b"example.com",
    path: str = "/",
    method: bytes = b"GET",
    query: bytes = b"",
    client: str = "10.0.0.1",
    fields: tuple[tuple[bytes, bytes], ...] = (),
) -> str:
    """The name of the route, or what is said instead."""
    found = routes.find(host, path, Asked(method, query, client, lambda: list(fields)))
    if isinstance(found, NoRoute):
        return "405 " + b", ".join(found.allow).decode() if found.allow else "404"
    return found.name.replace("_", " ").replace(".", ",")


# Hosts.


HOSTS = table(
    config("any"),
    config("com", hosts=["*.com"]),
    config("example", hosts=["*.example.com"]),
    config("exact", hosts=["www.example.com", "example.com"]),
    config("ipv6", hosts=["[2001:db8::1]"]),
)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"www.example.com", "exact"),
        (b"WWW.Example.COM", "exact"),
        (b"www.example.com:8080", "exact"),
        (b"www.example.com.", "exact"),
        (b"www.example.com.:8080", "exact"),
        (b"example.com", "exact"),
        (b"api.example.com", "example"),
        (b"a.b.c.example.com", "example"),
        (b"other.com", "com"),
        (b"com", "any"),
        (b"example.org", "any"),
        (b"notexample.com", "com"),
        (b".example.com", "example"),
        (b"", "any"),
        (b"[2001:db8::1]", "ipv6"),
        (b"[2001:DB8::1]:8443", "ipv6"),
        (b"[2001:db8::2]", "any"),
        (b"*.example.com", "example"),
        (b"10.0.0.1", "any"),
    ],
)
def test_hosts(host: bytes, expected: str) -> None:
    for _ in range(2):  # the second time it is remembered
        assert ask(HOSTS, host) == expected


def test_a_suffix_does_not_match_its_own_domain() -> None:
    assert ask(table(config("sub", hosts=["*.example.com"])), b"example.com") == "404"


def test_an_idn_matches_in_its_a_label_form() -> None:
    assert ask(table(config("idn", hosts=["bücher.example"])), b"xn--bcher-kva.example") == "idn"


def test_a_host_whose_paths_do_not_match_falls_through() -> None:
    routes = table(
        config("exact", hosts=["www.example.com"], path="/only"),
        config("suffix", hosts=["*.example.com"], path="/some"),
        config("wide", hosts=["*.com"], path="/wide"),
        config("any"),
    )
    host = b"www.example.com"
    assert [ask(routes, host, path) for path in ("/only/x", "/some", "/wide", "/none")] == [
        "exact",
        "suffix",
        "wide",
        "any",
    ]


# Paths.


PATHS = table(
    config("none"),
    config("regex", path={"regex": "/v[0-9]+/[a-z]+$"}),
    config("regex later", path={"regex": "/v1/.*"}),
    config("v1", path="/v1"),
    config("v1 deep", path="/v1/users/"),
    config("exact", path={"exact": "/v1/users"}),
    config("exact slash", path={"exact": "/v1/exact/"}),
    config("regex only", path={"regex": "/r/.*"}),
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1", "v1"),
        ("/v1/", "v1"),
        ("/v1/x", "v1"),
        ("/v1x", "none"),
        ("/v1/users", "exact"),
        ("/v1/users/", "v1 deep"),
        ("/v1/users/7", "v1 deep"),
        ("/v1/usersx", "v1"),
        ("/v1/exact/", "exact slash"),
        ("/v1/exact", "v1"),
        ("/v2/abc", "regex"),
        ("/v2/abc/", "none"),
        ("/x/v2/abc", "none"),
        ("/r/anything", "regex only"),
        ("/", "none"),
        ("*", "none"),
        ("//v1", "none"),
        ("/V1", "none"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert ask(PATHS, path=path) == expected


def test_regexes_go_in_file_order_whatever_else_they_ask() -> None:
    first = config("first", path={"regex": "/a"})
    second = config("second", path={"regex": "/a"}, methods=["GET"], headers={"x": "1"})
    assert ask(table(first, second), path="/a", fields=((b"x", b"1"),)) == "first"
    assert ask(table(second, first), path="/a", fields=((b"x", b"1"),)) == "second"
    assert ask(table(second, first), path="/a") == "first"


def test_a_prefix_of_everything_goes_before_regexes_and_no_path_after_them() -> None:
    regex = config("regex", path={"regex": "/.*"})
    assert ask(table(regex, config("slash", path="/")), path="/x") == "slash"
    assert ask(table(config("none"), regex), path="/x") == "regex"


# Predicates.


def test_predicates_within_a_path_in_their_order() -> None:
    field, query, client = {"a": "1"}, {"q": "1"}, ["10.0.0.0/8"]
    ordered = [
        config("method and two fields", methods=["GET"], headers={"a": "1", "b": "2"}),
        config("method and field", methods=["GET"], headers=field, query=query),
        config("method and query", methods=["GET"], query=query, client_ip=client),
        config("method and client", methods=["GET"], client_ip=client),
        config("method", methods=["GET"]),
        config("two fields", headers={"a": "1", "b": "2"}),
        config("field and query", headers=field, query=query),
        config("field", headers=field),
        config("two queries", query={"q": "1", "r": "2"}),
        config("query and client", query=query, client_ip=client),
        config("query", query=query),
        config("client", client_ip=client),
        config("nothing"),
    ]
    everything: dict[str, Any] = {"query": b"q=1&r=2", "fields": ((b"a", b"1"), (b"b", b"2"))}
    while ordered:
        assert ask(table(*reversed(ordered)), **everything) == ordered.pop(0).name.replace("_", " ")


def test_the_first_in_the_file_wins_when_all_else_is_equal() -> None:
    one, two = config("one", path="/a", methods=["GET"]), config("two", path="/a", methods=["GET", "PUT"])
    assert ask(table(one, two), path="/a") == "one"
    assert ask(table(two, one), path="/a") == "two"


@pytest.mark.parametrize(
    ("predicate", "asked", "holds"),
    [
        ({"methods": ["GET", "HEAD"]}, {"method": b"HEAD"}, True),
        ({"methods": ["GET"]}, {"method": b"get"}, False),
        ({"headers": {"X-A": "b"}}, {"fields": ((b"x-a", b"b"),)}, True),
        ({"headers": {"X-A": "b"}}, {"fields": ((b"x-a", b"B"),)}, False),
        ({"headers": {"X-A": "b"}}, {"fields": ((b"x-a", b"c"), (b"x-a", b"b"))}, True),
        ({"headers": {"X-A": "b"}}, {}, False),
        ({"query": {"q": "a b"}}, {"query": b"x=y&q=a%20b"}, True),
        ({"query": {"q": "a b"}}, {"query": b"q=a+b"}, True),
        ({"query": {"q": ""}}, {"query": b"q="}, True),
        ({"query": {"q": ""}}, {"query": b"q"}, True),
        ({"query": {"q": "1"}}, {"query": b"q=2"}, False),
        ({"query": {"q": "1"}}, {"query": b"q=2&q=1"}, True),
        ({"query": {"q": "é"}}, {"query": b"q=%C3%A9"}, True),
        ({"client_ip": ["10.0.0.0/8"]}, {"client": "10.1.2.3"}, True),
        ({"client_ip": ["10.0.0.0/8"]}, {"client": "11.1.2.3"}, False),
        ({"client_ip": ["10.0.0.0/8", "2001:db8::/32"]}, {"client": "2001:db8::7"}, True),
        ({"client_ip": ["10.0.0.0/8"]}, {"client": "unix"}, False),
    ],
    ids=str,
)
def test_predicates(predicate: dict[str, Any], asked: dict[str, Any], holds: bool) -> None:
    routes = table(config("asked", **predicate), config("else", priority=-1))
    assert ask(routes, **asked) == ("asked" if holds else "else")


def test_only_a_missing_method_is_told() -> None:
    routes = table(
        config("get", path="/a", methods=["GET", "HEAD"]),
        config("put", path="/a", methods=["PUT"]),
        config("post", path="/a", methods=["POST"], headers={"x": "1"}),
        config("other host", hosts=["other.example"], path="/a", methods=["PATCH"]),
    )
    assert ask(routes, path="/a", method=b"DELETE") == "405 GET, HEAD, PUT"
    assert ask(routes, path="/a", method=b"DELETE", fields=((b"x", b"1"),)) == "405 GET, HEAD, POST, PUT"
    assert ask(routes, path="/b", method=b"DELETE") == "404"
    assert ask(routes, b"other.example", "/a", b"DELETE") == "405 GET, HEAD, PATCH, PUT"


def test_a_method_that_one_route_lacks_another_may_have() -> None:
    routes = table(config("get", path="/a/b", methods=["GET"]), config("rest", path="/a"))
    assert ask(routes, path="/a/b", method=b"POST") == "rest"


# Priority.


def test_priority_goes_before_everything() -> None:
    routes = table(
        config("exact", hosts=["www.example.com"], path={"exact": "/a"}, methods=["GET"]),
        config("high", priority=10),
        config("higher, but elsewhere", priority=20, path="/b"),
        config("low", priority=-1, hosts=["www.example.com"], path={"exact": "/a"}),
    )
    assert ask(routes, b"www.example.com", "/a") == "high"
    assert ask(routes, b"www.example.com", "/b") == "higher, but elsewhere"


# The rules once more, as slowly as they are written.


def slowly(routes: list[RouteConfig], host: str, path: str, method: str, query: str, client: str, fields: Any) -> str:
    def host_rank(route: RouteConfig) -> tuple[int, int] | None:
        best = None
        for name in route.hosts or ("",):
            if name == "":
                rank = (2, 0)
            elif name == host:
                rank = (0, 0)
            elif name.startswith("*.") and host.endswith(name[1:]):
                rank = (1, -name.count("."))
            else:
                continue
            best = rank if best is None else min(best, rank)
        return best

    def path_rank(route: RouteConfig) -> tuple[int, int] | None:
        match = route.path
        if match is None:
            return (3, 0)
        if match.kind == "exact":
            return (0, 0) if path == match.value else None
        if match.kind == "prefix":
            stem = match.value.rstrip("/")
            return (1, -len(stem)) if path == stem or path.startswith(stem + "/") else None
        return (2, 0) if re.match(match.value, path) else None

    def others(route: RouteConfig) -> bool:
        given = parse_qsl(query, keep_blank_values=True)
        return (
            all(pair in fields for pair in ((k.encode(), v.encode()) for k, v in route.headers.items()))
            and all(pair in given for pair in route.query.items())
            and (not route.client_ip or any(ip_address(client) in ip_network(one) for one in route.client_ip))
        )

    best: tuple[Any, str] | None = None
    allow: set[str] = set()
    for index, route in enumerate(routes):
        at_host, at_path = host_rank(route), path_rank(route)
        if at_host is None or at_path is None or not others(route):
            continue
        if route.methods and method not in route.methods:
            allow.update(route.methods)
            continue
        within = (
            ()
            if route.path is not None and route.path.kind == "regex"
            else (not route.methods, -len(route.headers), -len(route.query), not route.client_ip)
        )
        rank = (-route.priority, at_host, at_path, within, index)
        if best is None or rank < best[0]:
            best = (rank, route.name)
    if best is not None:
        return best[1]
    return "405 " + ", ".join(sorted(allow)) if allow else "404"


SOME_HOSTS = ["a.example", "b.a.example", "c.b.a.example", "*.example", "*.a.example", "*.b.a.example"]
SOME_PATHS: list[Any] = [
    None,
    "/",
    "/a",
    "/a/",
    "/a/b",
    {"exact": "/a"},
    {"exact": "/a/"},
    {"exact": "/a/b/c"},
    {"regex": "/a"},
    {"regex": "/[ab]/.*"},
    {"regex": ".*c$"},
]


@st.composite
def configurations(draw: st.DrawFn) -> list[RouteConfig]:
    routes = []
    for number in range(draw(st.integers(1, 7))):
        more: dict[str, Any] = {
            "hosts": draw(st.lists(st.sampled_from(SOME_HOSTS), max_size=2, unique=True)),
            "methods": draw(st.lists(st.sampled_from(["GET", "POST"]), max_size=1)),
            "headers": draw(st.sampled_from([{}, {}, {"x": "1"}, {"x": "1", "y": "2"}])),
            "query": draw(st.sampled_from([{}, {}, {"q": "1"}])),
            "client_ip": draw(st.sampled_from([[], [], ["10.0.0.0/8"]])),
            "priority": draw(st.sampled_from([0, 0, 0, 1, -1])),
        }
        path = draw(st.sampled_from(SOME_PATHS))
        if path is not None:
            more["path"] = path
        routes.append(config(f"r{number}", **more))
    return routes


@given(
    configurations(),
    st.sampled_from(["a.example", "b.a.example", "c.b.a.example", "x.b.a.example", "example", "other"]),
    st.sampled_from(["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/ab", "/b/c", "/c"]),
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(["", "q=1", "q=2"]),
    st.sampled_from(["10.0.0.1", "192.0.2.1"]),
    st.sampled_from([(), ((b"x", b"1"),), ((b"x", b"1"), (b"y", b"2"))]),
)
def test_the_table_says_what_the_rules_say(
    routes: list[RouteConfig],
    host: str,
    path: str,
    method: str,
    query: str,
    client: str,
    fields: tuple[tuple[bytes, bytes], ...],
) -> None:
    expected = slowly(routes, host, path, method, query, client, fields)
    fast = table(*routes)
    for _ in range(2):
        assert ask(fast, host.encode(), path, method.encode(), query.encode(), client, fields) == expected

    # The same with the reasons: the winner is the first that lacks nothing, and every route is told of once.
    trials = fast.explain(host.encode(), path, Asked(method.encode(), query.encode(), client, lambda: list(fields)))
    assert sorted(trial.route.name for trial in trials) == sorted(route.name for route in routes)
    winner = next((trial.route.name for trial in trials if not trial.failed), None)
    assert winner == (None if expected.startswith("4") else expected)
    lacking_methods = [trial.route.methods for trial in trials if trial.failed == ("methods",)]
    if expected.startswith("4"):
        assert {method.decode() for methods in lacking_methods for method in methods} == set(
            expected[4:].split(", ") if expected[4:] else ()
        )


# Preflights.

ORIGIN, PUT = (b"origin", b"https://app.example"), (b"access-control-request-method", b"PUT")


def test_a_preflight_belongs_to_the_route_that_it_asks_for() -> None:
    configs = [
        config("get", path="/a", methods=["GET"]),
        config("put", path="/a", methods=["PUT"]),
        config("asks", path="/b", methods=["OPTIONS"]),
        config("any", path="/b"),
        config("quiet", path="/c", methods=["PUT"]),
        config("rest", path="/a/b", headers={"x": "1"}, methods=["PUT"]),
    ]
    routes = Table([(one, compiled(one, index, None, one.name != "quiet")) for index, one in enumerate(configs)])

    def options(path: str, *fields: tuple[bytes, bytes], method: bytes = b"OPTIONS") -> str:
        trials = routes.explain(b"", path, Asked(method, b"", "", lambda: list(fields)))
        found = ask(routes, b"", path, method, fields=fields)
        winner = next((trial.route.name for trial in trials if not trial.failed), None)
        assert winner == (None if found.startswith("4") else found)
        return found

    assert options("/a", ORIGIN, PUT) == options("/a", PUT, ORIGIN) == "put"
    assert options("/a/b", ORIGIN, PUT) == "put", "its fields don't come with the preflight"
    # What is no preflight, or one for something else.
    assert options("/a", PUT) == options("/a", ORIGIN) == options("/a") == "405 GET, PUT"
    assert options("/a", ORIGIN, (PUT[0], b"DELETE")) == options("/a", ORIGIN, (PUT[0], b"put")) == "405 GET, PUT"
    assert options("/a", ORIGIN, (PUT[0], b"DELETE"), PUT) == "405 GET, PUT"
    assert options("/a", ORIGIN, PUT, method=b"GET") == "get"
    assert options("/a", ORIGIN, PUT, method=b"TRACE") == "405 GET, PUT"
    assert options("/c", ORIGIN, PUT) == "405 PUT", "nobody there answers preflights"
    assert options("/b", ORIGIN, PUT) == "asks" and options("/b", ORIGIN, PUT, method=b"POST") == "any"


# Why.


def test_every_predicate_that_failed_is_told() -> None:
    routes = table(
        config("elsewhere", hosts=["other.example"], path="/b"),
        config("other host", hosts=["other.example"], path="/a"),
        config("other path", path="/b"),
        config("last", path="/a"),
        config("picky", path="/a", methods=["PUT"], headers={"x": "1"}, query={"q": "1"}, client_ip=["::1"]),
        config("put", path="/a", methods=["PUT"], headers={"y": "2"}),
        config("first", path="/a", priority=1, client_ip=["::1"]),
        config("exact", hosts=["example.com", "*.com"], path={"exact": "/a/b"}),
    )
    asked = Asked(b"GET", b"q=2", "10.0.0.1", lambda: [(b"y", b"2")])
    trials = routes.explain(b"example.com:80", "/a/b", asked)
    assert [(trial.route.name.replace("_", " "), trial.failed) for trial in trials] == [
        ("first", ("client_ip",)),
        ("exact", ()),
        ("picky", ("methods", "headers", "query", "client_ip")),
        ("put", ("methods",)),
        ("last", ()),
        ("elsewhere", ("host", "path")),
        ("other host", ("host",)),
        ("other path", ("path",)),
    ]


# Many.


def test_thousands_of_hosts() -> None:
    routes = [config(f"r{n}", hosts=[f"h{n}.example.com", f"*.h{n}.example.org"]) for n in range(3000)]
    many = table(*routes)
    for number in (0, 1, 1499, 2999):
        assert ask(many, b"h%d.example.com" % number) == f"r{number}"
        assert ask(many, b"x.y.h%d.example.org" % number) == f"r{number}"
    assert ask(many, b"h3000.example.com") == "404"


def test_hosts_that_are_invented_are_not_remembered_for_ever() -> None:
    routes = table(config("any", hosts=["*.example.com"], path="/a"))
    for number in range(20_000):
        assert ask(routes, b"x%d.example.com" % number, "/a") == "any"
    assert len(routes._chains) <= 5000


@pytest.mark.parametrize("host", [b"a." * 4000 + b"example.com", b"a" * 8000 + b".example.com"])
def test_a_host_that_no_name_can_have_is_not_remembered(host: bytes) -> None:
    """A DNS name has at most 253 characters; what is longer can only be meant to fill our memory."""
    routes = table(config("any", path="/a"), config("some", hosts=["*.example.com"]))
    ask(routes, host, "/a")
    assert sum(map(len, routes._chains)) <= 1024


def test_the_only_route_is_known_beforehand() -> None:
    assert table(config("only")).only is not None
    for more in ({"path": "/"}, {"hosts": ["a.example"]}, {"methods": ["GET"]}, {"headers": {"a": "b"}}):
        assert table(config("not every request", **more)).only is None
    assert table(config("one"), config("two", path="/a")).only is None
    assert table().only is None
    assert ask(table()) == "404"


@given(st.text("abc.:[]XYZ-", max_size=20))
def test_host_names_never_raise(text: str) -> None:
    assert host_name(text.encode()) == host_name(text.encode()).lower()
