"""How every endpoint fares, for people: what `gateway endpoint list` and the admin listener show."""

from __future__ import annotations

from typing import Any

from gateway.config.model import Config
from gateway.findings import Findings
from gateway.metrics.plan import Plan
from gateway.scoreboard import Condition, Mark
from gateway.truth import Truth, now_ms

# What is forgotten of an endpoint that probes had taken down.
_BEGUN_ANEW = (
    Mark.FAILURES, Mark.TRIAL, Mark.TRIALS_PASSED, Mark.PROBES_PASSED, Mark.PROBES_FAILED, Mark.LATENCY,
    Mark.LATENCY_AT,
)  # fmt: skip


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


def unprobed(truth: Truth, plan: Plan, config: Config) -> list[tuple[str, str]]:
    """Try again the endpoints that probes have taken down and that are probed no more, for nothing else would bring
    them back. Returns which."""
    names = {name for name, upstream in config.upstreams.items() if upstream.health is None}
    back = []
    with truth.changing():
        for (upstream, endpoint), at in plan.blocks["endpoint"].items():
            record = truth.record(at)
            if upstream in names and record[Mark.CONDITION] == Condition.DOWN:
                record[Mark.CONDITION], record[Mark.SINCE] = Condition.PROBATION, now_ms()
                for mark in _BEGUN_ANEW:
                    record[mark] = 0
                back.append((upstream, endpoint))
        if back:
            truth.changed()
    return back
