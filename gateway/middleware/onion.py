"""Around each layer a skin: it measures the layer, and turns its mistakes into answers that pass the layers outside.

So an answer of the gateway's own, wherever it is made, goes out like one of an endpoint, and gets what the outer layers
give to every response. Time is that from entering a layer until the next one is entered, or, where the layer answers
itself, until it has: what happens to the response on its way out is not in it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic_ns
from typing import Any

from gateway.answer import answer, answer_refused
from gateway.errors import Absent, Refused, StartError, UpstreamError
from gateway.metrics.plan import LAYER_FAILED, LAYER_REQUESTS, LAYER_TIME
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send

log = logging.getLogger("gateway.middleware")


class Culprits:
    """Whose code an error comes from. A mistake on the way out comes up inside of the layer that made it, so that the
    frames it came through are the only thing that tells: the innermost one in the file of a kind, and there the layer
    that `self` is, or that it has as `_layer`. A closure that knows neither is taken for the innermost layer of its
    kind, which is right wherever a kind stands only once."""

    def __init__(self, kinds: Sequence[tuple[type[Middleware], Place]], around: Culprits | None) -> None:
        outer_files, outer_layers = (around._by_file, around._by_layer) if around is not None else ({}, {})
        self._by_file: dict[str, Place] = {**outer_files, **{inspect.getfile(kind): place for kind, place in kinds}}
        # By identity. Shared with the onion around, whose layers may be built later; all of them live equally long.
        self._by_layer: dict[int, Place] = outer_layers

    def add(self, layer: Middleware, place: Place) -> None:
        self._by_layer[id(layer)] = place

    def of(self, error: BaseException) -> Place | None:
        found, where = None, ""
        step = error.__traceback__
        while step is not None:
            file = step.tb_frame.f_code.co_filename
            if file in self._by_file:
                owner = step.tb_frame.f_locals.get("self")
                place = self._by_layer.get(id(owner)) or self._by_layer.get(id(getattr(owner, "_layer", None)))
                if place is not None or file != where:  # what a layer calls in its own file is the layer
                    found, where = place or self._by_file[file], file
            step = step.tb_next
        return found


class Onion:
    """Layers (kind, options, place), outermost first. around: another onion, in which they stand. absent: told of what
    a layer lacks on this machine, and the layer is left out; without it that is an error.

    What a layer gets to call are bound methods: they take 40 ns to call where an object with a __call__ takes 300."""

    def __init__(
        self,
        layers: Sequence[tuple[type[Middleware], Any, Place]],
        around: Onion | None = None,
        absent: Callable[[Absent], None] | None = None,
    ) -> None:
        self._layers = layers
        self._absent = absent
        self._places = [around.innermost if around is not None else None, *(place for _, _, place in layers)]
        outer: Culprits | None = around._culprits if around is not None else None
        self._culprits: Culprits = Culprits([(kind, place) for kind, _, place in layers], outer)

    @property
    def innermost(self) -> Place | None:
        """The place of the innermost layer, also one of the onion around; None when there is none at all."""
        return self._places[-1]

    def around(self, app: App, made: list[Middleware]) -> App:
        """An application in the middle. made: gets the layers that were made. Raises StartError."""
        if self.innermost is not None:
            app = Core(app, self.innermost, self._culprits).__call__
        return self.open(app, made)

    def open(self, app: App, made: list[Middleware]) -> App:
        """The same for an application that stands for others, which have onions of their own."""
        for (kind, options, place), outer in reversed([*zip(self._layers, self._places, strict=False)]):
            try:
                layer = kind(app, options, place)
            except StartError as error:
                named = type(error)(f"{place.identity}: {error}")
                if self._absent is None or not isinstance(named, Absent):
                    raise named from None
                self._absent(named)
                continue
            made.append(layer)
            self._culprits.add(layer, place)
            app = Skin(layer, place, outer, self._culprits).__call__
        return app


class Skin:
    """An ASGI application: one layer in its place. outer: the place of the layer around it, if there is one."""

    def __init__(self, layer: Middleware, place: Place, outer: Place | None, culprits: Culprits) -> None:
        self._call = layer.__call__
        self._place = place
        self._cells = place.cells
        self._requests = place.at + LAYER_REQUESTS
        self._time = place.at + LAYER_TIME
        self._outer = outer.at + LAYER_TIME if outer is not None else -1
        self._culprits = culprits

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine: what a layer gives back that has only handed the request on is of an inner skin, or of the
        core, and those see to what becomes of it."""
        exchange = scope["gateway"]
        cells = self._cells
        now = monotonic_ns()
        if self._outer >= 0:
            cells[self._outer] += now - exchange.entered
        exchange.entered = now
        cells[self._requests] += 1
        going: Awaitable[None]
        try:
            going = self._call(scope, receive, send)
        except Exception as error:
            going = _raised(error)
        if going is None or going is not exchange.going:  # None: of a layer that is no coroutine, and no layer
            going = exchange.going = self._watched(going, exchange, send, now)
        return going

    async def _watched(self, going: Awaitable[None], exchange: Any, send: Send, began: int) -> None:
        try:
            await going
        except Exception as error:
            await _failed(exchange, send, error, self._culprits, self._place)
        else:
            if not (exchange.begun or exchange.gone):
                await _failed(exchange, send, None, self._culprits, self._place)
        if exchange.entered == began:
            self._cells[self._time] += monotonic_ns() - began


