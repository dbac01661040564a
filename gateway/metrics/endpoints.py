"""How every endpoint fares, for people: what `gateway endpoint list` and the admin listener show."""

from __future__ import annotations

from typing import Any

from gateway.config import Config
from gateway.findings import Findings
from gateway.metrics.plan import Plan
from gateway.scoreboard import Condition, Mark
from gateway.truth import Truth, now_ms


def endpoints(truth: Truth, plan: Plan, config: Config, findings: Findings) -> list[dict[str, Any]]:
    """One row for each endpoint of a configuration, listed or found."""
    now = now_ms()
    rows = []
    named = [
        (name, str(one.address))
        for name, upstream in config.upstreams.items()
        for one in findings.members(name, upstream)
    ]
    for upstream, endpoint in named:
        record = truth.record(plan.block("endpoint", upstream, endpoint))
        condition = Condition(record[Mark.CONDITION])
        rows.append(
            {
                "upstream": upstream,
                "endpoint": endpoint,
                "condition": condition.name.lower(),
                "drained": bool(record[Mark.DRAINED]),
                "ready": condition in (Condition.UP, Condition.PROBATION) and not record[Mark.DRAINED],
                "in_flight": truth.over_all_workers(plan.block("flight", upstream, endpoint)),
                "ejections": int(record[Mark.EJECTED]),
                "since_seconds": round((now - record[Mark.SINCE]) / 1000, 1) if record[Mark.SINCE] else None,
                "ejected_for_seconds": (
                    round((record[Mark.UNTIL] - now) / 1000, 1) if condition is Condition.EJECTED else None
                ),
            }
        )
    return rows


def drain(truth: Truth, plan: Plan, upstream: str, endpoint: str, drained: bool) -> bool:
    """Have an endpoint get nothing new, or something again. False when there is no such endpoint."""
    at = plan.blocks["endpoint"].get((upstream, endpoint))
    if at is None:
        return False
    with truth.changing():
        truth.record(at)[Mark.DRAINED] = int(drained)
        truth.changed()
    return True
