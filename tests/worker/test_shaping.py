"""Traffic shared between upstreams, through a whole worker."""

from __future__ import annotations

from collections import Counter
from typing import Any

from gateway.config.model import Config
from gateway.proxy.forward import Forward
from gateway.proxy.split import Split
from tests.listeners.site import Site, get
from tests.upstream.peer import Origin, always, live, ok
from tests.worker.test_assembly import made


def routed(route: dict[str, Any]) -> Any:
    """The application of a route."""
    config = Config.model_validate(
        {
            "listeners": [{"name": "web", "listen": "127.0.0.1:0"}],
            "upstreams": {name: {"endpoints": [f"{name}:80"]} for name in "abc"},
            "routes": [{"name": "r", **route}],
        }
    )
    front: Any = made(config).app._front
    return front.__self__._only.app.__self__._app.__self__


def test_who_does_not_share_pays_nothing() -> None:
    assert type(routed({"upstream": "a"})) is Forward
    assert type(routed({"upstream": [{"name": "a"}]})) is Forward
    assert type(routed({"upstream": [{"name": "a"}, {"name": "b", "weight": 0}]})) is Forward
    canary = {"upstream": "a", "by": "header:x"}
    assert type(routed({"upstream": "a", "canary": canary})) is Forward  # nowhere else to go
    assert type(routed({"upstream": "a", "canary": canary | {"upstream": "b"}})) is Split


@live
async def test_each_side_is_counted_and_logged_as_itself() -> None:
    async with Origin(always(ok(b"a"))) as a, Origin(always(ok(b"b"))) as b:
        route = {
            "name": "r",
            "upstream": [{"name": "app", "weight": 1}, {"name": "other", "weight": 1}],
            "split_key": "header:x-user",
            "canary": {"upstream": "other", "by": "cookie:beta", "value": "1"},
        }
        async with Site(a, routes=[route], others={"other": {"endpoints": [b.address]}}) as site:
            answered: Counter[bytes] = Counter()
            for user in range(40):
                response = await site.ask(get(fields=b"x-user: %d\r\n" % user))
                assert (await site.ask(get(fields=b"x-user: %d\r\n" % user))).body == response.body
                answered[response.body] += 2
            for _ in range(3):
                assert (await site.ask(get(fields=b"x-user: 1\r\ncookie: beta=1\r\n"))).body == b"b"
                answered[b"b"] += 1
            logged = Counter([(await site.exchange()).route.upstream for _ in range(83)])
            assert logged == {"app": answered[b"a"], "other": answered[b"b"]}
            assert min(logged.values()) > 10


@live
async def test_the_sides_have_series_of_their_own() -> None:
    async with Origin(always(ok())) as one, Origin(always(ok())) as two:
        route = {"name": "r", "upstream": "app", "canary": {"upstream": "other", "by": "header:x-canary"}}
        async with Site(one, routes=[route], others={"other": {"endpoints": [two.address]}}) as site:
            await site.ask(get())
            await site.ask(get(fields=b"x-canary: always\r\n"))
            sides = [(await site.exchange()).route for _ in range(2)]
            assert [side.upstream for side in sides] == ["app", "other"]
            series = [side.series["web"] for side in sides]
            assert series[0][0] == site.plan.block("route", "web", "r", "app")
            assert series[1][0] == site.plan.block("route", "web", "r", "other") != series[0][0]
            assert series[0][1] == series[1][1] == site.plan.block("latency", "r")
