"""How the endpoints of a gateway fare, as it says itself."""

from __future__ import annotations

import time
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class End:
    """When an ejection ends, as exactly as can be told from outside. Monotonic seconds."""

    least: float
    most: float

    @property
    def is_over(self) -> bool:
        """Whether it may be over."""
        return time.monotonic() >= self.least

    def is_that_of(self, other: End) -> bool:
        return self.least <= other.most and other.least <= self.most


def end(one: Gateway, endpoint: str) -> End | None:
    """Of its ejection; None when it is not ejected."""
    before = time.monotonic()
    left = row(one, endpoint)["ejected_for_seconds"]
    return None if left is None else End(before + left - 0.1, time.monotonic() + left + 0.1)  # rounded to a tenth
