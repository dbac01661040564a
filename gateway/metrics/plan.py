"""Which cell of a seat belongs to which series.

The master makes the plan and every process inherits it by fork. A series keeps its cells for as long as the scoreboard
lives, also when a reload removes and brings back its route: that is what keeps counters monotonic. Only an endpoint
that has been gone for long gives its cells back. When the seat is full, further label sets share one block named
"__other__": a count is never lost, only its name. But no two endpoints share a record, by which they are judged: the
master asks before (`has_room`, `admit`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from gateway.config.model import Config
from gateway.config.upstreams import Upstream
from gateway.reasons import EGRESS_RULES, REASONS
from gateway.reasons import OTHER as OTHER_REASON
from gateway.scoreboard import SEAT_CELLS, Fact, Mark

# Upper bounds in seconds: Prometheus' defaults, with 1 and 2.5 ms before them since a proxy's own share is below 1 ms.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HISTOGRAM = len(BOUNDS) + 2  # one bucket above the last bound, then the sum in microseconds

# Kinds of blocks: how many cells, and which of them are gauges. A kind's cells never change in number or meaning, for
# one program hands its blocks on to the next; what is thought of later is a kind of its own.
ROUTE_CLASSES = 6  # index = status // 100; 0 is what ended without a status
ROUTE_BYTES_IN, ROUTE_BYTES_OUT = 6, 7
LATENCY_DURATION, LATENCY_FIRST_BYTE = 0, _HISTOGRAM
UPSTREAM_OPENED, UPSTREAM_REUSED, UPSTREAM_RETRIES, UPSTREAM_FAILURES, UPSTREAM_OPEN = range(5)
LISTENER_ACCEPTED, LISTENER_OPEN, LISTENER_IDLE = range(3)
TUNNELS_OPEN = 0
FLIGHT = 0  # requests under way at an endpoint
GROUP_RETRYING, GROUP_WAITING, GROUP_RETRIES_DENIED, GROUP_HEDGED, GROUP_HEDGES_WON, GROUP_FALLEN_BACK = range(6)
WINDOW = 6  # cells of upstream/ratio.py
# On a worker's seat the ticket of who is first in its line, 0 for nobody, and how often it made room; on the master's
# the last ticket that anybody took.
LINE_FIRST, LINE_LANDED = range(2)
MIRROR_SENT, MIRROR_DROPPED, MIRROR_FAILED = range(3)
# Requests that came to a layer; those it did not let pass, those it only would not have, its mistakes; nanoseconds.
LAYER_REQUESTS, LAYER_REFUSED, LAYER_SHADOWED, LAYER_FAILED, LAYER_TIME = range(5)
# Connections and sessions of listeners that don't speak HTTP that have ended; bytes from and to clients.
SESSION_ENDED, SESSION_BYTES_IN, SESSION_BYTES_OUT = range(3)
# Datagrams from and to clients; those for which there was no session, no room in the kernel, or that were too long.
DATAGRAMS_IN, DATAGRAMS_OUT, DATAGRAMS_REFUSED, DATAGRAMS_UNSENT, DATAGRAMS_TOO_LONG = range(5)
CELLS = {
    "route": 8,
    "latency": 2 * _HISTOGRAM,
    "upstream": 5,
    "listener": 3,
    "tunnels": 1,
    "flight": 1,
    "endpoint": int(Mark.SIZE),  # a record that all share: on the master's seat only
    "refusal": 1,
    "group": 6,
    "circuit": int(Mark.SIZE),  # a record of an upstream as a whole, like those of endpoints
    "window": WINDOW,
    "mirror": 3,
    "line": 2,
    "layer": 5,
    "session": 3,
    "datagrams": 5,
    "ending": 1,
    "denial": 1,
    "overflow": 1,  # datagrams for which the socket had no room
}
_GAUGES = {
    "upstream": (UPSTREAM_OPEN,),
    "listener": (LISTENER_OPEN, LISTENER_IDLE),
    "tunnels": (TUNNELS_OPEN,),
    "flight": (FLIGHT,),
    "group": (GROUP_RETRYING, GROUP_WAITING),
    "line": (LINE_FIRST,),
}
LABELS = {
    "route": ("listener", "route", "upstream"),
    "latency": ("route",),
    "upstream": ("upstream", "endpoint"),
    "listener": ("listener",),
    "tunnels": ("listener",),
    "flight": ("upstream", "endpoint"),
    "endpoint": ("upstream", "endpoint"),
    "refusal": ("route", "reason"),
    "group": ("upstream",),
    "circuit": ("upstream",),
    "window": ("upstream", "endpoint"),  # of all endpoints together where there is none
    "mirror": ("route",),
    "line": ("upstream",),
    "layer": ("route", "layer"),
    "session": ("listener",),
    "datagrams": ("listener",),
    "ending": ("listener", "reason"),
    "denial": ("egress", "rule"),
    "overflow": ("listener",),
}
OTHER = "__other__"
EVERY_ROUTE = "*"  # the route of a layer around all of them
NO_ROUTE = "-"  # the route of a request that matched none, and of one that the parser refused
# Nobody reads this cell. Counted here is only what a plan that was full before a kind was thought of has no room for.
_LOST = Fact.SERIES - 1
# In `dump`, beside the kinds: the first cell that is free, also behind kinds that the reader doesn't know; and the
# blocks before it that were given back.
_FREE = ""
_GIVEN_BACK = "given_back"
# The kinds that an endpoint has series of; the last one only where failures are reckoned.
_OF_ENDPOINT = ("upstream", "flight", "endpoint", "window")

Key = tuple[str, ...]


class Plan:
    """Blocks of cells by kind and labels."""

    def __init__(self, blocks: dict[str, dict[Key, int]] | None = None, free: int = Fact.SERIES) -> None:
        """free: no cell from here on is in use."""
        self.blocks: dict[str, dict[Key, int]] = blocks or {}
        self._next = int(free)
        self._given_back: dict[str, list[int]] = {kind: [] for kind in CELLS}
        for kind, cells in CELLS.items():
            known = self.blocks.setdefault(kind, {})
            if known:
                self._next = max(self._next, max(known.values()) + cells)
        for kind, cells in CELLS.items():
            if not self.blocks[kind] and self._next + cells <= SEAT_CELLS:
                self._place(kind, (OTHER,) * len(LABELS[kind]), cells)

    def _place(self, kind: str, labels: Key, cells: int) -> None:
        if self._given_back[kind]:
            self.blocks[kind][labels] = self._given_back[kind].pop()
            return
        self.blocks[kind][labels] = self._next
        self._next += cells

    def block(self, kind: str, *labels: str) -> int:
        """The first cell of this series; a new block on first sight."""
        known = self.blocks[kind]
        if labels not in known:
            cells = CELLS[kind]
            if self._next + cells > SEAT_CELLS and not self._given_back[kind]:
                return known.get((OTHER,) * len(labels), _LOST)
            self._place(kind, labels, cells)
        return known[labels]

    def refusal(self, route: str, reason: str) -> int:
        """The cell of a reason; of all unplanned ones of the route together where there is none for it."""
        known = self.blocks["refusal"]
        at = known.get((route, reason)) or known.get((route, OTHER_REASON))
        return at or known.get((OTHER, OTHER), _LOST)

    def cover(self, config: Config) -> None:
        """Place every series that this configuration can produce, before the processes that will count are forked."""
        for kind, labels in _records(config):  # first, so that `has_room` is right
            self.block(kind, *labels)
        for listener in config.listeners:
            self.block("listener", listener.name)
            self.block("tunnels", listener.name)
            if listener.IS_HTTP:
                self.block("route", listener.name, NO_ROUTE, "")
            else:
                self.block("session", listener.name)
            if listener.DATAGRAMS:
                self.block("datagrams", listener.name)
                self.block("overflow", listener.name)
        for listener in config.http_listeners:
            for route in config.routes:
                for upstream in route.upstreams or ("",):
                    self.block("route", listener.name, route.name, upstream)
        self.block("latency", NO_ROUTE)
        for route in config.routes:
            self.block("latency", route.name)
        for name in config.upstreams:
            self.block("group", name)
        for route in config.routes:
            if route.mirror is not None:
                self.block("mirror", route.name)
        around = [one.options.kind for one in config.onion(None)]
        for one in config.onion(None):
            self.block("layer", EVERY_ROUTE, one.name)
        for route in config.routes:
            for one in config.onion(route):
                self.block("layer", route.name, one.name)
        # Last, for they are many and mostly zero.
        for listener in config.listeners:
            if not listener.IS_HTTP:
                for code in ("", OTHER_REASON, *(code for code, one in REASONS.items() if one.ends_sessions)):
                    self.block("ending", listener.name, code)
        for name in config.egresses:
            for rule in EGRESS_RULES:
                self.block("denial", name, rule)
        for code, reason in REASONS.items():
            if not reason.kind or reason.kind in around:
                self.block("refusal", NO_ROUTE, code)
        self.block("refusal", NO_ROUTE, OTHER_REASON)
        for route in config.routes:
            kinds = {*around, *(one.options.kind for one in config.onion(route))}
            for code, reason in REASONS.items():
                if reason.routed and (not reason.kind or reason.kind in kinds):
                    self.block("refusal", route.name, code)
            self.block("refusal", route.name, OTHER_REASON)

    def has_room(self, config: Config) -> bool:
        """Whether each endpoint that a configuration lists, circuit and line can have series of its own."""
        return self._fit(kind for kind, labels in _records(config) if labels not in self.blocks[kind])

    def _fit(self, kinds: Iterable[str]) -> bool:
        """Whether there is room for so many more blocks of these kinds."""
        wanted = Counter(kinds)
        cells = sum(CELLS[kind] * max(0, number - len(self._given_back[kind])) for kind, number in wanted.items())
        return self._next + cells <= SEAT_CELLS

    def ending(self, listener: str, reason: str) -> int:
        """The cell of how sessions end."""
        known = self.blocks["ending"]
        at = known.get((listener, reason)) or known.get((listener, OTHER_REASON))
        return at or known.get((OTHER, OTHER), _LOST)

    def by_listener(self, kind: str) -> dict[str, int]:
        """The first cells of a kind that has a block for each listener."""
        return {name: at for (name,), at in self.blocks[kind].items() if name != OTHER}

    # Endpoints that come and go.

    def admit(self, name: str, upstream: Upstream, endpoint: str) -> bool:
        """Place the series of an endpoint if there is room for all of them: none that was found shares a record."""
        if not self._fit(kind for kind in _kinds(upstream) if (name, endpoint) not in self.blocks[kind]):
            return False
        for kind in _kinds(upstream):
            self.block(kind, name, endpoint)
        return True

    def endpoints(self) -> list[tuple[str, str]]:
        """Those that have a record, by upstream and address."""
        return [(name, endpoint) for name, endpoint in self.blocks["endpoint"] if name != OTHER]

    def places(self, name: str, endpoint: str) -> dict[str, int]:
        """Where the series of an endpoint are, by kind: for a process with a plan of its own, which takes it by
        `put`."""
        known = {kind: self.blocks[kind].get((name, endpoint)) for kind in _OF_ENDPOINT}
        return {kind: start for kind, start in known.items() if start is not None}

    def put(self, name: str, endpoint: str, places: dict[str, int]) -> None:
        for kind, start in places.items():
            self.blocks.setdefault(kind, {})[name, endpoint] = start

    def forget(self, name: str, endpoint: str) -> None:
        """Nobody has series of this endpoint any more."""
        for kind in _OF_ENDPOINT:
            self.blocks[kind].pop((name, endpoint), None)

    def give_back(self, name: str, endpoint: str) -> list[int]:
        """Forget an endpoint and let others have its blocks; the cells, which are to be zero from now on."""
        cells: list[int] = []
        for kind, start in self.places(name, endpoint).items():
            self._given_back[kind].append(start)
            cells += range(start, start + CELLS[kind])
        self.forget(name, endpoint)
        return cells

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
        dumped = {kind: [(list(key), start) for key, start in known.items()] for kind, known in self.blocks.items()}
        given_back = [([kind, str(start)], start) for kind, starts in self._given_back.items() for start in starts]
        return {**dumped, _GIVEN_BACK: given_back, _FREE: [([], self._next)]}

    @classmethod
    def load(cls, dumped: dict[str, list[tuple[list[str], int]]]) -> Plan:
        kinds = {kind: rows for kind, rows in dumped.items() if kind not in (_FREE, _GIVEN_BACK)}
        [(_, free)] = dumped.get(_FREE) or [([], int(Fact.SERIES))]
        plan = cls({kind: {tuple(key): start for key, start in rows} for kind, rows in kinds.items()}, free)
        for (kind, _), start in dumped.get(_GIVEN_BACK, ()):
            plan._given_back.setdefault(kind, []).append(start)
        return plan


def _kinds(upstream: Upstream) -> tuple[str, ...]:
    """The kinds of series that each endpoint of an upstream has."""
    return _OF_ENDPOINT if upstream.outlier.failure_ratio is not None else _OF_ENDPOINT[:-1]


def _records(config: Config) -> Iterator[tuple[str, Key]]:
    """The series, by kind and labels, that decide something: strangers must not share them."""
    for name, upstream in config.upstreams.items():
        if upstream.breaker is not None:
            yield "circuit", (name,)
            yield "window", (name, "")
        if upstream.queue is not None:
            yield "line", (name,)
        for endpoint in upstream.endpoints:
            for kind in _kinds(upstream):
                yield kind, (name, str(endpoint.address))
