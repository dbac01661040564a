"""The application every request enters: finds the route, notes it on the exchange, and hands on to the route's own."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from gateway.proxy.answers import answer
from gateway.proxy.paths import ambiguity, canonical
from gateway.proxy.routes import Asked, NoRoute, Route, Table


class Router:
    """An ASGI application over a table of routes."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._only = table.only

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Not a coroutine: finding a route awaits nothing, and the route's own application is what's to be awaited."""
        exchange = scope["gateway"]
        route: Route | NoRoute
        raw = scope["raw_path"]
        if exchange.listener.strict_paths and ambiguity(raw) is not None:
            return answer(exchange, send, "ambiguous_path")
        if self._only is not None:
            route = self._only
        else:
            path = canonical(raw)
            asked = Asked(exchange.method, scope["query_string"], exchange.client, exchange.head.pairs)
            route = self._table.find(exchange.host, path, asked)
            if type(route) is NoRoute:
                if not route.allow:
                    return answer(exchange, send, "no_route")
                fields = [(b"allow", b", ".join(route.allow))]
                return answer(exchange, send, "method_not_allowed", fields)
        exchange.route = route
        return route.app(scope, receive, send)  # type: ignore[union-attr, no-any-return]
