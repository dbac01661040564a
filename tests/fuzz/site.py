"""A worker's data path on a loop without sockets: the listener's entry, the upstream's connections, one client."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from uvicorn.server import ServerState

from gateway.config.model import Config
from gateway.exchange import Exchange
from gateway.listeners.http1 import Http1Connection
from gateway.metrics.plan import Plan
from gateway.scoreboard import Fact, Scoreboard
from gateway.worker.assembly import assemble
from tests.fuzz.acts import LATE, SPLIT, acts
from tests.fuzz.loop import Finding, Line, Loop, wheel

# Small enough for an input of a few hundred bytes to reach every limit.
LIMITS = {"request_line": "256B", "headers": "1KiB", "header_count": 12, "body": "64KiB", "requests_per_connection": 8}
TIMEOUTS = {"head": "2s", "body_idle": "2s", "keep_alive": "3s", "write_idle": "2s"}
UPSTREAM = {"connect": "1s", "response": "3s", "idle": "3s", "tunnel_idle": "5s"}
_PATIENCE = 60  # seconds that pass without anybody doing anything, after which all must be over
# What a connection may hold: a body's or a pipeline's high mark, a segment, a head.
_MOST_HELD = 256 * 1024 + 8 * 1024


_LISTENER = {"name": "web", "listen": "127.0.0.1:0", "limits": LIMITS, "timeouts": TIMEOUTS}
REVERSE = Config.model_validate(
    {
        "listeners": [_LISTENER],
        "upstreams": {"app": {"endpoints": ["192.0.2.3:80"], "timeouts": UPSTREAM}},
        "routes": [{"name": "app", "upstream": "app"}],
    }
)
FORWARD = Config.model_validate(
    {
        "listeners": [
            {
                **_LISTENER,
                "kind": "forward",
                "egress": "lan",
                "connect_timeout": "1s",
                "response_timeout": "3s",
                "idle_timeout": "5s",
            }
        ],
        "egress": {"lan": {"allow": ["192.0.2.0/24"], "ports": ["1-65535"]}},
    }
)


_USED = Fact.SERIES + 2000  # cells that the configurations here have any use for


@lru_cache(maxsize=1)
def _board() -> Scoreboard:
    return Scoreboard.create()


def fresh_board() -> Scoreboard:
    """The one scoreboard, as if nothing had happened yet: to make one for each input would cost more than the rest."""
    board = _board()
    for number in (0, 1):
        seat = board.seat(number)
        for cell in range(_USED):
            seat[cell] = 0
    return board


class Site:
    """One client's connection, in front of `app` or, without one, of the proxy. told: the exchanges that are over."""

    def __init__(self, loop: Loop, app: Any = None, config: Config = REVERSE) -> None:
        plan = Plan()
        plan.cover(config)
        self.told: list[Exchange] = []
        board = fresh_board()
        self.cells = board.seat(1)
        made = assemble(config, plan, board, self.cells, wheel(loop), self.told.append)
        made.clock.date = b"Sun, 06 Nov 1994 08:49:37 GMT"
        [self.entry] = made.http_entries
        self.entry.begin(loop)
        if app is not None:
            self.entry.app = app
        self.upstreams = made.upstreams
        self.loop = loop
        self.state = ServerState()
        self.heard = bytearray()  # by the client
        self.sent = bytearray()  # by the client
        self.connection: Any = partial(
            Http1Connection, config=None, server_state=self.state, app_state={}, entry=self.entry
        )()
        self.line = Line(loop, self.connection, self.heard.extend)

    def play(self, data: bytes) -> None:
        """Let the client do this, and then nothing any more until all is over."""
        line = self.line
        for act in acts(data):
            if act.mark == SPLIT:
                self.sent += act.data
            line.does(act)
            if act.mark == LATE:
                self.loop.passes(1.0)
            self.loop.settle()
            self._within_bounds()
        for _ in range(_PATIENCE):
            if line.lost and not self.state.tasks:
                break
            self.loop.passes(1.0)
        self.loop.settle()
        self._nothing_left()
        self.loop.quiet()

    def _within_bounds(self) -> None:
        held = holds(self.connection) + (holds(self.connection.exchange) if self.connection.exchange else 0)
        if held > _MOST_HELD:
            raise Finding(f"{held} bytes are held for one client")

    def _nothing_left(self) -> None:
        if not self.line.lost:
            raise Finding(f"after {_PATIENCE} s in which nothing came the connection is still open")
        if self.state.tasks or self.state.connections or self.entry.connections:
            raise Finding("the connection is gone, and something of it is left")
        if self.cells[self.entry.tunnels_cell]:
            raise Finding("a tunnel is counted as open that is not")
        if self.cells[self.entry.open_cell]:
            raise Finding("a connection is counted as open that is not")
        for upstream in self.upstreams.values():
            for endpoint in upstream.endpoints:
                if endpoint.in_flight:
                    raise Finding("a request is counted as under way that is over")


def holds(thing: Any) -> int:
    """Bytes that an object keeps in its slots, and in lists there."""
    total = 0
    for kind in type(thing).__mro__:
        for name in getattr(kind, "__slots__", ()):
            value = getattr(thing, name, None)
            if isinstance(value, bytes | bytearray):
                total += len(value)
            elif isinstance(value, list):
                total += sum(len(one) for one in value if isinstance(one, bytes | bytearray))
    return total
