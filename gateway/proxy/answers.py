"""What becomes of a request when something went wrong behind the listener: a refusal, or an answer visibly cut.

Which status a reason has says the table in `reasons.py`, what the answer looks like `refusals.py`.
"""

from __future__ import annotations

import logging
from typing import Any

from gateway.answer import answer
from gateway.errors import Refused, UpstreamError

log = logging.getLogger("gateway.proxy")


class Answers:
    """The skin around the application of a route that no layers stand around: nothing but a cancellation passes it."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        exchange = scope["gateway"]
        try:
            await self._app(scope, receive, send)
            return
        except (Refused, UpstreamError) as error:
            reason = error.reason
        except Exception:
            name = "-" if exchange.route is None else exchange.route.name
            log.exception("route %s: its application failed on %r", name, exchange.target)
            reason = "proxy_internal_error"
        if not exchange.begun:
            await answer(exchange, send, reason)
        elif not exchange.complete:
            exchange.cut(reason)
