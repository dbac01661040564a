"""What the master changes in the records of endpoints."""

from __future__ import annotations

from gateway.config.model import Config
from gateway.metrics.endpoints import unprobed
from gateway.metrics.plan import Plan
from gateway.scoreboard import Condition, Mark, Scoreboard
from gateway.truth import Truth

CONFIG = Config.model_validate(
    {
        "listeners": [{"name": "web", "listen": ":8080"}],
        "upstreams": {
            "probed": {"endpoints": ["a:1"], "health": {}},
            "plain": {"endpoints": ["a:1", "b:1", "c:1"]},
        },
    }
)


def test_only_who_is_down_and_probed_no_more_is_tried_again() -> None:
    plan, truth = Plan(), Truth(Scoreboard.create())
    plan.cover(CONFIG)
    plan.admit("plain", CONFIG.upstreams["plain"], "gone:1")

    def record(*labels: str) -> memoryview:
        return truth.record(plan.blocks["endpoint"][labels])

    down = [("probed", "a:1"), ("plain", "a:1"), ("plain", "gone:1")]
    for labels in down:
        record(*labels)[Mark.CONDITION] = Condition.DOWN
        record(*labels)[Mark.PROBES_FAILED] = record(*labels)[Mark.SINCE] = 7
    record("plain", "b:1")[Mark.CONDITION] = Condition.EJECTED
    version = truth.version
    assert unprobed(truth, plan, CONFIG) == [("plain", "a:1"), ("plain", "gone:1")], "also who may come again"
    assert truth.version == version + 1
    again = record("plain", "a:1")
    assert (again[Mark.CONDITION], again[Mark.PROBES_FAILED]) == (Condition.PROBATION, 0)
    assert again[Mark.SINCE] > 7
    assert record("probed", "a:1")[Mark.CONDITION] == Condition.DOWN
    assert record("plain", "b:1")[Mark.CONDITION] == Condition.EJECTED
    assert unprobed(truth, plan, CONFIG) == [] and truth.version == version + 1
