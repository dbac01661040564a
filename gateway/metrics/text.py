"""The seats added up and printed in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.config.values import without_credentials
from gateway.metrics import plan as p
from gateway.metrics.plan import Plan
from gateway.scoreboard import CIRCUIT, Cells, Condition, Fact, Mark, Role, Scoreboard, State, Word

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")


def exposition(
    board: Scoreboard,
    plan: Plan,
    rows: Sequence[Mapping[str, Any]] = (),
    discoveries: Sequence[Mapping[str, Any]] = (),
    documents: Sequence[Mapping[str, Any]] = (),
    evicted: int = 0,
) -> str:
    """Everything there is to know, one family after the other. rows: of the endpoints, as `endpoints.py` has them.
    discoveries, documents: as `Findings.rows` and `Documents.rows` have them. evicted: as the ledger has it."""
    seats = board.seats()
    totals = _totals(seats, plan)
    out: list[str] = []
    _routes(out, plan, totals)
    _refusals(out, plan, totals)
    _layers(out, plan, totals)
    _family(out, "limit_accounts_evicted_total", "counter", "Accounts of limits that had to make room for others.")
    out.append(f"gateway_limit_accounts_evicted_total {evicted}")
    _mirrors(out, plan, totals)
    _latencies(out, plan, totals)
    _upstreams(out, plan, totals)
    _groups(out, plan, totals)
    _endpoints(out, rows)
    _discoveries(out, discoveries)
    _documents(out, documents)
    _listeners(out, plan, totals)
    _sessions(out, plan, totals)
    _processes(out, seats)
    _master(out, board)
    return "\n".join(out) + "\n"


def _totals(seats: Sequence[Cells], plan: Plan) -> list[int]:
    """The sum over all seats for each cell that any series uses."""
    end = max((start for known in plan.blocks.values() for start in known.values()), default=Fact.SERIES) + 64
    rows = [seat[:end].tolist() for seat in seats]
    return [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * end


def _family(out: list[str], name: str, kind: str, text: str) -> None:
    out.append(f"# HELP gateway_{name} {text}")
    out.append(f"# TYPE gateway_{name} {kind}")


def _line(out: list[str], name: str, labels: Iterable[tuple[str, str]], value: float) -> None:
    inner = ",".join(f'{key}="{_quoted(text)}"' for key, text in labels)
    out.append(
        f"gateway_{name}{{{inner}}} {value!r}" if isinstance(value, float) else f"gateway_{name}{{{inner}}} {value}"
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _known(plan: Plan, kind: str, totals: list[int]) -> list[tuple[list[tuple[str, str]], int]]:
    """The series of a kind with their labels; the catch-all only when it was needed."""
    names = p.LABELS[kind]
    return [
        (list(zip(names, key, strict=True)), start)
        for key, start in plan.blocks[kind].items()
        if key[0] != p.OTHER or any(totals[start : start + p.CELLS[kind]])
    ]


def _routes(out: list[str], plan: Plan, totals: list[int]) -> None:
    known = _known(plan, "route", totals)
    _family(out, "requests_total", "counter", "Requests answered, by status class.")
    for labels, start in known:
        for kind, name in enumerate(_CLASSES):
            if totals[start + kind]:
                _line(out, "requests_total", [*labels, ("code", name)], totals[start + kind])
    for name, offset, text in (
        ("request_bytes_total", p.ROUTE_BYTES_IN, "Bytes of request bodies received."),
        ("response_bytes_total", p.ROUTE_BYTES_OUT, "Bytes of response bodies sent."),
    ):
        _family(out, name, "counter", text)
        for labels, start in known:
            _line(out, name, labels, totals[start + offset])


def _refusals(out: list[str], plan: Plan, totals: list[int]) -> None:
    _family(out, "refusals_total", "counter", "Exchanges that the gateway ended itself, by reason.")
    for key, start in plan.blocks["refusal"].items():
        if totals[start]:
            _line(out, "refusals_total", zip(p.LABELS["refusal"], key, strict=True), totals[start])


def _layers(out: list[str], plan: Plan, totals: list[int]) -> None:
    for name, offset, text in (
        ("layer_requests_total", p.LAYER_REQUESTS, "Requests that came to a layer of middleware."),
        ("layer_refused_total", p.LAYER_REFUSED, "Requests that a layer did not let pass."),
        ("layer_shadowed_total", p.LAYER_SHADOWED, "Requests that a layer in shadow mode would not have let pass."),
        ("layer_failures_total", p.LAYER_FAILED, "Mistakes of a layer."),
    ):
        _family(out, name, "counter", text)
        for labels, start in _known(plan, "layer", totals):
            _line(out, name, labels, totals[start + offset])
    _family(out, "layer_seconds_total", "counter", "Time that a layer held requests on their way in.")
    for labels, start in _known(plan, "layer", totals):
        _line(out, "layer_seconds_total", labels, totals[start + p.LAYER_TIME] / 1e9)


def _sessions(out: list[str], plan: Plan, totals: list[int]) -> None:
    for name, offset, text in (
        ("sessions_total", p.SESSION_ENDED, "Connections, or sessions of datagrams, that are over; not of HTTP."),
        ("session_bytes_in_total", p.SESSION_BYTES_IN, "Bytes that clients sent in them."),
        ("session_bytes_out_total", p.SESSION_BYTES_OUT, "Bytes that were sent to clients in them."),
    ):
        _family(out, name, "counter", text)
        for labels, start in _known(plan, "session", totals):
            _line(out, name, labels, totals[start + offset])
    known = _known(plan, "datagrams", totals)
    _family(out, "datagrams_total", "counter", "Datagrams from clients and to them.")
    for labels, start in known:
        for direction, offset in (("in", p.DATAGRAMS_IN), ("out", p.DATAGRAMS_OUT)):
            _line(out, "datagrams_total", [*labels, ("direction", direction)], totals[start + offset])
    _family(out, "datagrams_dropped_total", "counter", "Datagrams that went nowhere.")
    for labels, start in known:
        for why, offset in (
            ("refused", p.DATAGRAMS_REFUSED),
            ("unsent", p.DATAGRAMS_UNSENT),
            ("too_long", p.DATAGRAMS_TOO_LONG),
        ):
            _line(out, "datagrams_dropped_total", [*labels, ("why", why)], totals[start + offset])
    for labels, start in _known(plan, "overflow", totals):
        _line(out, "datagrams_dropped_total", [*labels, ("why", "overflow")], totals[start])
    for kind, name, text in (
        ("ending", "session_endings_total", "How they ended; no reason: both sides were done."),
        ("denial", "egress_denials_total", "What clients of proxies were denied, by rule."),
    ):
        _family(out, name, "counter", text)
        for key, start in plan.blocks[kind].items():
            if totals[start]:
                _line(out, name, zip(p.LABELS[kind], key, strict=True), totals[start])


def _mirrors(out: list[str], plan: Plan, totals: list[int]) -> None:
    _family(out, "mirrored_total", "counter", "Copies of requests, by what became of them.")
    for labels, start in _known(plan, "mirror", totals):
        for outcome, offset in (("sent", p.MIRROR_SENT), ("dropped", p.MIRROR_DROPPED), ("failed", p.MIRROR_FAILED)):
            _line(out, "mirrored_total", [*labels, ("outcome", outcome)], totals[start + offset])


def _latencies(out: list[str], plan: Plan, totals: list[int]) -> None:
    for name, offset, text in (
        ("request_duration_seconds", p.LATENCY_DURATION, "From the request head to the end of the answer."),
        ("first_byte_seconds", p.LATENCY_FIRST_BYTE, "From the request head to the response head of the endpoint."),
    ):
        _family(out, name, "histogram", text)
        for labels, start in _known(plan, "latency", totals):
            at = start + offset
            count = 0
            for index, bound in enumerate(p.BOUNDS):
                count += totals[at + index]
                _line(out, name + "_bucket", [*labels, ("le", f"{bound:g}")], count)
            count += totals[at + len(p.BOUNDS)]
            _line(out, name + "_bucket", [*labels, ("le", "+Inf")], count)
            _line(out, name + "_sum", labels, totals[at + len(p.BOUNDS) + 1] / 1e6)
            _line(out, name + "_count", labels, count)


def _upstreams(out: list[str], plan: Plan, totals: list[int]) -> None:
    for name, kind, offset, text in (
        ("upstream_connections_opened_total", "counter", p.UPSTREAM_OPENED, "Connections opened to endpoints."),
        ("upstream_connections_reused_total", "counter", p.UPSTREAM_REUSED, "Requests sent on a kept connection."),
        ("upstream_retries_total", "counter", p.UPSTREAM_RETRIES, "Requests tried again after this endpoint failed."),
        ("upstream_failures_total", "counter", p.UPSTREAM_FAILURES, "Exchanges that failed through the endpoint."),
        ("upstream_connections_open", "gauge", p.UPSTREAM_OPEN, "Connections to endpoints, busy and idle."),
    ):
        _family(out, name, kind, text)
        for labels, start in _known(plan, "upstream", totals):
            _line(out, name, labels, totals[start + offset])


def _groups(out: list[str], plan: Plan, totals: list[int]) -> None:
    """Upstreams as a whole."""
    for name, kind, offset, text in (
        ("upstream_requests_retrying", "gauge", p.GROUP_RETRYING, "Requests that are being tried again."),
        ("upstream_requests_waiting", "gauge", p.GROUP_WAITING, "Requests that wait for room."),
        ("upstream_retries_denied_total", "counter", p.GROUP_RETRIES_DENIED, "Retries that the budget did not allow."),
        ("upstream_hedges_total", "counter", p.GROUP_HEDGED, "Second attempts while the first was silent."),
        ("upstream_hedges_won_total", "counter", p.GROUP_HEDGES_WON, "Second attempts that answered first."),
        ("upstream_fallbacks_total", "counter", p.GROUP_FALLEN_BACK, "Requests that the fallback answered instead."),
    ):
        _family(out, name, kind, text)
        for labels, start in _known(plan, "group", totals):
            _line(out, name, labels, totals[start + offset])
    _family(out, "upstream_circuit", "gauge", "1 for the state that an upstream's circuit is in.")
    for labels, start in _known(plan, "circuit", totals):
        state = CIRCUIT[Condition(totals[start + Mark.CONDITION])]
        _line(out, "upstream_circuit", [*labels, ("state", state)], 1)


def _endpoints(out: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    for name, kind, text, fact in (
        ("endpoint_ready", "gauge", "1 while an endpoint may be asked, on trial at least.", "ready"),
        ("endpoint_drained", "gauge", "1 while somebody wants an endpoint to get nothing new.", "drained"),
        ("endpoint_in_flight", "gauge", "Requests under way at an endpoint.", "in_flight"),
        ("endpoint_ejections_total", "counter", "Times that traffic took an endpoint out.", "ejections"),
    ):
        _family(out, name, kind, text)
        for row in rows:
            _line(out, name, [("upstream", row["upstream"]), ("endpoint", row["endpoint"])], int(row[fact]))
    _family(out, "endpoint_condition", "gauge", "1 for the condition that an endpoint is in.")
    for row in rows:
        labels = [(label, row[label]) for label in ("upstream", "endpoint", "condition")]
        _line(out, "endpoint_condition", labels, 1)


def _discoveries(out: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
    _family(out, "discovery_up", "gauge", "1 while the endpoints of an upstream can be looked up.")
    for row in rows:
        _line(out, "discovery_up", [("upstream", row["upstream"])], int(not row["trouble"]))
    _family(out, "discovery_endpoints", "gauge", "Endpoints that looking up has found.")
    for row in rows:
        _line(out, "discovery_endpoints", [("upstream", row["upstream"])], row["endpoints"])


def _documents(out: list[str], rows: Sequence[Mapping[str, Any]]) -> None:
    _family(out, "document_up", "gauge", "1 while a document that workers need can be fetched.")
    for row in rows:
        _line(out, "document_up", [("url", without_credentials(row["url"]))], int(not row["trouble"]))
    _family(out, "document_age_seconds", "gauge", "Since its server last confirmed a document that workers use.")
    for row in rows:
        if row["age_seconds"] is not None:
            _line(out, "document_age_seconds", [("url", without_credentials(row["url"]))], float(row["age_seconds"]))


def _listeners(out: list[str], plan: Plan, totals: list[int]) -> None:
    known = _known(plan, "listener", totals)
    _family(out, "connections_accepted_total", "counter", "Client connections accepted.")
    for labels, start in known:
        _line(out, "connections_accepted_total", labels, totals[start + p.LISTENER_ACCEPTED])
    _family(out, "connections_open", "gauge", "Client connections, by what they do.")
    for labels, start in known:
        idle = totals[start + p.LISTENER_IDLE]
        busy = max(0, totals[start + p.LISTENER_OPEN] - idle)
        _line(out, "connections_open", [*labels, ("state", "busy")], busy)
        _line(out, "connections_open", [*labels, ("state", "idle")], idle)
    what = "Tunnels: connections below HTTP, UDP sessions, CONNECT, and upgrades (WebSocket and others)."
    _family(out, "tunnels_open", "gauge", what)
    for labels, start in _known(plan, "tunnels", totals):
        _line(out, "tunnels_open", labels, totals[start + p.TUNNELS_OPEN])


def _processes(out: list[str], seats: Sequence[Cells]) -> None:
    workers = [seat for seat in seats if seat[Fact.ROLE] == Role.WORKER and seat[Fact.STATE] != State.GONE]
    for name, fact, text in (
        ("worker_connections_open", Fact.OPEN, "Client connections of a worker."),
        ("worker_requests", Fact.REQUESTS, "Requests answered by a worker since it started."),
        ("worker_upstream_connections_open", Fact.UPSTREAM_OPEN, "Connections a worker has to endpoints."),
        ("worker_loop_lag_seconds", Fact.LAG, "How late the event loop's last beat came."),
        ("worker_start_time_seconds", Fact.STARTED, "When a worker started, in unix time."),
    ):
        _family(out, name, "gauge", text)
        for seat in workers:
            labels = [
                ("worker", str(seat[Fact.SLOT])),
                ("generation", str(seat[Fact.GENERATION])),
                ("state", State(seat[Fact.STATE]).name.lower()),
                ("pid", str(seat[Fact.PID])),
            ]
            value: float = seat[fact]
            if fact is Fact.REQUESTS:
                value = seat[fact] - seat[Fact.BASE_REQUESTS]
            elif fact is Fact.LAG:
                value = seat[fact] / 1e6
            elif fact is Fact.STARTED:
                value = seat[fact] / 1e3
            _line(out, name, labels, value)


def _master(out: list[str], board: Scoreboard) -> None:
    header = board.header
    _family(
        out, "access_log_lines_dropped_total", "counter", "Lines that the access log's reader or disk did not take."
    )
    out.append(f"gateway_access_log_lines_dropped_total {sum(seat[Fact.LOG_DROPPED] for seat in board.seats())}")
    for name, kind, word, text in (
        ("config_generation", "gauge", Word.GENERATION, "Generation of workers that serves."),
        ("config_last_reload_success", "gauge", Word.RELOAD_OK, "1 when the last reload succeeded."),
        ("config_last_reload_time_seconds", "gauge", Word.RELOAD_TIME, "When the last reload ended, in unix time."),
        ("reloads_total", "counter", Word.RELOADS, "Reloads asked for."),
        ("reloads_failed_total", "counter", Word.RELOADS_FAILED, "Reloads that changed nothing."),
        ("workers_wanted", "gauge", Word.WANTED, "Workers the current generation should have."),
    ):
        _family(out, name, kind, text)
        out.append(f"gateway_{name} {header[word]}")
    _family(out, "worker_restarts_total", "counter", "Workers replaced, by reason.")
    for reason, word in (
        ("crash", Word.RESTARTS_CRASH),
        ("hang", Word.RESTARTS_HANG),
        ("recycled", Word.RESTARTS_RECYCLED),
        ("boot", Word.RESTARTS_BOOT),
    ):
        _line(out, "worker_restarts_total", [("reason", reason)], header[word])
