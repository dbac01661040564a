"""An ASGI middleware as anybody would write it: nothing in it knows of the gateway.

    middleware = [{ kind = "asgi", use = "my_middleware:Timing", options = { header = "x-took" } }]
"""

from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Timing:
    """Says in a header field how many milliseconds the answer took to begin."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]], header: str = "x-took") -> None:
        self.app = app
        self.header = header.lower().encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = perf_counter()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                took = f"{(perf_counter() - began) * 1000:.1f}ms".encode()
                message["headers"] = [*message["headers"], (self.header, took)]
            await send(message)

        await self.app(scope, receive, timed)
