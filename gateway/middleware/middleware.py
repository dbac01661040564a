"""The contract of a layer: an ASGI class, built once for its place in an onion, whose options stand in the same file.

A layer is frozen once it is built; what belongs to one request lives in a fresh object or in a closure. It gets `http`
scopes whose headers are a `RequestHead` of its own, which it may change, and responses whose fields `wire.edited` and
its like know how to read. Nothing holds a body back unless its documentation says so and bounds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from gateway.answer import answer
from gateway.config.layers import LayerOptions
from gateway.documents import Documents
from gateway.ledger import Ledger
from gateway.metrics.plan import LAYER_REFUSED
from gateway.scoreboard import Cells
from gateway.truth import Truth
from gateway.upstream.clients import Clients
from gateway.wheel import Wheel

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

Options = LayerOptions


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer stands, and what it may use there.

    identity: what is counted for it over all workers and from one configuration to the next is kept under this. route:
    "*" around all routes. layer: its name for people. at: where its cells begin. plugin: what "module:Name" names,
    imported in this process; None while a configuration is only tried.
    """

    identity: str
    route: str
    layer: str
    cells: Cells
    at: int
    truth: Truth
    ledger: Ledger
    wheel: Wheel
    clients: Clients
    documents: Documents
    plugin: Callable[[str], Any]

    def refused(self) -> None:
        """Count a request that the layer did not let pass, where it does not do so by `refuse`."""
        self.cells[self.at + LAYER_REFUSED] += 1

    async def refuse(
        self,
        exchange: Any,
        send: Send,
        reason: str,
        fields: Iterable[tuple[bytes, bytes]] = (),
        status: int | None = None,
    ) -> None:
        """Answer in the application's stead. reason: a code of the table; fields: in the place of those that would be
        sent otherwise; status: another one than the table's first."""
        self.refused()
        await answer(exchange, send, reason, fields, status)


class Middleware(ABC):
    """A kind of layer. The docstring of each is what people read of it: what it does, what it answers, what it holds
    back, and, in its last paragraph, where in an onion it belongs."""

    OPTIONS: ClassVar[type[LayerOptions]]
    EXAMPLE: ClassVar[str]
    """As it is written in a configuration."""

    def __init__(self, app: App, options: Any, place: Place) -> None:
        """Decide all that the options decide. Runs outside of an event loop when a configuration is only tried. Raises
        StartError."""
        self._app = app

    @abstractmethod
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """One request, and its response."""

    def start(self) -> None:  # noqa: B027  most kinds have nothing to start
        """The event loop runs, and everything is assembled."""

    async def close(self) -> None:  # noqa: B027
        """The worker ends, or what was assembled is thrown away."""
