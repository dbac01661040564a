"""A fixed answer, made once: for routes that answer by themselves, and for layers that do so in a route's stead."""

from __future__ import annotations

from typing import Any

from gateway.config.model import Respond as RespondConfig


class Respond:
    """An ASGI application with one answer."""

    def __init__(self, config: RespondConfig) -> None:
        body = config.body.encode()
        self._head = {
            "type": "http.response.start",
            "status": config.status,
            "headers": [
                (b"content-type", config.content_type.encode()),
                (b"content-length", b"%d" % len(body)),
                *((name.lower().encode(), value.encode()) for name, value in config.headers.items()),
            ],
        }
        self._body = {"type": "http.response.body", "body": body}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send(self._head)
        await send(self._body)
