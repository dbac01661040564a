"""How the endpoints of a gateway fare, as it says itself."""

from __future__ import annotations

import time
from typing import Any

from tests.support.gateway_process import Gateway


def row(one: Gateway, endpoint: str) -> dict[str, Any]:
    [found] = [row for row in one.ask(do="endpoints")["endpoints"] if row["endpoint"] == endpoint]
    return dict(found)


def condition(one: Gateway, endpoint: str) -> str:
    return str(row(one, endpoint)["condition"])


def is_ready(one: Gateway, endpoint: str) -> bool:
    return bool(row(one, endpoint)["ready"])


def changes(one: Gateway, endpoint: str) -> list[str]:
    """What it became, one after the other, by the log: "ejected", "probation" ..."""
    marked = f"endpoint {endpoint} is "
    lines = [line.partition(marked)[2] for line in one.log().splitlines() if marked in line]
    return [line.partition(",")[0] for line in lines]


class End:
    """When the ejection of an endpoint ends, as exactly as can be told from outside."""

    def __init__(self, one: Gateway, endpoint: str) -> None:
        before = time.monotonic()
        left: float | None = row(one, endpoint)["ejected_for_seconds"]
        assert left is not None, "it is not ejected"
        self._least, self._most = before + left - 0.1, time.monotonic() + left + 0.1  # it is rounded to a tenth

    @property
    def is_over(self) -> bool:
        """Whether it may be over."""
        return time.monotonic() >= self._least

    def __eq__(self, other: object) -> bool:
        return isinstance(other, End) and self._least <= other._most and other._least <= self._most

    __hash__ = None  # type: ignore[assignment]
