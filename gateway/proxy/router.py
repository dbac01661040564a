"""The application every request enters: finds the route, notes it on the exchange, and hands on to the route's own."""

from __future__ import annotations

from typing import Any

from gateway.proxy.answers import answer
from gateway.proxy.routes import Asked, NoRoute, Table, canonical


class Router:
    """An ASGI application over a table of routes."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._only = table.only

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["gateway"]
        only = self._only
        if only is not None:
            exchange.route = only
            await only.app(scope, receive, send)
            return
        path = canonical(scope["raw_path"])
        if path is None:
            await answer(exchange, send, 400, "http_request_error", "ambiguous_path")
            return
        asked = Asked(exchange.method, scope["query_string"], exchange.client, exchange.head.pairs)
        route = self._table.find(exchange.host, path, asked)
        if type(route) is NoRoute:
            if route.allow:
                fields = [(b"allow", b", ".join(route.allow))]
                await answer(exchange, send, 405, "http_request_denied", "method_not_allowed", fields)
            else:
                await answer(exchange, send, 404, "destination_not_found", "no_route")
            return
        exchange.route = route
        await route.app(scope, receive, send)
