"""The admin application: /live, /ready, /status, /metrics, /endpoints."""

from __future__ import annotations

from typing import Any

import msgspec
import psutil
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import gateway
from gateway.config.model import Config
from gateway.documents import Documents
from gateway.findings import Findings
from gateway.ledger import Ledger
from gateway.metrics.endpoints import drain, endpoints
from gateway.metrics.plan import Plan
from gateway.metrics.text import CONTENT_TYPE, exposition
from gateway.scoreboard import Cells, Fact, Role, Scoreboard, State, Word
from gateway.truth import Truth


def admin_app(
    board: Scoreboard,
    plan: Plan,
    truth: Truth,
    config: Config,
    findings: Findings,
    documents: Documents | None = None,
    ledger: Ledger | None = None,
) -> Starlette:
    async def live(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        there, wanted = serving(board), board.header[Word.WANTED]
        text = f"{there} of {wanted} workers of generation {board.header[Word.GENERATION]} are ready\n"
        return PlainTextResponse(text, 200 if there >= wanted > 0 else 503)

    async def status(request: Request) -> Response:
        return Response(msgspec.json.encode(facts(board)), media_type="application/json")

    async def metrics(request: Request) -> Response:
        rows = documents.rows() if documents is not None else ()
        evicted = ledger.evicted if ledger is not None else 0
        text = exposition(board, plan, endpoints(truth, plan, config, findings), findings.rows(config), rows, evicted)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def all_endpoints(request: Request) -> Response:
        return Response(msgspec.json.encode(endpoints(truth, plan, config, findings)), media_type="application/json")

    async def drained(request: Request) -> Response:
        """PUT takes an endpoint out of use, DELETE takes it back in."""
        upstream, endpoint = request.path_params["upstream"], request.path_params["endpoint"]
        if not drain(truth, plan, upstream, endpoint, request.method == "PUT"):
            return PlainTextResponse(f"there is no endpoint {endpoint} of {upstream}\n", 404)
        return await all_endpoints(request)

    return Starlette(
        routes=[
            Route("/live", live),
            Route("/ready", ready),
            Route("/status", status),
            Route("/metrics", metrics),
            Route("/endpoints", all_endpoints),
            Route("/endpoints/{upstream}/{endpoint:path}/drained", drained, methods=["PUT", "DELETE"]),
        ]
    )


def serving(board: Scoreboard) -> int:
    """How many workers of the current generation are READY."""
    generation = board.header[Word.GENERATION]
    return sum(
        seat[Fact.ROLE] == Role.WORKER and seat[Fact.GENERATION] == generation and seat[Fact.STATE] == State.READY
        for seat in board.seats()
    )


def facts(board: Scoreboard) -> dict[str, Any]:
    """The whole gateway as JSON: what `gateway status` shows, seen from outside the master."""
    header = board.header
    there = serving(board)
    return {
        "version": gateway.__version__,
        "generation": header[Word.GENERATION],
        "workers_wanted": header[Word.WANTED],
        "workers_ready": there,
        "ready": there >= header[Word.WANTED] > 0,
        "started": header[Word.STARTED],
        "last_reload": {"ok": bool(header[Word.RELOAD_OK]), "time": header[Word.RELOAD_TIME]},
        "restarts": {
            "crash": header[Word.RESTARTS_CRASH],
            "hang": header[Word.RESTARTS_HANG],
            "recycled": header[Word.RESTARTS_RECYCLED],
            "boot": header[Word.RESTARTS_BOOT],
        },
        "processes": [_process(seat) for seat in board.seats() if seat[Fact.PID]],
    }


def _process(seat: Cells) -> dict[str, Any]:
    try:
        one = psutil.Process(seat[Fact.PID])
        times, memory = one.cpu_times(), one.memory_info().rss
        cpu = round(times.user + times.system, 2)
    except psutil.Error:
        cpu, memory = 0.0, 0
    return {
        "pid": seat[Fact.PID],
        "role": Role(seat[Fact.ROLE]).name.lower(),
        "slot": seat[Fact.SLOT],
        "generation": seat[Fact.GENERATION],
        "state": State(seat[Fact.STATE]).name.lower(),
        "cpu_seconds": cpu,
        "resident_bytes": memory,
        "connections": seat[Fact.OPEN],
        "busy": seat[Fact.BUSY],
        "requests": seat[Fact.REQUESTS] - seat[Fact.BASE_REQUESTS],
    }
