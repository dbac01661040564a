"""Which cell belongs to which series: the same for as long as the scoreboard lives."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import Config
from gateway.config.upstreams import Upstream
from gateway.metrics.plan import (
    CELLS,
    LABELS,
    LISTENER_ACCEPTED,
    LISTENER_IDLE,
    LISTENER_OPEN,
    NO_ROUTE,
    OTHER,
    TUNNELS_OPEN,
    UPSTREAM_OPEN,
    UPSTREAM_OPENED,
    Plan,
)
from gateway.reasons import OTHER as OTHER_REASON
from gateway.reasons import REASONS
from gateway.scoreboard import SEAT_CELLS, Fact


def config(
    routes: list[str], endpoints: tuple[str, ...] = ("10.0.0.1:80",), listeners: tuple[str, ...] = ("web",)
) -> Config:
    return Config.model_validate(
        {
            "listeners": [{"name": name, "listen": f"127.0.0.1:{9000 + n}"} for n, name in enumerate(listeners)],
            "upstreams": {"app": {"endpoints": list(endpoints)}},
            "routes": [{"name": name, "path": f"/{name}", "upstream": "app"} for name in routes],
        }
    )


def cells_of(plan: Plan) -> list[tuple[int, int]]:
    return sorted((start, start + CELLS[kind]) for kind, known in plan.blocks.items() for start in known.values())


def handed_on(plan: Plan) -> Plan:
    """As through an upgrade: by JSON to another program."""
    dumped: Any = json.loads(json.dumps(plan.dump()))
    return Plan.load(dumped)


def test_every_series_of_a_configuration_has_its_cells() -> None:
    plan = Plan()
    plan.cover(config(["a", "b"], ("10.0.0.1:80", "unix:/run/app.sock"), ("web", "web2")))
    assert plan.blocks["route"].keys() == {
        (OTHER, OTHER, OTHER),
        *((listener, route, "app") for listener in ("web", "web2") for route in ("a", "b")),
        *((listener, NO_ROUTE, "") for listener in ("web", "web2")),
    }
    assert plan.blocks["latency"].keys() == {(OTHER,), (NO_ROUTE,), ("a",), ("b",)}
    assert plan.blocks["upstream"].keys() == {(OTHER, OTHER), ("app", "10.0.0.1:80"), ("app", "unix:/run/app.sock")}
    assert plan.blocks["listener"].keys() == plan.blocks["tunnels"].keys() == {(OTHER,), ("web",), ("web2",)}
    refusals = plan.blocks["refusal"].keys()
    general = {code for code, reason in REASONS.items() if not reason.kind}
    assert {reason for route, reason in refusals if route == NO_ROUTE} == {*general, OTHER_REASON}
    routed = {code for code in general if REASONS[code].routed}
    for name in ("a", "b"):
        assert {reason for route, reason in refusals if route == name} == {*routed, OTHER_REASON}


@given(st.lists(st.tuples(st.sampled_from(sorted(CELLS)), st.integers(0, 5), st.booleans()), max_size=40))
def test_blocks_never_overlap_and_never_move(steps: list[tuple[str, int, bool]]) -> None:
    plan = Plan()
    known: dict[tuple[str, tuple[str, ...]], int] = {}
    for kind, number, upgrade in steps:
        labels = tuple(f"{label}{number}" for label in LABELS[kind])
        start = plan.block(kind, *labels)
        assert known.setdefault((kind, labels), start) == start
        if upgrade:
            plan = handed_on(plan)
    taken = cells_of(plan)
    assert taken[0][0] >= Fact.SERIES
    assert all(end <= start for (_, end), (start, _) in pairwise(taken))


def test_a_series_that_comes_back_goes_on_where_it_was() -> None:
    plan = Plan()
    plan.cover(config(["a", "b", "c"]))
    before = dict(plan.blocks["route"])
    plan.cover(config(["c"]))
    plan = handed_on(plan)
    plan.cover(config(["d", "b", "a"]))
    assert before.items() <= plan.blocks["route"].items()


def test_what_finds_no_room_shares_one_block() -> None:
    plan = Plan()
    plan.cover(config([f"r{number}" for number in range(3000)]))
    assert cells_of(plan)[-1][1] <= SEAT_CELLS
    assert plan.block("route", "web", "r0", "app") != plan.block("route", "web", "r2999", "app")
    for kind, labels in LABELS.items():
        other = plan.blocks[kind][(OTHER,) * len(labels)]
        assert plan.block(kind, *("new",) * len(labels)) == other
    assert cells_of(handed_on(plan)) == cells_of(plan)
    assert handed_on(plan).block("route", "x", "y", "z") == plan.blocks["route"][(OTHER,) * 3]


def test_gauges_are_the_cells_that_do_not_outlive_a_process() -> None:
    plan = Plan()
    plan.cover(config(["a"]))
    gauges = set(plan.gauges())
    upstream, listener = plan.block("upstream", "app", "10.0.0.1:80"), plan.block("listener", "web")
    assert {upstream + UPSTREAM_OPEN, listener + LISTENER_OPEN, listener + LISTENER_IDLE} <= gauges
    assert not {upstream + UPSTREAM_OPENED, listener + LISTENER_ACCEPTED, *plan.blocks["route"].values()} & gauges
    assert plan.block("tunnels", "web") + TUNNELS_OPEN in gauges
    assert not set(plan.blocks["refusal"].values()) & gauges
    assert len(gauges) == 2 * (1 + 2 + 1 + 1 + 2) + 1  # of the configuration's own, and of the catch-all


def test_a_refusal_is_counted_by_its_reason_where_that_is_known() -> None:
    plan = Plan()
    plan.cover(config(["a"]))
    cells = plan.blocks["refusal"]
    assert plan.refusal("a", "http_response_timeout") == cells["a", "http_response_timeout"]
    assert plan.refusal(NO_ROUTE, "host_missing") == cells[NO_ROUTE, "host_missing"]
    assert plan.refusal("a", "of_a_plug_in") == plan.refusal("a", "host_missing") == cells["a", OTHER_REASON]
    assert plan.refusal("gone", "no_route") == cells[OTHER, OTHER]


# Upgrades: the programs before and after us know other kinds.


def of_before(plan: Plan) -> Any:
    """As the program dumped that knew neither tunnels nor refusals."""
    return {kind: rows for kind, rows in plan.dump().items() if kind in ("route", "latency", "upstream", "listener")}


def test_a_kind_that_is_new_gets_cells_of_its_own() -> None:
    plan = Plan.load(of_before(Plan()))
    one = config(["a", "b"])
    plan.cover(one)
    taken = cells_of(plan)
    assert all(end <= start for (_, end), (start, _) in pairwise(taken))
    assert plan.blocks["listener"].items() >= Plan().blocks["listener"].items()


def test_a_kind_for_which_there_is_no_room_at_all_loses_counts_and_nothing_else() -> None:
    plan = Plan()
    number = 0
    while plan._next < SEAT_CELLS:
        plan.block("tunnels" if SEAT_CELLS - plan._next < CELLS["listener"] else "listener", f"l{number}")
        number += 1
    dumped = of_before(plan)
    dumped["listener"].append((["last"], SEAT_CELLS - CELLS["listener"]))
    full = Plan.load(dumped)
    full.cover(config(["a"]))
    used = [cell for start, end in cells_of(full) for cell in range(start, end)]
    for cell in (full.block("tunnels", "web"), full.refusal("a", "http_response_timeout")):
        assert cell < SEAT_CELLS and cell not in used and cell not in set(Fact)


def test_cells_of_a_kind_that_we_do_not_know_are_left_alone() -> None:
    plan = Plan()
    dumped: Any = plan.dump()
    start = plan._next
    dumped["of_the_future"] = [(["x"], start)]
    dumped[""] = [([], start + 100)]
    after = Plan.load(json.loads(json.dumps(dumped)))
    assert after.block("listener", "web") >= start + 100
    assert after.dump()["of_the_future"] == [(["x"], start)]
    assert handed_on(after).block("listener", "web2") >= start + 100


# Endpoints that come and go.

UPSTREAM = Upstream.model_validate({"discovery": {"kind": "dns", "name": "app.test", "port": 80}})
RECKONED = Upstream.model_validate(
    {"discovery": {"kind": "dns", "name": "app.test", "port": 80}, "outlier": {"failure_ratio": "50%"}}
)


def test_what_an_endpoint_gives_back_another_gets() -> None:
    plan = Plan()
    assert plan.admit("app", RECKONED, "a:1") and plan.admit("app", RECKONED, "b:1")
    before, end = plan.places("app", "a:1"), plan._next
    assert before.keys() == {"upstream", "flight", "endpoint", "window"}
    cells = plan.give_back("app", "a:1")
    assert sorted(cells) == sorted(at for kind, start in before.items() for at in range(start, start + CELLS[kind]))
    assert plan.places("app", "a:1") == {}
    assert plan.admit("app", UPSTREAM, "c:1")
    assert plan.places("app", "c:1") == {kind: start for kind, start in before.items() if kind != "window"}
    assert plan.admit("app", RECKONED, "c:1")
    assert plan.places("app", "c:1") == before
    assert plan._next == end
    taken = cells_of(plan)
    assert all(end <= start for (_, end), (start, _) in pairwise(taken))


def test_what_was_given_back_is_handed_on() -> None:
    plan = Plan()
    plan.admit("app", UPSTREAM, "a:1")
    before = plan.places("app", "a:1")
    plan.give_back("app", "a:1")
    plan = handed_on(plan)
    assert plan.admit("app", UPSTREAM, "b:1")
    assert plan.places("app", "b:1") == before
    assert "given_back" not in plan.blocks


def test_no_two_endpoints_that_were_found_share_a_record() -> None:
    plan = Plan()
    number = 0
    while plan.admit("app", UPSTREAM, f"10.0.0.1:{number}"):
        number += 1
    assert number > 500
    assert f"10.0.0.1:{number}" not in {endpoint for _, endpoint in plan.blocks["endpoint"]}
    assert len(set(plan.blocks["endpoint"].values())) == number + 1  # and the one of all that the configuration lists
    assert plan.places("app", f"10.0.0.1:{number}") == {}, "not even a part of it was placed"
    assert plan.admit("app", UPSTREAM, "10.0.0.1:0"), "one that has its cells keeps them"
    plan.give_back("app", "10.0.0.1:3")
    assert plan.admit("app", UPSTREAM, "new:1")


def test_another_process_learns_where_series_are() -> None:
    master = Plan()
    child = handed_on(master)
    master.admit("app", UPSTREAM, "a:1")
    child.put("app", "a:1", json.loads(json.dumps(master.places("app", "a:1"))))
    assert child.block("upstream", "app", "a:1") == master.block("upstream", "app", "a:1")
    child.forget("app", "a:1")
    assert ("app", "a:1") not in child.blocks["upstream"] and ("app", "a:1") not in child.blocks["endpoint"]
