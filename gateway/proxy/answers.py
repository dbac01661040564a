"""What becomes of a request when something went wrong behind the listener: a refusal, or an answer visibly cut.

Which status a reason has says the table in `reasons.py`, what the answer looks like `refusals.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

from gateway.errors import UpstreamError
from gateway.reasons import status_of
from gateway.refusals import accept_in, refuse

log = logging.getLogger("gateway.proxy")


async def answer(exchange: Any, send: Any, reason: str, fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send a refusal. reason: a code of the table; fields: what this one says besides."""
    status = status_of(reason)
    exchange.reason = reason
    if not exchange.request_id:
        exchange.request_id = os.urandom(8).hex()
    route = exchange.route
    made = refuse(
        status,
        reason,
        accept_in(exchange.head.lines),
        exchange.request_id,
        exchange.listener.style,
        None if route is None else route.style,
    )
    await send({"type": "http.response.start", "status": status, "headers": [*made.fields, *fields]})
    await send({"type": "http.response.body", "body": made.body})


class Answers:
    """The skin around everything that may fail: nothing but a cancellation passes it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["gateway"]
        try:
            await self._app(scope, receive, send)
            return
        except UpstreamError as error:
            reason = error.reason
        except Exception:
            name = "-" if exchange.route is None else exchange.route.name
            log.exception("route %s: its application failed on %r", name, exchange.target)
            reason = "proxy_internal_error"
        if not exchange.answered:
            await answer(exchange, send, reason)
        elif not exchange.complete:
            exchange.cut(reason)
