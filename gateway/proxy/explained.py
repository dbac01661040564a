"""An explanation in words, as `gateway explain` prints it. Pure."""

from __future__ import annotations

import json
from typing import Any

from gateway.proxy.explain import Candidate, Explanation, Outcome, Shaping

_MOST_OTHERS = 20


def explained(told: Explanation) -> str:
    """All of it, a line for each fact."""
    rows = [
        ("request", f"{told.method} {told.target}"),
        ("host", told.host or "none"),
        ("client", told.client),
        ("path", told.path),
    ]
    for name, policy in told.listeners.items():
        verdict = "passes it" if policy == "pass" else "answers 400"
        rows.append(("ambiguous", f"{told.ambiguity}: listener {name} {verdict}"))
    # Of many hosts, those that have nothing to do with the request are not worth a line each.
    others = [one for one in told.candidates if not one.failed.keys().isdisjoint(("host", "path"))]
    hidden = others[_MOST_OTHERS:]
    shown = [one for one in told.candidates if one not in hidden]
    width = max((len(one.name) for one in shown), default=0)
    routes = [f"  {one.name.ljust(width)}  {_verdict(one, told)}" for one in shown]
    if hidden:
        routes.append(f"  and {len(hidden)} more for other hosts and paths")
    return "\n".join(
        (*_aligned(rows), "", "routes, in the order in which they are asked", *routes, "", *_answered(told))
    )


def _verdict(candidate: Candidate, told: Explanation) -> str:
    if candidate.failed:
        return "no: " + ", ".join(f"{key} ({wanted})" for key, wanted in candidate.failed.items())
    if candidate.name == told.outcome.route:
        return "takes it" if told.is_taken else "would take it"
    return "would take it next"


def _answered(told: Explanation) -> list[str]:
    outcome = told.outcome
    if not told.is_taken and outcome.route:
        answer = "400 (ambiguous_path)"
    elif outcome.shaping.shares:
        answer = _chosen(outcome)
    elif told.is_taken and not outcome.status:
        answer = "from a layer"
    else:
        answer = f"{outcome.status} from the gateway"
        if outcome.location:
            answer += f", location: {outcome.location}"
        if outcome.allow:
            answer += f", allow: {', '.join(outcome.allow)}"
    rows = [("answer", answer)]
    if told.is_taken and outcome.shaping.shares:
        upgrade = outcome.upgrade if isinstance(outcome.upgrade, str) else ", ".join(outcome.upgrade)
        rows += _shaped(outcome.shaping)
        rows.append(("upgrade", upgrade or "none"))
        width = max(len(one.address) for one in outcome.destinations)
        # Whose endpoint it is has been said already where there is one upstream to ask.
        named = 0 if outcome.upstream else 2 + max(len(one.upstream) for one in outcome.destinations)
        rows += [
            (
                "endpoint",
                (one.upstream.ljust(named) if named else "")
                + f"{one.address.ljust(width)}  {told.method} {one.target}, host: {one.host}",
            )
            for one in outcome.destinations
        ]
    return [*_aligned(rows), *_onion(outcome)]


def _onion(outcome: Outcome) -> list[str]:
    """The layers that the request goes through."""
    if not outcome.onion:
        return []
    name = max(len(one.name) for one in outcome.onion)
    where = max(len(one.where) for one in outcome.onion)
    lines = [
        f"  {one.name.ljust(name)}  {one.where.ljust(where)}  {_options(one.options)}".rstrip() for one in outcome.onion
    ]
    return ["", "layers, outermost first", *lines]


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in options.items())


def _chosen(outcome: Outcome) -> str:
    """Which upstream is asked, and why that one."""
    shaping = outcome.shaping
    if outcome.upstream:
        return f"from upstream {outcome.upstream}" + (f", by {outcome.decided_by}" if outcome.decided_by else "")
    names = " or ".join(share.upstream for share in shaping.shares if share.percent)
    return f"from upstream {names}, by chance" + (
        f": the request has no {shaping.split_key}" if shaping.split_key else ""
    )


def _shaped(shaping: Shaping) -> list[tuple[str, str]]:
    """How the requests of a route are shared and copied."""
    rows = []
    if len(shaping.shares) > 1:
        percents = [f"{share.percent:g}%" for share in shaping.shares]
        width = max(map(len, percents))
        rows += [
            ("share", f"{percent.rjust(width)}  {share.upstream}")
            for percent, share in zip(percents, shaping.shares, strict=True)
        ]
    if shaping.canary:
        rows.append(("canary", f"{shaping.canary_upstream}, when {shaping.canary}"))
    if shaping.fallback:
        rows.append(("fallback", f"{shaping.fallback}, when no endpoint is ready"))
    if shaping.mirror:
        rows.append(("mirror", f"{shaping.mirror}, copies of {shaping.mirror_percent:g}%"))
    return rows


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    return [f"{title.ljust(10)} {text}" for title, text in rows]
