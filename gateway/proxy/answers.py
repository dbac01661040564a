"""What a client is told when something went wrong: one table, one shape.

The shape is a status, a line of text and a Proxy-Status field with the reason code (RFC 9209), so that a person reading
a response knows which of the many 502s this is.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from gateway import errors

STATUS: dict[type[errors.UpstreamError], int] = {
    errors.ConnectFailed: 502,
    errors.ConnectTimeout: 504,
    errors.ResponseTimeout: 504,
    errors.IdleTimeout: 504,
    errors.ConnectionCut: 502,
    errors.BadResponse: 502,
    errors.NoEndpoint: 503,
    errors.QueueTimeout: 503,
}

# Seconds a client is asked to wait after a 503: what is full or down is rarely so for longer than a breath.
_RETRY_AFTER = b"1"


async def answer(
    exchange: Any, send: Any, status: int, error: str, reason: str = "", fields: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Send a refusal. error: an error type of RFC 9209; reason: our own code where that one is too coarse."""
    exchange.ended = reason or error
    details = f"; details={reason}" if reason and reason != error else ""
    body = f"{status} {_phrase(status)}: {reason or error}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"proxy-status", f"gateway; error={error}{details}".encode()),
        *(fields or ()),
    ]
    if status == 503:
        headers.append((b"retry-after", _RETRY_AFTER))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


class Answers:
    """The skin around everything that may raise an UpstreamError."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._app(scope, receive, send)
        except errors.UpstreamError as error:
            exchange = scope["gateway"]
            if exchange.answered:
                exchange.cut(error.reason)
            else:
                await answer(exchange, send, STATUS[type(error)], error.reason)
