"""Files in, one frozen value out, or every mistake with its line and key."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config.checks import check
from gateway.config.explain import explain
from gateway.config.load import load
from gateway.config.model import Config
from gateway.config.problems import ConfigErrors
from gateway.config.values import Origin, TcpAddress, UnixAddress
from gateway.middleware import KINDS

from .conftest import MINIMAL, UNHURRIED, Mistakes, Write

EXAMPLES = Path(__file__).parents[3] / "shared/examples"


def test_the_least_that_is_needed(config: Callable[..., Config]) -> None:
    loaded = config()
    assert loaded.listeners[0].listen == TcpAddress("", 8080)
    assert loaded.process.workers == "auto"
    assert loaded.process.drain_timeout == 30.0
    assert loaded.http_listeners[0].limits.headers == 32768
    assert loaded.log.access == "stdout"
    assert loaded.admin is None and loaded.upstreams == {} and loaded.routes == ()
    with pytest.raises(ValidationError):
        loaded.process.workers = 2


def test_everything_that_may_be_written(config: Callable[..., Config]) -> None:
    loaded = config("""
        [process]
        workers = 3
        control = "run/control.sock"
        pid_file = "/run/gateway.pid"
        max_memory = "300MiB"
        [log]
        access = "access.log"
        error = "stderr"
        [[listeners]]
        name = "inner"
        listen = "unix:/run/inner.sock"
        trusted_proxies = ["unix", "10.0.0.1", "2001:db8::/32"]
        forwarded = "both"
        path_policy = "pass"
        reason_header = true
        error_pages = { 4xx = "4xx.html" }
        timeouts = { body_min_rate = "10KiB/m" }
        [upstreams.app]
        host = "endpoint"
        timeouts = { tunnel_idle = "10m" }
        endpoints = ["unix:/run/app.sock", { address = "http://b:81/base", weight = 2 }]
        pool = { max_idle = 0, max_age = "1h" }
        [[routes]]
        name = "all"
        hosts = ["Example.COM.", "*.Bücher.example", "[::1]", "10.0.0.1"]
        path = "/v1"
        methods = ["GET"]
        headers = { X-Tenant = "blue" }
        query = { v = "" }
        client_ip = ["10.0.0.0/8", "::1"]
        priority = -1
        upstream = "app"
        rewrite = { strip_prefix = true, add_prefix = "/v2" }
        upgrade = ["WebSocket", "foo/2"]
        error_pages = { 404 = "404.html", 5xx = "/5xx.html" }
        [[routes]]
        name = "images"
        path = { regex = '/i/\\d+' }
        respond = { status = 204 }
        [[routes]]
        name = "moved"
        path = "/moved"
        redirect = { to = "https://example.com/there?a=b#c", status = 301, keep_query = true }
        [[routes]]
        name = "legacy"
        path = "/legacy"
        upstream = "app"
        upgrade = "any"
        rewrite = { regex = '/legacy/(?P<id>\\d+)', to = '/item?id=\\g<id>' }
        """)
    assert loaded.process.workers == 3 and loaded.process.max_memory == 300 << 20
    app = loaded.upstreams["app"]
    assert [(endpoint.address, endpoint.weight) for endpoint in app.endpoints] == [
        (Origin(UnixAddress("/run/app.sock")), 1),
        (Origin(TcpAddress("b", 81), "/base"), 2),
    ]
    assert [endpoint.base for endpoint in app.endpoints] == ["", "/base"]
    assert (app.host, app.timeouts.tunnel_idle) == ("endpoint", 600.0)
    web, inner = loaded.http_listeners
    assert web.timeouts.body_min_rate == 1024.0 and inner.timeouts.body_min_rate == pytest.approx(10240 / 60)
    assert (web.forwarded, web.path_policy, web.reason_header, web.trusted_proxies) == (
        "x-forwarded",
        "reject",
        False,
        (),
    )
    assert (inner.forwarded, inner.path_policy, inner.reason_header) == ("both", "pass", True)
    assert inner.trusted_proxies == ("unix", "10.0.0.1/32", "2001:db8::/32")
    assert Path(inner.error_pages["4xx"]).is_absolute()
    first, second, moved, legacy = loaded.routes
    assert first.rewrite and first.rewrite.strip_prefix and first.rewrite.add_prefix == "/v2"
    assert first.upgrade == ("websocket", "foo/2") and second.upgrade == ("websocket",) and legacy.upgrade == "any"
    assert first.error_pages["5xx"] == "/5xx.html" and Path(first.error_pages["404"]).is_absolute()
    assert moved.redirect and (moved.redirect.status, moved.redirect.keep_query) == (301, True)
    assert legacy.rewrite and legacy.rewrite.to == "/item?id=\\g<id>"
    assert first.hosts == ("example.com", "*.xn--bcher-kva.example", "[::1]", "10.0.0.1")
    assert first.path and (first.path.kind, first.path.value) == ("prefix", "/v1")
    assert first.headers == {"x-tenant": "blue"}
    assert first.client_ip == ("10.0.0.0/8", "::1/128")
    assert second.path and (second.path.kind, second.path.value) == ("regex", "/i/\\d+")
    assert second.respond and second.respond.status == 204


def test_relative_paths_start_at_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = MINIMAL + '[process]\ncontrol = "c.sock"\npid_file = "../g.pid"\n[log]\naccess = "off"\nerror = "logs/e"\n'
    path = write(gateway_toml=text)
    monkeypatch.chdir(path.parent)
    loaded = load("gateway.toml", {})
    assert loaded.process.control == str(path.parent / "c.sock")
    assert loaded.process.pid_file == str(path.parent / "../g.pid")
    assert (loaded.log.access, loaded.log.error) == ("off", str(path.parent / "logs/e"))


def test_a_value_from_the_environment_becomes_a_number_only_where_one_is_wanted(config: Callable[..., Config]) -> None:
    text = """
        [process]
        workers = "${WORKERS:-auto}"
        [upstreams.app]
        endpoints = [{ address = "${APP:-a:1}", weight = "${WEIGHT:-3}" }]
        [[routes]]
        name = "r"
        respond = { status = "${STATUS:-200}", body = "${BODY:-2}" }
        """
    plain = config(text)
    assert plain.process.workers == "auto"
    assert plain.routes[0].respond and plain.routes[0].respond.body == "2"
    changed = config(text, WORKERS="2", WEIGHT="7", STATUS="204", BODY=" ".strip())
    assert changed.process.workers == 2
    assert changed.upstreams["app"].endpoints[0].weight == 7


def test_bytes_that_editors_leave_behind(write: Write) -> None:
    text = MINIMAL.replace("\n", "\r\n").encode("utf-8-sig")
    assert load(write(gateway_toml=text), {}).listeners[0].name == "web"


# Error texts, golden.

WRONG = """\
[process]
workers = "two"
drain_timeout = 30
pidfile = "/run/gateway.pid"

