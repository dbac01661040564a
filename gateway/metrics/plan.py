"""Which cell of a seat belongs to which series.

The master makes the plan and every process inherits it by fork. A series keeps its cells for as long as the scoreboard
lives, also when a reload removes and brings back its route: that is what keeps counters monotonic. When the seat is
full, further label sets share one block named "__other__": a count is never lost, only its name.
"""

from __future__ import annotations

from gateway.config import Config
from gateway.scoreboard import SEAT_CELLS, Fact

# Upper bounds in seconds: Prometheus' defaults, with 1 and 2.5 ms before them since a proxy's own share is below 1 ms.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HISTOGRAM = len(BOUNDS) + 2  # one bucket above the last bound, then the sum in microseconds

# Kinds of blocks: how many cells, and which of them are gauges.
ROUTE_CLASSES = 6  # index = status // 100; 0 is what ended without a status
ROUTE_BYTES_IN, ROUTE_BYTES_OUT = 6, 7
LATENCY_DURATION, LATENCY_FIRST_BYTE = 0, _HISTOGRAM
UPSTREAM_OPENED, UPSTREAM_REUSED, UPSTREAM_RETRIES, UPSTREAM_FAILURES, UPSTREAM_OPEN = range(5)
LISTENER_ACCEPTED, LISTENER_OPEN, LISTENER_IDLE = range(3)
CELLS = {"route": 8, "latency": 2 * _HISTOGRAM, "upstream": 5, "listener": 3}
_GAUGES = {"upstream": (UPSTREAM_OPEN,), "listener": (LISTENER_OPEN, LISTENER_IDLE)}
LABELS = {
    "route": ("listener", "route", "upstream"),
    "latency": ("route",),
    "upstream": ("upstream", "endpoint"),
    "listener": ("listener",),
}
OTHER = "__other__"
NO_ROUTE = "-"  # the route of a request that matched none, and of one that the parser refused

Key = tuple[str, ...]


class Plan:
    """Blocks of cells by kind and labels."""

    def __init__(self, blocks: dict[str, dict[Key, int]] | None = None) -> None:
        self.blocks: dict[str, dict[Key, int]] = blocks or {}
        self._next: int = Fact.SERIES
        for kind, cells in CELLS.items():
            known = self.blocks.setdefault(kind, {})
            if known:
                self._next = max(self._next, max(known.values()) + cells)
        for kind, cells in CELLS.items():
            if not self.blocks[kind]:
                self._place(kind, (OTHER,) * len(LABELS[kind]), cells)

    def _place(self, kind: str, labels: Key, cells: int) -> None:
        self.blocks[kind][labels] = self._next
        self._next += cells

    def block(self, kind: str, *labels: str) -> int:
        """The first cell of this series; a new block on first sight."""
        known = self.blocks[kind]
        if labels not in known:
            cells = CELLS[kind]
            if self._next + cells > SEAT_CELLS:
                return known[(OTHER,) * len(labels)]
            self._place(kind, labels, cells)
        return known[labels]

    def cover(self, config: Config) -> None:
        """Place every series that this configuration can produce, before the processes that will count are forked."""
        for listener in config.listeners:
            self.block("listener", listener.name)
            self.block("route", listener.name, NO_ROUTE, "")
            for route in config.routes:
                self.block("route", listener.name, route.name, route.upstream or "")
        self.block("latency", NO_ROUTE)
        for route in config.routes:
            self.block("latency", route.name)
        for name, upstream in config.upstreams.items():
            for endpoint in upstream.endpoints:
                self.block("upstream", name, str(endpoint.address))

    def gauges(self) -> list[int]:
        """The cells that are gauges, in every block."""
        return [
            start + offset
            for kind, offsets in _GAUGES.items()
            for start in self.blocks[kind].values()
            for offset in offsets
        ]

    def dump(self) -> dict[str, list[tuple[list[str], int]]]:
        """For the program that follows in an upgrade; `Plan.load` reads it."""
        return {kind: [(list(key), start) for key, start in known.items()] for kind, known in self.blocks.items()}

    @classmethod
    def load(cls, dumped: dict[str, list[tuple[list[str], int]]]) -> Plan:
        return cls({kind: {tuple(key): start for key, start in rows} for kind, rows in dumped.items()})
