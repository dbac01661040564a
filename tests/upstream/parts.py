"""Endpoints without an upstream around them, on a scoreboard of their own."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gateway.config.values import Origin, TcpAddress
from gateway.scoreboard import Cells, Mark, Scoreboard
from gateway.truth import Truth
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.health import Health

# Where an endpoint's blocks are: its metrics, what is in flight, its record; the next one's come behind.
FIRST, _STEP = 1000, 64


class Parts:
    """A scoreboard, the seat of one worker, and endpoints on it."""

    def __init__(self) -> None:
        self.board = Scoreboard.create()
        self.cells: Cells = self.board.take(1, [])
        self.truth = Truth(self.board)
        self._made = 0

    def endpoint(self, origin: Origin | None = None, weight: int = 1, max_requests: int | None = None) -> Endpoint:
        at = FIRST + _STEP * self._made
        self._made += 1
        return Endpoint(
            "app",
            origin or Origin(TcpAddress("10.0.0.1", self._made)),
            "preserve",
            weight,
            cells=at,
            flight=at + 8,
            own=self.cells,
            health=Health(self.truth.record(at + Mark.SIZE)),
            truth=self.truth,
            max_requests=max_requests,
        )


def blank() -> dict[str, Any]:
    """What an endpoint has besides its address and weight, of one that nobody asks for its health."""
    parts = _parts()
    record = memoryview(bytearray(8 * Mark.SIZE)).cast("Q")
    return {"cells": 0, "flight": FIRST, "own": parts.cells, "health": Health(record), "truth": parts.truth}


@lru_cache(maxsize=1)
def _parts() -> Parts:
    return Parts()


def endpoints(*weights: int) -> list[Endpoint]:
    parts = Parts()
    return [parts.endpoint(weight=weight) for weight in weights]
