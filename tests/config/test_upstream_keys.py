"""How retries, hedging, cookies, limits, discovery and the shares of a route are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.diff import changes
from gateway.config.dump import effective, restored
from gateway.config.load import load, load_and_lint
from gateway.config.model import Canary, Config, Mirror, Share
from gateway.middleware import KINDS

from .conftest import MINIMAL, Mistakes, Write

EXAMPLE = Path(__file__).parents[3] / "shared/examples/upstreams.toml"
APP = "[upstreams.app]\nendpoints = ['a:1']\n"
NEXT = "[upstreams.next]\nendpoints = ['b:1']\n"
ROUTE = APP + NEXT + "[[routes]]\nname = 'r'\n"
FOUND = "[upstreams.app]\n"


def test_everything_that_may_be_written(config: Callable[..., Config]) -> None:
    loaded = config(
        APP
        + """
        max_requests = 7
        source_addresses = ["10.0.0.2", "2001:DB8::2"]
        retry = { attempts = 0, on = ["connect", "reset", "timeout", "malformed", "429", "500"], methods = ["PURGE"],
          budget = "12.5%", replay_body = "1MiB", backoff = "1ms", per_try_timeout = "2s" }
        hedge = { after = "p99.9", budget = "1%" }
        queue = { size = 5, timeout = "1s" }
        breaker = { failure_ratio = "100%", min_requests = 1, window = "1s", open_for = "1s", max_open_for = "2s",
          trials = 1 }
        outlier = { failure_ratio = "0.5%", min_requests = 9, window = "1m" }
        timeouts = { total = "10s" }
        [upstreams.app.sticky]
        cookie = "gw_app"
        secret = "hush"
        path = "/app"
        max_age = "1h"
        same_site = "none"
        secure = "always"
        """.replace("\n          ", " ")
        + NEXT
        + """
        [upstreams.named]
        discovery = { kind = "dns", name = "app.internal", port = 80, family = "ipv6", resolver = ["10.0.0.53",
          "10.0.0.53:5353", "::1", "[::1]:53"], refresh = "5s" }
        [upstreams.services]
        discovery = { kind = "dns", srv = "_http._tcp.app.internal", resolver = ["10.0.0.53"] }
        [upstreams.listed]
        discovery = { kind = "file", path = "endpoints.json" }
        [[routes]]
        name = "r"
        upstream = [{ name = "app", weight = 3 }, { name = "next", weight = 0 }, { name = "named" }]
        split_key = "query:user"
        canary = { upstream = "next", by = "cookie:beta", value = "1" }
        fallback = "listed"
        mirror = { upstream = "services", percent = 0.5, body = "1KiB", max_requests = 3 }
        """.replace("\n          ", " ")
    )
    app, named, listed = (loaded.upstreams[name] for name in ("app", "named", "listed"))
    assert (app.max_requests, app.source_addresses) == (7, ("10.0.0.2", "2001:db8::2"))
    assert (app.retry.attempts, app.retry.budget, app.retry.replay_body) == (0, 0.125, 1 << 20)
    assert app.hedge and (app.hedge.after, app.hedge.budget) == ("p99.9", 0.01)
    assert app.breaker and (app.breaker.failure_ratio, app.breaker.trials) == (1.0, 1)
    assert app.outlier.failure_ratio == 0.005 and app.timeouts.total == 10.0
    assert app.sticky and (app.sticky.secret, app.sticky.max_age) == ("hush", 3600.0)
    assert named.discovery and (named.discovery.port, named.discovery.refresh) == (80, 5.0)
    assert listed.discovery and Path(listed.discovery.path or "").is_absolute()
    [route] = loaded.routes
    assert route.upstream == (Share(name="app", weight=3), Share(name="next", weight=0), Share(name="named"))
    assert route.canary == Canary(upstream="next", by="cookie:beta", value="1")
    mirror = {"upstream": "services", "percent": 0.5, "body": "1KiB", "max_requests": 3}
    assert route.mirror == Mirror.model_validate(mirror)
    assert (route.sides, route.upstreams) == (("app", "named", "next"), ("app", "next", "named", "listed"))
    assert Config.model_validate(json.loads(effective(loaded).replace("(secret)", "hush"))) == loaded
    assert restored(json.loads(json.dumps(loaded.model_dump())), KINDS) == loaded


def test_one_upstream_is_written_as_its_name(config: Callable[..., Config]) -> None:
    one, other = config(ROUTE + "upstream = 'app'"), config(ROUTE + "upstream = [{ name = 'app' }]")
    assert one == other
    assert json.loads(effective(one))["routes"][0]["upstream"] == "app"


def test_numbers_from_the_environment(config: Callable[..., Config]) -> None:
    text = """
        max_requests = "${N}"
        queue = { size = "${N}" }
        breaker = { min_requests = "${N}", trials = "${N}", failure_ratio = "${PART}" }
        retry = { attempts = "${N}", budget = "${PART}", on = ["${STATUS}"] }
        hedge = { after = "${AFTER}", budget = "${PART}" }
        outlier = { min_requests = "${N}" }
        sticky = { cookie = "c", secret = "${N}", secure = "${SECURE}" }
        [upstreams.next]
        discovery = { kind = "${KIND}", name = "x", port = "${N}" }
        [[routes]]
        name = "r"
        upstream = [{ name = "app", weight = "${N}" }, { name = "next", weight = "${NONE:-0}" }]
        mirror = { upstream = "next", percent = "${PERCENT}", max_requests = "${N}" }
        """
    environ = {"N": "7", "PART": "20%", "STATUS": "502", "AFTER": "p95", "SECURE": "never", "KIND": "dns"}
    loaded = config(APP + text, **environ, PERCENT="0.5")
    app = loaded.upstreams["app"]
    assert app.queue and app.breaker and app.sticky and app.hedge
    numbers = (app.max_requests, app.queue.size, app.breaker.min_requests, app.breaker.trials, app.retry.attempts)
    assert numbers == (7,) * 5
    assert (app.retry.on, app.retry.budget, app.sticky.secret, app.sticky.secure) == (("502",), 0.2, "7", "never")
    [route] = loaded.routes
    assert route.mirror and (route.mirror.percent, route.mirror.max_requests) == (0.5, 7)
    assert [share.weight for share in route.upstream or ()] == [7, 0]
    assert config(APP + text, **environ, PERCENT="50").routes[0].mirror == Mirror(
        upstream="next", percent=50.0, max_requests=7
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (APP + "retry = { budget = 0.2 }", '.retry.budget: expected a percentage such as "50%", got 0.2'),
        (APP + "retry = { budget = '0%' }", '.budget: expected a percentage above 0 and at most "100%", got "0%"'),
        (APP + "retry = { budget = '101%' }", '.budget: expected a percentage above 0 and at most "100%", got "101%"'),
        (APP + "retry = { on = ['conect'] }", '.retry.on[0]: expected "connect", "reset", "timeout", "malformed", '),
        (APP + "retry = { on = [502] }", ".retry.on[0]: expected a string, got 502"),
        (APP + "retry = { on = ['404'] }", ', got "404"'),
        (
            APP + "retry = { methods = ['get'] }",
            '.methods[0]: expected a method in upper case such as "GET", got "get"',
        ),
        (APP + "retry = { attempts = -1 }", ".attempts: expected a whole number of at least 0, got -1"),
        (APP + "retry = { attempt = 1 }", '.retry.attempt: unknown key "attempt" (did you mean "attempts"?)'),
        *(
            (
                APP + f"hedge = {{ after = '{after}' }}",
                f'.hedge.after: expected a percentile such as "p95" or a duration, got "{after}"',
            )
            for after in ("95", "p100", "p0", "p0.5", "p95.55", "0ms", "P95")
        ),
        (APP + "hedge = { after = 95 }", ".hedge.after: expected a string, got 95"),
        (APP + "sticky = { cookie = 'a b', secret = 'x' }", '.cookie: expected the name of a cookie such as "gw_app"'),
        (APP + "sticky = { cookie = 'a' }", ".sticky.secret: required, but missing"),
        (APP + "sticky = { cookie = 'a', secret = '' }", ".sticky.secret: a secret can't be empty"),
        (APP + "sticky = { cookie = 'a', secret = { env = 'EMPTY' } }", ".sticky.secret: a secret can't be empty"),
        (
            APP + "sticky = { cookie = 'a', secret = { env = 'NONE' } }",
            ".sticky.secret: the environment variable NONE is not set, and no default is given",
        ),
        (
            APP + "sticky = { cookie = 'a', secret = { file = 'none' } }",
            ".sticky.secret: cannot read none: No such file or directory",
        ),
        (APP + "sticky = { cookie = 'a', secret = 'x', same_site = 'strct' }", '(did you mean "strict"?)'),
        (APP + "source_addresses = ['10.0.0.300']", 'expected an IP address such as "10.0.0.2", got "10.0.0.300"'),
        (APP + "source_addresses = ['10.0.0.0/8']", 'expected an IP address such as "10.0.0.2", got "10.0.0.0/8"'),
        (APP + "queue = { size = 0 }", ".queue.size: expected a whole number of at least 1, got 0"),
        (FOUND + "discovery = { kind = 'dsn' }", '.kind: expected "dns" or "file", got "dsn" (did you mean "dns"?)'),
        (FOUND + "discovery = { name = 'x', port = 1 }", ".discovery.kind: required, but missing"),
        *(
            (
                FOUND + f"discovery = {{ kind = 'dns', {keys} }}",
                '.discovery: kind = "dns" goes with name and port, or with srv',
            )
            for keys in (
                "name = 'x'",
                "port = 1",
                "srv = '_a._tcp.x', port = 1",
                "name = 'x', port = 1, srv = 'y'",
                "path = 'x'",
            )
        ),
        *(
            (FOUND + f"discovery = {{ kind = 'file', {keys} }}", '.discovery: kind = "file" goes with path')
            for keys in ("name = 'x'", "path = 'x', port = 1", "path = 'x', resolver = ['10.0.0.53']")
        ),
        (
            FOUND + "discovery = { kind = 'dns', name = 'x y', port = 1 }",
            '.discovery.name: expected a name such as "app.internal", got "x y"',
        ),
        *(
            (
                FOUND + f"discovery = {{ kind = 'dns', srv = 'x', resolver = ['{resolver}'] }}",
                f'.resolver[0]: expected an address such as "10.0.0.53" or "10.0.0.53:5353", got "{resolver}"',
            )
            for resolver in ("dns.example", "10.0.0.53:", "10.0.0.53:0", "10.0.0.53:x", "10.0.0.53:99999")
        ),
        (FOUND, "upstreams.app: an upstream needs endpoints or discovery"),
        (ROUTE + "upstream = 5", ".upstream: expected the name of an upstream or an array of tables, got 5"),
        (ROUTE + "upstream = []", ".upstream: expected at least one item, got none"),
        (ROUTE + "upstream = ['app']", '.upstream[0]: expected a table, got "app"'),
        (ROUTE + "upstream = [{ weight = 1 }]", ".upstream[0].name: required, but missing"),
        (
            ROUTE + "upstream = [{ name = 'app', wieght = 2 }]",
            '.upstream[0].wieght: unknown key "wieght" (did you mean "weight"?)',
        ),
        (
            ROUTE + "upstream = [{ name = 'app', weight = -1 }]",
            ".upstream[0].weight: expected a whole number from 0 to 65535, got -1",
        ),
        (
            ROUTE + "upstream = [{ name = 'app' }, { name = 'nex' }]",
            '.upstream[1].name: there is no upstream "nex" (did you mean "next"?)',
        ),
        (
            ROUTE + "upstream = [{ name = 'app' }]\nsplit_key = 'ip'",
            '.split_key: expected "client_ip", "path", "host", ',
        ),
        (
            ROUTE + "upstream = 'app'\ncanary = { upstream = 'next', by = 'path' }",
            '.by: expected "header:NAME" or "coo',
        ),
        (
            ROUTE + "upstream = 'app'\ncanary = { upstream = 'next', by = 'header:x', value = '' }",
            ".canary.value: expected some text",
        ),
        (
            ROUTE + "upstream = 'app'\ncanary = { upstream = 'nxt', by = 'header:x' }",
            '.canary.upstream: there is no upstream "nxt" (did you mean "next"?)',
        ),
        (ROUTE + "upstream = 'app'\nfallback = 'nxt'", '.fallback: there is no upstream "nxt" (did you mean "next"?)'),
        (ROUTE + "upstream = 'app'\nmirror = 'next'", '.mirror: expected a table, got "next"'),
        (
            ROUTE + "upstream = 'app'\nmirror = { upstream = 'nxt' }",
            '.mirror.upstream: there is no upstream "nxt" (did you mean "next"?)',
        ),
        *(
            (
                ROUTE + f"upstream = 'app'\nmirror = {{ upstream = 'next', percent = {percent} }}",
                f".mirror.percent: expected a number above 0 and at most 100, got {told}",
            )
            for percent, told in (
                ("0", "0"),
                ("100.1", "100.1"),
                ("-1", "-1"),
                ("nan", "nan"),
                ("true", "true"),
                ("'50'", '"50"'),
            )
        ),
    ],
)
def test_one_mistake(mistakes: Mistakes, text: str, told: str) -> None:
    [line] = mistakes(MINIMAL + text, {"EMPTY": ""})
    assert told in line


def sticky(secret: str) -> str:
    return APP + f"sticky = {{ cookie = 'c', secret = {secret} }}\n"


@pytest.mark.parametrize(
    "secret",
    ["'hush-1234567890'", "{ env = 'SECRET' }", "{ env = 'NONE', default = 'hush-1234567890' }", "{ file = 's' }"],
)
def test_a_secret_is_shown_nowhere(write: Write, secret: str) -> None:
    path = write(gateway_toml=MINIMAL + sticky(secret))
    (path.parent / "s").write_text("hush-1234567890\n")
    loaded, warnings = load_and_lint(path, {"SECRET": "hush-1234567890"})
    found = loaded.upstreams["app"].sticky
    assert found and found.secret == "hush-1234567890"
    assert json.loads(effective(loaded))["upstreams"]["app"]["sticky"]["secret"] == "(secret)"
    path.write_text(MINIMAL + sticky("'hush-another-one'"))
    other = load(path, {})
    assert changes(loaded, other) == ["~ upstreams.app.sticky.secret: (secret) -> (secret)"]
    path.write_text(MINIMAL + APP)
    without = load(path, {})
    everything = [effective(loaded), repr(loaded), *map(str, warnings), *changes(loaded, without)]
    assert not any("hush" in text for text in [*everything, *changes(without, loaded)])
    handed_on = restored(json.loads(json.dumps(loaded.model_dump())), KINDS)
    assert handed_on == loaded  # to the program that follows in an upgrade, which needs it
    assert "hush" not in effective(handed_on)


@pytest.mark.parametrize(
    "secret",
    [
        "4815162342",
        "['4815162342']",
        "{ env = 'NONE', default = 4815162342 }",
        "{ env = 'NONE', fallback = '4815162342' }",
        "{ value = '4815162342' }",
        "'4815162342${'",
        "'${4815162342}'",
    ],
)
def test_a_secret_that_is_wrong_is_not_shown_either(mistakes: Mistakes, secret: str) -> None:
    [line] = mistakes(MINIMAL + sticky(secret))
    assert "sticky.secret: " in line and "4815162342" not in line


def test_a_secret_that_cannot_be_read(mistakes: Mistakes, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"\xff")
    assert mistakes(MINIMAL + sticky("{ file = 's' }")) == [
        "gateway.toml:6:26: upstreams.app.sticky.secret: cannot read s: not UTF-8"
    ]
    (tmp_path / "s").write_text("\n")
    assert mistakes(MINIMAL + sticky("{ file = 's' }")) == [
        "gateway.toml:6:26: upstreams.app.sticky.secret: a secret can't be empty"
    ]


def test_what_changes_when_a_route_is_shared(config: Callable[..., Config]) -> None:
    one = config(ROUTE + "upstream = 'app'")
    two = config(ROUTE + "upstream = [{ name = 'app', weight = 9 }, { name = 'next' }]")
    three = config(ROUTE + "upstream = [{ name = 'app', weight = 9 }, { name = 'next', weight = 3 }]\nfallback = 'app'")
    [line] = changes(one, two)
    assert line.startswith("~ routes.r.upstream: app -> ")
    assert changes(two, three) == ["~ routes.r.upstream[1].weight: 1 -> 3", "+ routes.r.fallback: app"]


def test_relative_paths(write: Write) -> None:
    text = (
        APP + "health = { tls = { ca = 'ca.pem' } }\n[upstreams.b]\ndiscovery = { kind = 'file', path = 'list.toml' }\n"
    )
    path = write(gateway_toml=MINIMAL + text)
    loaded = load(path, {})
    health, discovery = loaded.upstreams["app"].health, loaded.upstreams["b"].discovery
    assert health and health.tls and health.tls.ca == str(path.parent / "ca.pem")
    assert discovery and discovery.path == str(path.parent / "list.toml")


def test_the_example_is_right_but_for_its_secret() -> None:
    loaded, warnings = load_and_lint(EXAMPLE, {})
    assert len(loaded.upstreams) == 3
    told: Any = [str(warning).partition(": ")[2] for warning in warnings]
    assert sorted(line.partition(":")[0] for line in told) == [
        "upstreams.app.hash_key",
        "upstreams.app.sticky.secret",
    ]
