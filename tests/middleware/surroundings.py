"""What a layer finds around it: places of real parts, without a process that has them."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from gateway.documents import Documents
from gateway.ledger import Ledger
from gateway.metrics.plan import LAYER_REFUSED
from gateway.middleware.middleware import Place
from gateway.scoreboard import SEAT_CELLS, Cells, Scoreboard
from gateway.truth import Truth
from gateway.upstream.clients import Clients
from gateway.wheel import Wheel

_FIRST = 64  # where the cells of layers begin: behind those that a seat has anyway
_EACH = 8


class Surroundings:
    """What one process of a gateway has for all its layers."""

    def __init__(
        self,
        ledger: Ledger | None = None,
        documents: Documents | None = None,
        wheel: Wheel | None = None,
        plugin: Callable[[str], Any] = lambda name: None,
    ) -> None:
        self.cells: Cells = memoryview(bytearray(8 * SEAT_CELLS)).cast("Q")
        self.truth = Truth(_board())
        self.ledger = ledger or _ledger()
        self.wheel = wheel or Wheel(_later, lambda: asyncio.get_running_loop().time())
        self.clients = Clients(self.wheel, self.cells)
        self.documents = documents or Documents()
        self.plugin = plugin

    def at(self, number: int) -> int:
        """Where the cells of a layer begin."""
        return _FIRST + _EACH * number

    def place(self, layer: str, number: int = 0, identity: str = "app") -> Place:
        """number: counted from the outermost layer."""
        return Place(
            identity=f"{identity}/{number}",
            route="app",
            layer=layer,
            cells=self.cells,
            at=self.at(number),
            truth=self.truth,
            ledger=self.ledger,
            wheel=self.wheel,
            clients=self.clients,
            documents=self.documents,
            plugin=self.plugin,
        )


def _later(seconds: float, callback: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(seconds, callback)


@lru_cache
def _board() -> Scoreboard:
    return Scoreboard.create()


def _ledger() -> Ledger:
    made = Ledger.create()
    weakref.finalize(made, os.close, made.fd)
    return made


def place(name: str = "layer") -> Place:
    """A place for a single layer."""
    return Surroundings().place(name)


def refused(there: Place) -> int:
    """How many requests a layer has refused."""
    return int(there.cells[there.at + LAYER_REFUSED])
