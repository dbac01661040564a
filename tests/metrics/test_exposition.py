"""What Prometheus reads: the official parser must understand it, and every number must be the sum over the seats."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.config.model import Config
from gateway.errors import ConnectFailed
from gateway.exchange import Exchange
from gateway.metrics.plan import (
    BOUNDS,
    LATENCY_DURATION,
    LISTENER_IDLE,
    LISTENER_OPEN,
    MIRROR_FAILED,
    MIRROR_SENT,
    TUNNELS_OPEN,
    UPSTREAM_OPEN,
    UPSTREAM_OPENED,
    Plan,
)
from gateway.metrics.recorder import recorder
from gateway.metrics.text import CONTENT_TYPE, exposition
from gateway.scoreboard import Cells, Fact, Role, Scoreboard, State, Word

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]

CONFIG = Config.model_validate(
    {
        "listeners": [{"name": "web", "listen": "127.0.0.1:9000"}],
        "upstreams": {"app": {"endpoints": ["10.0.0.1:80"]}},
        "routes": [{"name": "r", "upstream": "app"}],
    }
)


@pytest.fixture
def plan() -> Plan:
    plan = Plan()
    plan.cover(CONFIG)
    return plan


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    yield Scoreboard.create()


def samples(board: Scoreboard, plan: Plan) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(exposition(board, plan)):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            series = found.setdefault(sample.name, {})
            assert labels not in series, f"{sample.name} {sample.labels} occurs twice"
            series[labels] = sample.value
    return found


def of(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def over(status: int, duration: float = 0.0, first_byte: float = 0.0, **more: Any) -> Any:
    """An exchange that ended `duration` seconds after it began."""
    exchange = Exchange(SimpleNamespace(name="web"), "10.0.0.1", 0.0)
    exchange.status, exchange.first_byte = status, first_byte
    for name, value in more.items():
        setattr(exchange, name, value)
    return exchange


def counting(cells: Cells, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A recorder whose clock says how long the exchange took."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("gateway.metrics.recorder.monotonic", lambda: clock.now)
    finished = recorder(cells, plan, ["web"], None)

    def count(exchange: Any, duration: float = 0.0) -> None:
        clock.now = exchange.started + duration
        finished(exchange)

    return count


def route_of(plan: Plan) -> Any:
    series = {"web": (plan.block("route", "web", "r", "app"), plan.block("latency", "r"))}
    return SimpleNamespace(name="r", series=series)


def test_an_empty_board_can_be_read(board: Scoreboard, plan: Plan) -> None:
    found = samples(board, plan)
    assert found["gateway_workers_wanted"] == {of(): 0}
    assert "0.0.4" in CONTENT_TYPE


def test_requests_are_counted_and_summed_over_seats(
    board: Scoreboard, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = route_of(plan)
    for seat in range(3):
        cells = board.take(seat, plan.gauges())
        count = counting(cells, plan, monkeypatch)
        for status in (200, 204, 304, 404, 499, 502, 101, 0, 999):
            count(over(status, route=route, bytes_in=3, bytes_out=10))
        count(over(404))
        assert cells[Fact.REQUESTS] == 10
    found = samples(board, plan)
    labels = {"listener": "web", "route": "r", "upstream": "app"}
    requests = found["gateway_requests_total"]
    expected = {"1xx": 1, "2xx": 2, "3xx": 1, "4xx": 2, "5xx": 1, "none": 2}
    for code, number in expected.items():
        assert requests[of(**labels, code=code)] == 3 * number
    assert requests[of(listener="web", route="-", upstream="", code="4xx")] == 3
    assert found["gateway_request_bytes_total"][of(**labels)] == 3 * 9 * 3
    assert found["gateway_response_bytes_total"][of(**labels)] == 3 * 9 * 10


def test_histograms_are_cumulative_and_agree_with_their_count_and_sum(
    board: Scoreboard, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = route_of(plan)
    durations = [0.0, 0.0005, 0.001, 0.0011, 0.01, 0.3, 9.9, 10.0, 10.1, 300.0]
    for seat in range(2):
        count = counting(board.take(seat, plan.gauges()), plan, monkeypatch)
        for duration in durations:
            count(over(200, route=route, first_byte=duration / 2), duration)
    found = samples(board, plan)
    for name, scale, recorded in (
        ("request_duration_seconds", 1.0, durations),
        ("first_byte_seconds", 0.5, durations[1:]),  # without a response head there is no first byte
    ):
        buckets = found[f"gateway_{name}_bucket"]
        for bound in BOUNDS:
            expected = 2 * sum(duration * scale <= bound for duration in recorded)
            assert buckets[of(route="r", le=f"{bound:g}")] == expected, (name, bound)
        assert buckets[of(route="r", le="+Inf")] == found[f"gateway_{name}_count"][of(route="r")] == 2 * len(recorded)
        assert found[f"gateway_{name}_sum"][of(route="r")] == pytest.approx(2 * scale * sum(durations), rel=1e-6)


def test_refusals_are_counted_by_route_and_reason(
    board: Scoreboard, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = route_of(plan)
    for seat in range(2):
        count = counting(board.take(seat, plan.gauges()), plan, monkeypatch)
        count(over(200, route=route))
        for _ in range(3):
            count(over(504, route=route, reason="http_response_timeout"))
        count(over(499, route=route, reason="client_gone"))
        count(over(418, route=route, reason="of_a_plug_in"))
        count(over(404, reason="no_route"))
        count(over(400, route=SimpleNamespace(name="gone", series=route.series), reason="no_route"))
    assert samples(board, plan)["gateway_refusals_total"] == {
        of(route="r", reason="http_response_timeout"): 6,
        of(route="r", reason="client_gone"): 2,
        of(route="r", reason="other"): 2,
        of(route="-", reason="no_route"): 2,
        of(route="__other__", reason="__other__"): 2,
    }


def test_without_a_refusal_there_is_no_series(board: Scoreboard, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    counting(board.take(0, plan.gauges()), plan, monkeypatch)(over(200, route=route_of(plan)))
    assert "gateway_refusals_total" not in samples(board, plan)


def test_copies_are_counted_by_what_became_of_them(board: Scoreboard) -> None:
    shaped = CONFIG.model_dump() | {"routes": [{"name": "r", "upstream": "app", "mirror": {"upstream": "app"}}]}
    plan = Plan()
    plan.cover(Config.model_validate(shaped))
    for seat in range(2):
        cells = board.take(seat, plan.gauges())
        at = plan.block("mirror", "r")
        cells[at + MIRROR_SENT] += 3
        cells[at + MIRROR_FAILED] += 1
    assert samples(board, plan)["gateway_mirrored_total"] == {
        of(route="r", outcome="sent"): 6,
        of(route="r", outcome="dropped"): 0,
        of(route="r", outcome="failed"): 2,
    }


@pytest.mark.parametrize(("status", "tunnelled", "code"), [(101, False, "1xx"), (200, True, "2xx")])
def test_a_tunnel_is_one_request_and_no_duration(
    board: Scoreboard, plan: Plan, monkeypatch: pytest.MonkeyPatch, status: int, tunnelled: bool, code: str
) -> None:
    cells = board.take(0, plan.gauges())
    tunnel = over(status, 0.25, route=route_of(plan), bytes_in=5, bytes_out=7, reason="tunnel_idle_timeout")
    tunnel.tunnelled = tunnelled
    counting(cells, plan, monkeypatch)(tunnel, 3600.0)
    cells[plan.block("tunnels", "web") + TUNNELS_OPEN] = 4
    found = samples(board, plan)
    labels = {"listener": "web", "route": "r", "upstream": "app"}
    assert found["gateway_requests_total"] == {of(**labels, code=code): 1}
    assert found["gateway_response_bytes_total"][of(**labels)] == 7
    assert found["gateway_request_duration_seconds_count"][of(route="r")] == 0
    assert found["gateway_request_duration_seconds_sum"][of(route="r")] == 0
    assert found["gateway_refusals_total"] == {of(route="r", reason="tunnel_idle_timeout"): 1}
    assert found["gateway_tunnels_open"] == {of(listener="web"): 4}
    board.leave(0, plan.gauges())
    board.take(0, plan.gauges())
    assert samples(board, plan)["gateway_tunnels_open"] == {of(listener="web"): 0}


def test_sums_are_exact_also_when_they_are_large(board: Scoreboard, plan: Plan) -> None:
    """A rate is the difference of two scrapes: digits that are rounded away come back as steps."""
    seat = board.take(0, plan.gauges())
    at = plan.block("latency", "r") + LATENCY_DURATION + len(BOUNDS) + 1
    seat[at] = 123_456_789_012_345
    found = samples(board, plan)
    assert found["gateway_request_duration_seconds_sum"][of(route="r")] == pytest.approx(123456789.012345, rel=1e-12)


def test_a_start_time_is_exact_to_the_second(board: Scoreboard, plan: Plan) -> None:
    seat = board.take(0, plan.gauges())
    seat[Fact.ROLE], seat[Fact.STATE], seat[Fact.STARTED] = Role.WORKER, State.READY, 1_795_248_123_456
    [value] = samples(board, plan)["gateway_worker_start_time_seconds"].values()
    assert value == pytest.approx(1_795_248_123.456, abs=0.01)


def test_counters_go_on_when_a_seat_is_taken_again_and_gauges_do_not(board: Scoreboard, plan: Plan) -> None:
    seat = board.take(0, plan.gauges())
    upstream, listener = plan.block("upstream", "app", "10.0.0.1:80"), plan.block("listener", "web")
    seat[upstream + UPSTREAM_OPENED] = seat[upstream + UPSTREAM_OPEN] = 7
    seat[listener + LISTENER_OPEN], seat[listener + LISTENER_IDLE] = 5, 3
    labels = of(upstream="app", endpoint="10.0.0.1:80")
    found = samples(board, plan)
    assert found["gateway_upstream_connections_open"][labels] == 7
    assert found["gateway_connections_open"][of(listener="web", state="busy")] == 2
    assert found["gateway_connections_open"][of(listener="web", state="idle")] == 3
    board.leave(0, plan.gauges())
    board.take(0, plan.gauges())
    found = samples(board, plan)
    assert found["gateway_upstream_connections_opened_total"][labels] == 7
    assert found["gateway_upstream_connections_open"][labels] == 0
    assert found["gateway_connections_open"][of(listener="web", state="idle")] == 0


def test_workers(board: Scoreboard, plan: Plan) -> None:
    worker, observer = Role.WORKER, Role.OBSERVER
    there = [(worker, State.READY), (worker, State.DRAINING), (observer, State.READY), (worker, State.GONE)]
    for number, (role, state) in enumerate(there):
        seat = board.take(number, plan.gauges())
        seat[Fact.ROLE], seat[Fact.STATE], seat[Fact.SLOT], seat[Fact.PID] = role, state, number, 100 + number
        seat[Fact.GENERATION], seat[Fact.OPEN], seat[Fact.LAG] = 3, 10 + number, 1500
        seat[Fact.REQUESTS], seat[Fact.BASE_REQUESTS] = 1000, 400
    found = samples(board, plan)
    first = of(worker="0", generation="3", state="ready", pid="100")
    second = of(worker="1", generation="3", state="draining", pid="101")
    assert found["gateway_worker_connections_open"] == {first: 10, second: 11}
    assert found["gateway_worker_requests"] == {first: 600, second: 600}
    assert found["gateway_worker_loop_lag_seconds"][first] == 0.0015


def test_the_master_s_own(board: Scoreboard, plan: Plan) -> None:
    header = board.header
    header[Word.GENERATION], header[Word.RELOAD_OK], header[Word.RELOAD_TIME] = 4, 1, 1_795_248_123
    header[Word.RELOADS], header[Word.RELOADS_FAILED], header[Word.WANTED] = 9, 2, 8
    header[Word.RESTARTS_CRASH], header[Word.RESTARTS_HANG] = 3, 1
    found = samples(board, plan)
    assert found["gateway_config_generation"] == {of(): 4}
    assert found["gateway_config_last_reload_success"] == {of(): 1}
    assert found["gateway_config_last_reload_time_seconds"] == {of(): 1_795_248_123}
    assert found["gateway_reloads_total"] == {of(): 9}
    assert found["gateway_reloads_failed_total"] == {of(): 2}
    restarts = {"crash": 3, "hang": 1, "recycled": 0, "boot": 0}
    assert found["gateway_worker_restarts_total"] == {of(reason=reason): n for reason, n in restarts.items()}


def test_labels_may_hold_anything_that_a_configuration_may(board: Scoreboard) -> None:
    plan = Plan()
    strange = 'unix:/tmp/a "b"\\c\nd/é'
    plan.block("upstream", "app", strange)
    board.take(0, plan.gauges())
    assert of(upstream="app", endpoint=strange) in samples(board, plan)["gateway_upstream_retries_total"]


def test_the_catch_all_is_shown_only_when_it_was_needed(board: Scoreboard) -> None:
    plan = Plan()
    seat = board.take(0, plan.gauges())
    assert "__other__" not in exposition(board, plan)
    seat[plan.blocks["route"][("__other__",) * 3] + 2] = 1
    assert "__other__" in exposition(board, plan)


def test_the_recorder_tells_the_log_what_it_knows(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, float, float]] = []
    cells = memoryview(bytearray(8 << 15)).cast("Q")
    monkeypatch.setattr("gateway.metrics.recorder.monotonic", lambda: 7.5)
    monkeypatch.setattr("gateway.metrics.recorder.time", lambda: 1_795_248_123.25)
    finished = recorder(cells, plan, ["web"], lambda *what: told.append(what))
    exchange = over(200, reason=ConnectFailed.reason)
    exchange.started = 7.0
    finished(exchange)
    assert told == [(exchange, 1_795_248_123.25, 0.5)]


def test_accounts_that_had_to_go_are_counted(board: Scoreboard, plan: Plan) -> None:
    assert "\ngateway_limit_accounts_evicted_total 7\n" in exposition(board, plan, evicted=7)


def test_how_looking_up_fares(board: Scoreboard, plan: Plan) -> None:
    rows = [
        {"upstream": "app", "endpoints": 3, "trouble": ""},
        {"upstream": "ill", "endpoints": 2, "trouble": "it is so"},
    ]
    families = {one.name: one for one in text_string_to_metric_families(exposition(board, plan, (), rows))}

    def values(name: str) -> dict[str, float]:
        return {sample.labels["upstream"]: sample.value for sample in families[name].samples}

    assert values("gateway_discovery_up") == {"app": 1, "ill": 0}
    assert values("gateway_discovery_endpoints") == {"app": 3, "ill": 2}
    assert samples(board, plan).get("gateway_discovery_up") is None