class Core:
    """An ASGI application: what is inside all layers. A request whose body the listener does not take goes no further:
    so its answer passes the layers like any other. outer: the place of the innermost of them."""

    def __init__(self, app: App, outer: Place, culprits: Culprits) -> None:
        self._app = app
        self._cells = outer.cells
        self._outer = outer.at + LAYER_TIME
        self._culprits = culprits

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = scope["gateway"]
        now = monotonic_ns()
        self._cells[self._outer] += now - exchange.entered
        exchange.entered = now
        going: Awaitable[None] = self._watched(exchange, scope, receive, send)
        exchange.going = going
        return going

    async def _watched(self, exchange: Any, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if exchange.refused is not None:
                await answer_refused(exchange, send)
            else:
                await self._app(scope, receive, send)
        except Exception as error:
            await _failed(exchange, send, error, self._culprits)


async def _raised(error: Exception) -> None:
    raise error


async def _failed(
    exchange: Any, send: Send, error: Exception | None, culprits: Culprits, layer: Place | None = None
) -> None:
    """Answer where something failed, or where a request turned out not to be able to go on. error: None when a layer
    has ended without any answer. layer: where it came up, if that was in one; None for the application inside."""
    reason = reason_in(error)
    if reason is None:
        place = (culprits.of(error) if error is not None else None) or layer
        route = exchange.route.name if exchange.route is not None else "-"
        if place is None:
            reason = "proxy_internal_error"
            log.error("route %s: its application failed on %r", route, exchange.target, exc_info=error)
        else:
            reason = "middleware_failed"
            place.cells[place.at + LAYER_FAILED] += 1
            what = "failed on" if error is not None else "gave no answer to"
            log.error("route %s, layer %s: it %s %r", route, place.layer, what, exchange.target, exc_info=error)
    if not exchange.begun:
        try:
            await answer(exchange, send, reason)
        except Exception as further:  # of a layer outside, on its way out
            await _failed(exchange, send, further, culprits)
    elif not exchange.complete:
        exchange.cut(reason)


def reason_in(error: BaseException | None) -> str | None:
    """The reason that an error carries, also one in a group, as task groups raise them; None for a mistake."""
    if isinstance(error, Refused | UpstreamError):
        return error.reason
    if isinstance(error, BaseExceptionGroup):
        return next((reason for one in error.exceptions if (reason := reason_in(one)) is not None), None)
    return None
