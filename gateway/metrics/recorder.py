"""Counts exchanges and sessions: the only place where the data path writes metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from time import monotonic, time
from typing import Any

from gateway.exchange import Exchange
from gateway.metrics.plan import (
    BOUNDS,
    LATENCY_FIRST_BYTE,
    NO_ROUTE,
    ROUTE_BYTES_IN,
    ROUTE_BYTES_OUT,
    ROUTE_CLASSES,
    SESSION_BYTES_IN,
    SESSION_BYTES_OUT,
    SESSION_ENDED,
    Plan,
)
from gateway.scoreboard import Cells, Fact
from gateway.session import Session

_SUM = len(BOUNDS) + 1
_REQUESTS = int(Fact.REQUESTS)  # an enum member is slower to use as an index than the number it stands for


def recorder(
    cells: Cells, plan: Plan, listeners: list[str], write_log: Callable[[Exchange, float, float], None] | None
) -> Callable[[Exchange], None]:
    """A function that takes each exchange at its end. write_log: the access log, None when it is off."""
    latency = plan.block("latency", NO_ROUTE)
    refusal = plan.refusal
    unrouted = {name: (plan.block("route", name, NO_ROUTE, ""), latency) for name in listeners}

    def finished(x: Any) -> None:
        duration = monotonic() - x.started
        route = x.route
        name = x.listener.name
        at, histogram = unrouted[name] if route is None else route.series[name]
        kind = x.status // 100
        cells[at + (kind if kind < ROUTE_CLASSES else 0)] += 1
        if x.bytes_in:
            cells[at + ROUTE_BYTES_IN] += x.bytes_in
        if x.bytes_out:
            cells[at + ROUTE_BYTES_OUT] += x.bytes_out
        if x.status != 101 and not x.tunnelled:  # how long a tunnel was open says nothing about how long answers take
            cells[histogram + bisect_left(BOUNDS, duration)] += 1
            cells[histogram + _SUM] += int(duration * 1e6)
        first = x.first_byte
        if first:
            histogram += LATENCY_FIRST_BYTE
            cells[histogram + bisect_left(BOUNDS, first)] += 1
            cells[histogram + _SUM] += int(first * 1e6)
        cells[_REQUESTS] += 1
        if x.reason:
            cells[refusal(NO_ROUTE if route is None else route.name, x.reason)] += 1
        if write_log is not None:
            write_log(x, time(), duration)

    return finished


def session_recorder(
    cells: Cells, plan: Plan, write_log: Callable[[Session, float, float], None] | None
) -> Callable[[Session], None]:
    """A function that takes each session at its end. write_log: the access log, None when it is off."""

    def ended(session: Session) -> None:
        name = session.listener.name
        at = plan.block("session", name)
        cells[at + SESSION_ENDED] += 1
        cells[at + SESSION_BYTES_IN] += session.bytes_in
        cells[at + SESSION_BYTES_OUT] += session.bytes_out
        cells[plan.ending(name, session.reason)] += 1
        cells[_REQUESTS] += 1
        if write_log is not None:
            write_log(session, time(), monotonic() - session.started)

    return ended
