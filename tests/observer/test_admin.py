"""What the admin listener answers, from nothing but the scoreboard."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import gateway
from gateway.config.model import Config
from gateway.findings import Findings
from gateway.metrics.plan import Plan
from gateway.observer.admin import admin_app, facts, serving
from gateway.scoreboard import Fact, Role, Scoreboard, State, Word
from gateway.truth import Truth

CONFIG = Config.model_validate(
    {
        "listeners": [{"name": "web", "listen": ":8080"}],
        "upstreams": {"app": {"endpoints": ["10.0.0.1:80", "http://10.0.0.2:80/base"]}},
        "routes": [{"name": "r", "upstream": "app"}],
    }
)


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    yield Scoreboard.create()


def seated(board: Scoreboard, number: int, state: State, generation: int = 3, role: Role = Role.WORKER) -> None:
    seat = board.take(number, [])
    seat[Fact.ROLE], seat[Fact.STATE], seat[Fact.GENERATION], seat[Fact.SLOT] = role, state, generation, number
    seat[Fact.PID] = os.getpid()


def asked(board: Scoreboard, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """One request to the application, spoken in ASGI."""
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    plan = Plan()
    plan.cover(CONFIG)
    asyncio.run(admin_app(board, plan, Truth(board), CONFIG, Findings())(scope, receive, send))
    fields = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return said[0]["status"], fields, b"".join(message.get("body", b"") for message in said[1:])


def test_live(board: Scoreboard) -> None:
    status, _, body = asked(board, "/live")
    assert (status, body) == (200, b"ok\n")


@pytest.mark.parametrize(
    ("wanted", "states", "status"),
    [
        (2, [State.READY, State.READY], 200),
        (2, [State.READY, State.READY, State.READY], 200),
        (2, [State.READY, State.BOOTING], 503),
        (2, [State.READY, State.DRAINING], 503),
        (2, [State.READY, State.GONE], 503),
        (1, [], 503),
        (0, [], 503),
    ],
)
def test_ready_is_the_wanted_number_of_ready_workers(
    board: Scoreboard, wanted: int, states: list[State], status: int
) -> None:
    board.header[Word.GENERATION], board.header[Word.WANTED] = 3, wanted
    for number, state in enumerate(states):
        seated(board, number, state)
    assert asked(board, "/ready")[0] == status


def test_only_workers_of_the_current_generation_count(board: Scoreboard) -> None:
    board.header[Word.GENERATION], board.header[Word.WANTED] = 3, 1
    seated(board, 0, State.READY, generation=2)
    seated(board, 1, State.READY, role=Role.OBSERVER)
    assert serving(board) == 0
    status, _, body = asked(board, "/ready")
    assert (status, body) == (503, b"0 of 1 workers of generation 3 are ready\n")
    seated(board, 2, State.READY)
    assert asked(board, "/ready")[0] == 200


def test_status(board: Scoreboard) -> None:
    header = board.header
    header[Word.GENERATION], header[Word.WANTED] = 3, 1
    header[Word.RELOAD_OK], header[Word.RELOAD_TIME] = 1, 1_795_248_123
    header[Word.RESTARTS_CRASH] = 2
    seated(board, 0, State.READY)
    seat = board.seat(0)
    seat[Fact.OPEN], seat[Fact.BUSY], seat[Fact.REQUESTS], seat[Fact.BASE_REQUESTS] = 7, 2, 1000, 400
    seated(board, 1, State.GONE)
    board.leave(1, [])
    status, fields, body = asked(board, "/status")
    told = json.loads(body)
    assert status == 200 and fields["content-type"] == "application/json"
    assert (told["version"], told["generation"], told["ready"]) == (gateway.__version__, 3, True)
    assert (told["workers_wanted"], told["workers_ready"]) == (1, 1)
    assert told["last_reload"] == {"ok": True, "time": 1_795_248_123}
    assert told["restarts"] == {"crash": 2, "hang": 0, "recycled": 0, "boot": 0}
    [process] = told["processes"]
    assert (process["role"], process["state"], process["slot"], process["generation"]) == ("worker", "ready", 0, 3)
    assert (process["connections"], process["busy"], process["requests"]) == (7, 2, 600)
    assert process["pid"] == os.getpid() and process["resident_bytes"] > 0 and process["cpu_seconds"] >= 0


def test_a_process_that_is_gone_meanwhile_is_shown_without_figures(board: Scoreboard) -> None:
    seated(board, 0, State.READY)
    board.seat(0)[Fact.PID] = 2**22 + 1  # beyond what the kernel gives out
    [process] = facts(board)["processes"]
    assert (process["cpu_seconds"], process["resident_bytes"]) == (0.0, 0)


def test_metrics(board: Scoreboard) -> None:
    board.header[Word.GENERATION] = 5
    status, fields, body = asked(board, "/metrics")
    assert status == 200 and fields["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert families["gateway_config_generation"].samples[0].value == 5


def test_anything_else(board: Scoreboard) -> None:
    assert asked(board, "/")[0] == 404
    assert asked(board, "/live/")[0] in (307, 404)
    assert asked(board, "/status", "POST")[0] == 405


def test_endpoints_and_taking_one_out_of_use(board: Scoreboard) -> None:
    status, _, body = asked(board, "/endpoints")
    rows = json.loads(body)
    assert status == 200
    assert [(row["upstream"], row["endpoint"], row["condition"], row["ready"]) for row in rows] == [
        ("app", "10.0.0.1:80", "up", True),
        ("app", "http://10.0.0.2:80/base", "up", True),
    ]
    _, _, body = asked(board, "/endpoints/app/http://10.0.0.2:80/base/drained", method="PUT")
    assert [row["drained"] for row in json.loads(body)] == [False, True]
    _, _, body = asked(board, "/endpoints/app/http://10.0.0.2:80/base/drained", method="DELETE")
    assert [row["drained"] for row in json.loads(body)] == [False, False]
    assert asked(board, "/endpoints/app/10.0.0.3:80/drained", method="PUT")[0] == 404
