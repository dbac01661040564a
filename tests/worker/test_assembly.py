"""From a configuration to the objects that serve it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import load
from gateway.config.model import Config
from gateway.metrics.plan import NO_ROUTE, Plan
from gateway.middleware import KINDS
from gateway.scoreboard import Scoreboard
from gateway.upstream.endpoint import Endpoint
from gateway.wheel import Wheel
from gateway.worker.assembly import Assembled, assemble, check, running_wheel
from tests.listeners.site import Site, get
from tests.upstream.peer import Origin, always, live, ok

CONF = Path(__file__).parents[2] / "conf"
EXAMPLES = sorted([*CONF.glob("*.toml"), *CONF.glob("examples/*.toml")])  # what these include lies deeper

TWO = {
    "listeners": [
        {"name": "web", "listen": "127.0.0.1:0", "limits": {"body": "1MiB"}, "timeouts": {"head": "7s"}},
        {"name": "inner", "listen": "unix:/run/inner.sock", "backlog": 17},
    ],
    "upstreams": {
        "app": {"endpoints": ["10.0.0.1:80", {"address": "10.0.0.2:80", "weight": 3}]},
        "api": {"endpoints": ["unix:/run/api.sock"]},
    },
    "routes": [
        {"name": "api", "path": "/api", "upstream": "api"},
        {"name": "fixed", "path": "/fixed", "respond": {"body": "x"}},
        {"name": "app", "upstream": "app"},
    ],
}


def made(config: Config, plan: Plan | None = None, offset: float = 0.0) -> Assembled:
    """As `check` makes it: nobody will listen."""
    board = Scoreboard.create()
    wheel = Wheel(lambda seconds, callback: None, lambda: 0.0)
    return assemble(config, plan or Plan(), board, board.seat(1), wheel, lambda exchange: None, offset)


def test_upstreams_and_their_endpoints() -> None:
    upstreams = made(Config.model_validate(TWO)).upstreams
    assert upstreams.keys() == {"app", "api"}
    assert [(endpoint.name, endpoint.weight) for endpoint in upstreams["app"].endpoints] == [
        ("10.0.0.1:80", 1),
        ("10.0.0.2:80", 3),
    ]
    [endpoint] = upstreams["api"].endpoints
    assert (endpoint.name, endpoint.upstream, endpoint.in_flight) == ("unix:/run/api.sock", "api", 0)


@live
async def test_entries_are_the_listeners() -> None:
    board = Scoreboard.create()
    config = Config.model_validate(TWO)
    web, inner = assemble(config, Plan(), board, board.seat(1), running_wheel(), lambda exchange: None).http_entries
    assert (web.name, web.max_body, web.head_timeout) == ("web", 1 << 20, 7.0)
    assert (inner.name, inner.backlog, inner.max_body) == ("inner", 17, 1 << 30)
    assert len({web.open_cell, web.idle_cell, web.accepted_cell, inner.open_cell, inner.idle_cell}) == 5
    assert web.app is inner.app and not web.draining


def test_what_the_plan_covers_is_what_assembly_uses() -> None:
    """The master covers it before it forks: a worker that placed a series itself would count where nobody looks."""
    config = Config.model_validate(TWO)
    plan = Plan()
    plan.cover(config)
    before = plan.dump()
    made(config, plan)
    assert plan.dump() == before
    assert plan.blocks["route"].keys() >= {("web", NO_ROUTE, ""), ("inner", "api", "api"), ("web", "fixed", "")}


def test_workers_begin_at_different_endpoints() -> None:
    config = Config.model_validate(TWO)

    def first(offset: float) -> Endpoint:
        with made(config, offset=offset).upstreams["app"].lease(b"", ()) as lease:
            return lease.endpoint

    assert {first(worker / 4).name for worker in range(4)} == {"10.0.0.1:80", "10.0.0.2:80"}


def test_check_makes_it_all_and_leaves_nothing() -> None:
    check(Config.model_validate(TWO))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_configuration_that_is_shipped_can_be_assembled(path: Path) -> None:
    check(load(path, kinds=KINDS))


@live
async def test_lifespan_ends_with_the_pools() -> None:
    async with Origin(always(ok())) as origin, Site(origin) as site:
        assert (await site.ask(get())).status == 200
        app = site.entry.app
        messages = iter(({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
        said: list[str] = []

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(message: dict[str, Any]) -> None:
            said.append(message["type"])

        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert site.upstream.endpoints[0].pool.take(True) is None


@live
async def test_the_same_app_serves_every_route() -> None:
    routes: list[dict[str, Any]] = [
        {"name": "hosted", "hosts": ["a.example"], "upstream": "app"},
        {"name": "fixed", "path": {"exact": "/fixed"}, "respond": {"body": "here"}},
    ]
    async with Origin(always(ok(b"there"))) as origin, Site(origin, routes=routes) as site:
        client = await site.client(get(b"/fixed"))
        assert (await client.response()).body == b"here"
        await client.send(b"GET /fixed HTTP/1.1\r\nhost: A.example.:80\r\n\r\n")
        assert (await client.response()).body == b"there"
        await client.send(b"GET http://a.example/x HTTP/1.1\r\nhost: other\r\n\r\n")
        assert (await client.response()).body == b"there"
        await client.send(get(b"/"))
        assert (await client.response()).status == 404
        names = [(await site.exchange()).route for _ in range(4)]
        assert [name and name.name for name in names] == ["fixed", "hosted", "hosted", None]
