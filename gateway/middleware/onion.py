"""Around each layer a skin: it measures the layer, and turns its mistakes into answers that pass the layers outside.

So an answer of the gateway's own, wherever it is made, goes out like one of an endpoint, and gets what the outer layers
give to every response. Time is that from entering a layer until the next one is entered, or, where the layer answers
itself, until it has: what happens to the response on its way out is not in it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from time import monotonic_ns
from typing import Any

from gateway.answer import answer
from gateway.errors import Refused, UpstreamError
from gateway.metrics.plan import LAYER_FAILED, LAYER_REQUESTS, LAYER_TIME
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send

log = logging.getLogger("gateway.middleware")


class Skin:
    """An ASGI application: one layer in its place. outer: the place of the layer around it, if there is one."""

    def __init__(self, layer: App, place: Place, outer: Place | None) -> None:
        self._layer = layer
        self._place = place
        self._cells = place.cells
        self._requests = place.at + LAYER_REQUESTS
        self._time = place.at + LAYER_TIME
        self._outer = outer.at + LAYER_TIME if outer is not None else -1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["gateway"]
        cells = self._cells
        now = monotonic_ns()
        if self._outer >= 0:
            cells[self._outer] += now - exchange.entered
        exchange.entered = now
        cells[self._requests] += 1
        try:
            await self._layer(scope, receive, send)
        except Exception as error:
            await self._failed(exchange, send, error)
        else:
            if not (exchange.begun or exchange.gone):
                await self._failed(exchange, send, None)
        if exchange.entered == now:
            cells[self._time] += monotonic_ns() - now

    async def _failed(self, exchange: Any, send: Send, error: Exception | None) -> None:
        """Answer for a layer that made a mistake, or within which the request turned out not to be able to go on.
        error: None for one that gave no answer at all."""
        reason = reason_in(error)
        if reason is None:
            reason = "middleware_failed"
            place = self._place
            place.cells[place.at + LAYER_FAILED] += 1
            where = f"route {place.route}, layer {place.layer}"
            if error is None:
                log.error("%s: it left %r without an answer", where, exchange.target)
            else:
                log.error("%s: it failed on %r", where, exchange.target, exc_info=error)
        if not exchange.begun:
            await answer(exchange, send, reason)
        elif not exchange.complete:
            exchange.cut(reason)


def reason_in(error: BaseException | None) -> str | None:
    """The reason that an error carries, also one in a group, as task groups raise them; None for a mistake."""
    if isinstance(error, Refused | UpstreamError):
        return error.reason
    if isinstance(error, BaseExceptionGroup):
        return next((reason for one in error.exceptions if (reason := reason_in(one)) is not None), None)
    return None


def wrapped(
    app: App, layers: Sequence[tuple[type[Middleware], Any, Place]], outer: Place | None, made: list[Middleware]
) -> App:
    """An application within layers (kind, options, place), outermost first. outer: the place of the layer around all of
    them, if there is one. made: gets what was made. Raises StartError."""
    places = [outer, *(place for _, _, place in layers)]
    if places[-1] is not None:
        app = Core(app, places[-1])
    for (kind, options, place), around in reversed([*zip(layers, places, strict=False)]):
        layer = kind(app, options, place)
        made.append(layer)
        app = Skin(layer, place, around)
    return app


class Core:
    """An ASGI application: what is inside all layers. outer: the place of the innermost of them."""

    def __init__(self, app: App, outer: Place) -> None:
        self._app = app
        self._cells = outer.cells
        self._outer = outer.at + LAYER_TIME

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = scope["gateway"]
        now = monotonic_ns()
        self._cells[self._outer] += now - exchange.entered
        exchange.entered = now
        return self._app(scope, receive, send)