[log]
level = "warn"
access = false

[[listeners]]
name = "web site"
listen = "web.example.com:80"
[listeners.limits]
body = "1G"
header_count = 0

[[listeners]]
name = "web"

[upstreams.app]
endpoints = [
  "127.0.0.1",
  { address = "127.0.0.1:9002", weight = 0 },
  { address = "127.0.0.1:9003", wieght = 2 }, "http://app:80/base?a=b",
]
timeouts.connect = "0s"

[upstreams.api]
endpoints = []

[[routes]]
name = "api"
path = { exact = "v1", prefx = "/v1" }
upstream = "apl"

[[routes]]
name = "api"
hosts = ["example.com:80", "a..b", ""]
methods = ["get"]
path = "/a?b"
client_ip = ["10.0.0.1/8"]
headers = { "x y" = "1", x-z = "a\\nb" }
priority = 1.5

[[routes]]
name = "both"
path = { regex = "(" }
upstream = "${UPSTREAM}"
respond = { status = 99, headers = { X-A = 1 } }

[[route]]
name = "typo"
"""

TOLD = """\
gateway.toml:2:1: process.workers: expected a whole number or "auto", got "two"
gateway.toml:3:1: process.drain_timeout: expected a duration such as "30s", got 30
gateway.toml:4:1: process.pidfile: unknown key "pidfile" (did you mean "pid_file"?)
gateway.toml:7:1: log.level: expected "debug", "info", "warning" or "error", got "warn" (did you mean "warning"?)
gateway.toml:8:1: log.access: expected a string, got false
gateway.toml:11:1: listeners[0].name: expected 1 to 64 letters, digits, '_', '.' or '-', got "web site"
gateway.toml:12:1: listeners[0].listen: expected an IP address, localhost or nothing before the port \
(no name is resolved here), got "web.example.com:80"
gateway.toml:14:1: listeners[0].limits.body: expected a size such as "64KiB", got "1G"
gateway.toml:15:1: listeners[0].limits.header_count: expected a whole number of at least 1, got 0
gateway.toml:17:3: listeners[1].listen: required, but missing
gateway.toml:22:3: upstreams.app.endpoints[0]: expected an address such as "10.0.0.1:8080", "app.internal:8080" \
or "unix:/run/app.sock", got "127.0.0.1"
gateway.toml:23:33: upstreams.app.endpoints[1].weight: expected a whole number from 1 to 65535, got 0
gateway.toml:24:33: upstreams.app.endpoints[2].wieght: unknown key "wieght" (did you mean "weight"?)
gateway.toml:24:47: upstreams.app.endpoints[3]: the address of an endpoint has no query and no fragment, \
got "http://app:80/base?a=b"
gateway.toml:26:10: upstreams.app.timeouts.connect: expected a duration above 0 and at most "8760h", got "0s"
gateway.toml:29:1: upstreams.api.endpoints: expected at least one item, got none
gateway.toml:33:10: routes[0].path.exact: expected a path that starts with "/", got "v1"
gateway.toml:33:24: routes[0].path.prefx: unknown key "prefx" (did you mean "prefix"?)
gateway.toml:34:1: routes[0].upstream: there is no upstream "apl" (did you mean "app"?)
gateway.toml:36:3: routes[1]: a route needs one of upstream, respond and redirect
gateway.toml:37:1: routes[1].name: "api" is already the name of routes[0] (gateway.toml:31)
gateway.toml:38:10: routes[1].hosts[0]: expected a host such as "example.com" or "*.example.com", without a port, \
got "example.com:80"
gateway.toml:38:28: routes[1].hosts[1]: expected a host such as "example.com" or "*.example.com", without a port, \
got "a..b"
gateway.toml:38:36: routes[1].hosts[2]: expected a host such as "example.com" or "*.example.com", without a port, \
got ""
gateway.toml:39:12: routes[1].methods[0]: expected a method in upper case such as "GET", got "get"
gateway.toml:40:1: routes[1].path: a path is matched without "?" and what follows it, got "/a?b"
gateway.toml:41:14: routes[1].client_ip[0]: expected a network, got an address inside 10.0.0.0/8: "10.0.0.1/8"
gateway.toml:42:13: routes[1].headers."x y": expected a header name such as "x-tenant", got "x y"
gateway.toml:42:26: routes[1].headers.x-z: expected a header value on one line, got "a\\nb"
gateway.toml:43:1: routes[1].priority: expected a whole number, got 1.5
gateway.toml:47:10: routes[2].path.regex: not a regular expression: missing ), unterminated subpattern at position 0
gateway.toml:48:1: routes[2].upstream: the environment variable UPSTREAM is not set, and no default is given
gateway.toml:49:1: routes[2].respond: a route has either upstream or respond, not both
gateway.toml:49:13: routes[2].respond.status: expected a whole number from 200 to 599, got 99
gateway.toml:49:38: routes[2].respond.headers.X-A: expected a string, got 1
gateway.toml:51:3: route: unknown key "route" (did you mean "routes"?)
"""


def test_every_mistake_is_told_once_with_its_place(mistakes: Mistakes) -> None:
    assert "\n".join(mistakes(WRONG)) + "\n" == TOLD


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = ", "gateway.toml:1:5: invalid value at the end of the file"),
        ("[a]\nb = 1\nb = 2", "gateway.toml:3:6: cannot overwrite a value at the end of the file"),
        ("[a]\nb = 1\nb = 2\n", "gateway.toml:3:6: cannot overwrite a value"),
        ("[a", "gateway.toml:1:3: expected ']' at the end of a table declaration at the end of the file"),
        (b"a = 1\nb = '\xff'", "gateway.toml:2:6: not UTF-8: byte 0xff"),
        ("a = " + "[" * 5000 + "]" * 5000, "gateway.toml: nested too deeply"),
        ("", "gateway.toml:1:1: listeners: required, but missing"),
        ("listeners = []", "gateway.toml:1:1: listeners: expected at least one item, got none"),
        ("listeners = 5", "gateway.toml:1:1: listeners: expected an array, got 5"),
        ("listeners = [5]", "gateway.toml:1:14: listeners[0]: expected a table, got 5"),
        (MINIMAL + "process = 5", 'gateway.toml:4:1: listeners[0].process: unknown key "process"'),
        ("admin = 2026-01-01\n" + MINIMAL, "gateway.toml:1:1: admin: expected a table, got a date or time"),
        ("upstreams = []\n" + MINIMAL, "gateway.toml:1:1: upstreams: expected a table, got an array"),
        (
            MINIMAL + "[[routes]]\nname = 'r'\nrespond = {}\npath.regex = '[[a]'",
            "gateway.toml:7:6: routes[0].path.regex: not a regular expression: Possible nested set at position 1",
        ),
        ("includes = []\n" + MINIMAL, 'gateway.toml:1:1: includes: unknown key "includes" (did you mean "include"?)'),
        (MINIMAL + "backlog = '10'", 'gateway.toml:4:1: listeners[0].backlog: expected a whole number, got "10"'),
        (MINIMAL + "backlog = true", "gateway.toml:4:1: listeners[0].backlog: expected a whole number, got true"),
        (
            MINIMAL + '[process]\ncontrol = "/' + "x" * 107 + '"',
            f'gateway.toml:5:1: process.control: the path of a unix socket has at most 107 bytes, got "/{"x" * 56}..."',
        ),
        (
            MINIMAL + '[log]\nerror = "off"',
            'gateway.toml:5:1: log.error: expected "stderr" or the path of a file, got "off"',
        ),
        (MINIMAL + '[log]\naccess = ""', 'gateway.toml:5:1: log.access: expected the path of a file, got ""'),
        (
            MINIMAL + '[upstreams."a b"]\nendpoints = ["a:1"]',
            "gateway.toml:4:12: upstreams.\"a b\": expected 1 to 64 letters, digits, '_', '.' or '-', got \"a b\"",
        ),
    ],
)
def test_one_mistake(mistakes: Mistakes, text: str | bytes, told: str) -> None:
    assert mistakes(text) == [told]


ROUTE = MINIMAL + "[[routes]]\nname = 'r'\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("redirect = {}", ":6:1: routes[0].redirect.to: required, but missing"),
        ("redirect = { to = '/a', status = 200 }", ".redirect.status: expected 301, 302, 303, 307 or 308, got 200"),
        ("redirect = { to = '/a', keep_query = 1 }", ".redirect.keep_query: expected true or false, got 1"),
        ("redirect = { to = 'a' }", '.redirect.to: expected a path such as "/new" or a URL'),
        ("redirect = { to = '//evil.example' }", ".redirect.to: expected a path"),
        ("redirect = { to = '/\\evil.example' }", ".redirect.to: expected a path"),
        ('redirect = { to = "/a\\r\\nb: c" }', ".redirect.to: expected a path"),
        ("redirect = { to = '/a b' }", ".redirect.to: expected a path"),
        ("redirect = { to = 'ftp://example.com/' }", ".redirect.to: expected a path"),
        ("redirect = { to = 'https:///a' }", '.redirect.to: expected a host such as "example.com" or'),
        ("redirect = { to = 'https://user@example.com/' }", ".redirect.to: expected a host"),
        ("redirect = { to = 'https://example.com:0/' }", ".redirect.to: expected a host"),
        ("upstream = 'a'\nrewrite = {}", ".rewrite: expected one of strip_prefix, add_prefix, replace_path, and regex"),
        ("upstream = 'a'\nrewrite = { add_prefix = 'a' }", ".rewrite.add_prefix: expected a path in its escaped form"),
        ("upstream = 'a'\nrewrite = { add_prefix = '/a?b' }", ".rewrite.add_prefix: expected a path in its escaped"),
        (
            "upstream = 'a'\nrewrite = { add_prefix = '/a', replace_path = '/b' }",
            ".rewrite: expected one of strip_prefix, add_prefix, replace_path, and regex with to, "
            "not both strip_prefix or add_prefix and replace_path",
        ),
        ("upstream = 'a'\nrewrite = { to = '/b' }", ".rewrite: regex and to belong together"),
        ("upstream = 'a'\nrewrite = { regex = '/a' }", ".rewrite: regex and to belong together"),
        ("upstream = 'a'\nrewrite = { regex = '/a', to = '/\\1' }", ".rewrite: there is no group \\1"),
        ("upstream = 'a'\nrewrite = { regex = '(', to = '/' }", ".rewrite.regex: not a regular expression"),
        (
            "upstream = 'a'\nupgrade = 'websocket'",
            '.upgrade: expected an array of tokens such as ["websocket"], or "any"',
        ),
        ("upstream = 'a'\nupgrade = ['a b']", '.upgrade: expected a token such as "websocket", got "a b"'),
        ("respond = {}\nerror_pages = { 200 = 'a' }", '.error_pages.200: expected a status such as "404", "4xx" or'),
        ("respond = {}\nerror_pages = { 404 = '' }", ".error_pages.404: expected the path of a file"),
        ("respond = {}\nerror_pages = { 404 = 5 }", ".error_pages.404: expected a string, got 5"),
    ],
)
def test_one_mistake_in_a_route(mistakes: Mistakes, line: str, told: str) -> None:
    upstream = "[upstreams.a]\nendpoints = ['a:1']\n" if "upstream" in line else ""
    [mistake] = mistakes(ROUTE + line + "\n" + upstream)
    assert told in mistake


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("trusted_proxies = ['tcp']", 'expected a network such as "10.0.0.0/8" or "unix", got "tcp"'),
        ("trusted_proxies = ['10.0.0.1/8']", "expected a network, got an address inside 10.0.0.0/8"),
        ("forwarded = 'xff'", 'forwarded: expected "x-forwarded", "rfc7239", "both" or "off", got "xff"'),
        ("path_policy = 'decode'", 'path_policy: expected "reject" or "pass", got "decode"'),
        ("reason_header = 'yes'", 'reason_header: expected true or false, got "yes"'),
        (
            "timeouts = { body_min_rate = '1KiB' }",
            'timeouts.body_min_rate: expected a rate such as "1KiB/s", got "1KiB"',
        ),
    ],
)
def test_one_mistake_in_a_listener(mistakes: Mistakes, line: str, told: str) -> None:
    [mistake] = mistakes(MINIMAL + line)
    assert told in mistake


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("endpoint", "endpoint"),
        ("App.Example:8080", "app.example:8080"),
        ("[::1]:80", "[::1]:80"),
        ("10.0.0.1", "10.0.0.1"),
        *(
            (wrong, None)
            for wrong in ("", "a b", "*.example.com", "a:0", "a:65536", "a@b", "http://a", "a/b", "[::1", "a:")
        ),
    ],
)
def test_the_host_that_is_sent(
    config: Callable[..., Config], mistakes: Mistakes, host: str, expected: str | None
) -> None:
    text = f"[upstreams.a]\nendpoints = ['a:1']\nhost = '{host}'\n"
    if expected is not None:
        assert config(text).upstreams["a"].host == expected
    else:
        [mistake] = mistakes(MINIMAL + text)
        assert 'upstreams.a.host: expected a host such as "example.com" or "example.com:8080"' in mistake


def test_flags_and_statuses_from_the_environment(config: Callable[..., Config]) -> None:
    text = "[[routes]]\nname = 'r'\nredirect = { to = '/', status = '${STATUS}', keep_query = '${KEEP}' }"
    redirect = config(text, STATUS="302", KEEP="true").routes[0].redirect
    assert redirect and (redirect.status, redirect.keep_query) == (302, True)


def test_no_file(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.toml", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigErrors) as raised:
            load(path, {})
        assert str(raised.value) == f"{path}: {reason}"
        assert raised.value.errors[0].line == 0


SCRAPS = [*"[]={}-,.1x'\"\n", "[[routes]]", "[[listeners]]", "name", "path", "endpoints", "upstreams", "${", "true"]


@UNHURRIED
@given(st.one_of(st.lists(st.sampled_from(SCRAPS), max_size=30).map("".join), st.text(max_size=30)))
def test_nothing_but_config_errors(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "scraps.toml"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(ConfigErrors):
        load(path, {})


VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.datetimes(),
        st.sampled_from(["/x", ":80", "auto", "30s", "1KiB", "[[x]]", "[::", "xn--a", "*.", "http", "off"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@UNHURRIED
@given(st.data(), VALUES)
def test_any_value_at_any_key_is_right_or_told_in_our_words(data: st.DataObject, value: object) -> None:
    document = tomllib.loads(WRONG)
    table: Any = document
    while True:
        keys = [*table, "new"] if isinstance(table, dict) else [*range(len(table))]
        key = data.draw(st.sampled_from(keys))
        below = None if key == "new" else table[key]
        if not below or not isinstance(below, dict | list) or data.draw(st.booleans()):
            table[key] = value
            break
        table = below
    check(document, KINDS)
    with pytest.raises(ValidationError) as raised:
        Config.model_validate(document)
    for problem in explain(raised.value, document):
        assert not problem.message.startswith("not valid"), problem


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the examples of the configuration language are not here")
def test_the_examples_of_the_language() -> None:
    loaded = load(EXAMPLES / "http.toml", {})
    assert [str(endpoint.address) for endpoint in loaded.upstreams["app"].endpoints] == ["http://127.0.0.1:9001/base"]
    assert [route.name for route in loaded.routes if route.redirect or route.rewrite] == ["old", "shop"]
    loaded = load(EXAMPLES / "proxy.toml", {"WORKERS": "3", "APP_1": "app:1"})
    assert loaded.process.workers == 3
    assert [str(endpoint.address) for endpoint in loaded.upstreams["app"].endpoints] == ["app:1", "127.0.0.1:9002"]
