"""How the gateway answers itself: what sends a refusal.

Which status a reason has says the table in `reasons.py`, what the answer looks like `refusals.py`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Iterable
from typing import Any

from gateway.reasons import status_of
from gateway.refusals import accept_in, refuse


def answer_refused(exchange: Any, send: Any) -> Awaitable[None]:
    """Send the refusal of a request whose body the listener does not take."""
    refused = exchange.refused
    return answer(exchange, send, refused.reason, (), refused.status)


async def answer(
    exchange: Any, send: Any, reason: str, fields: Iterable[tuple[bytes, bytes]] = (), status: int | None = None
) -> None:
    """Send a refusal. reason: a code of the table. fields: what this one says besides; of a name that would be there
    anyhow only theirs is sent. status: another one than the table's first."""
    status = status or status_of(reason)
    exchange.reason = reason
    exchange.begun = True
    if not exchange.request_id:
        exchange.request_id = os.urandom(8).hex()
    route = exchange.route
    made, body = refuse(
        status,
        reason,
        accept_in(exchange.head.lines),
        exchange.request_id,
        exchange.listener.style,
        None if route is None else route.style,
    )
    if fields:
        own = [*fields]
        names = {name for name, _ in own}
        made = [pair for pair in made if pair[0] not in names] + own
    await send({"type": "http.response.start", "status": status, "headers": made})
    await send({"type": "http.response.body", "body": body})
