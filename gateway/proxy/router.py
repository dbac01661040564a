"""The application every request enters: finds the route, notes it on the exchange, and hands on to the route's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.answer import answer, answer_refused
from gateway.proxy.paths import ambiguity, canonical
from gateway.proxy.routes import Asked, NoRoute, Route, Table


class Router:
    """An ASGI application over a table of routes. around: the layers that wrap every route and every refusal here, the
    innermost of which hands on to `inside`; None when there are none. redact: takes what might be a credential from the
    target of a request that is for no route."""

    def __init__(self, table: Table, around: Any = None, redact: Callable[[bytes], bytes] | None = None) -> None:
        self._table = table
        self._redact = redact
        self._only = table.only
        self._around = around

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Not a coroutine: finding a route awaits nothing, and the route's own application is what's to be awaited."""
        exchange = scope["gateway"]
        route: Route | NoRoute
        raw = scope["raw_path"]
        if exchange.listener.strict_paths and ambiguity(raw) is not None:
            return self._refuse(scope, receive, send, "ambiguous_path")
        if self._only is not None:
            route = self._only
        else:
            path = canonical(raw)
            asked = Asked(exchange.method, scope["query_string"], exchange.client, exchange.head.pairs)
            route = self._table.find(exchange.host, path, asked)
            if type(route) is NoRoute:
                if not route.allow:
                    return self._refuse(scope, receive, send, "no_route")
                fields = [(b"allow", b", ".join(route.allow))]
                return self._refuse(scope, receive, send, "method_not_allowed", fields)
        exchange.route = route
        if route.redact is not None:  # type: ignore[union-attr]
            exchange.target = route.redact(exchange.target)  # type: ignore[union-attr]
        app = route.app  # type: ignore[union-attr]
        if exchange.refused is not None and not route.is_layered:  # type: ignore[union-attr]
            return answer_refused(exchange, send)
        if self._around is None:
            return app(scope, receive, send)  # type: ignore[no-any-return]
        exchange.inner = app
        return self._around(scope, receive, send)  # type: ignore[no-any-return]

    def _refuse(self, scope: Any, receive: Any, send: Any, reason: str, fields: Any = ()) -> Awaitable[None]:
        exchange = scope["gateway"]
        if exchange.refused is not None:
            reason, fields = exchange.refused.reason, ()
        if self._redact is not None:
            exchange.target = self._redact(exchange.target)
        if self._around is None:
            return answer(exchange, send, reason, fields)
        exchange.inner = Refusing(reason, fields)
        return self._around(scope, receive, send)  # type: ignore[no-any-return]


class Refusing:
    """An ASGI application that refuses, always for one reason."""

    def __init__(self, reason: str, fields: Any = ()) -> None:
        self._reason = reason
        self._fields = fields

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        return answer(scope["gateway"], send, self._reason, self._fields)


def inside(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    """The ASGI application inside the layers around all routes: that of the route that was found."""
    return scope["gateway"].inner(scope, receive, send)  # type: ignore[no-any-return]
