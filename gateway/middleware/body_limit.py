"""How large the body of a request may be."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal

from gateway.config.quantities import Size
from gateway.errors import Refused
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.wire import RequestHead


class Options(Base):
    kind: Literal["body_limit"] = "body_limit"
    max: Size
    """The largest body that passes."""


class BodyLimit(Middleware):
    """Refuses larger bodies with 413: at once where Content-Length says so, also to a client that asks with
    Expect: 100-continue, else in the middle of the body, when it has become too large. Then the exchange with the
    endpoint is ended, and an answer that has begun is cut. Holds back nothing.

    The `max_body` of a listener goes before it: this can only be less.

    Order: outside of all that reads the body. Outside of decompress it measures the body as it was sent, inside of it
    what it unfolds to."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "body_limit", max = "1MiB" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._max = options.max

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        head: RequestHead = scope["headers"]
        if 0 <= head.length <= self._max:  # no longer than it says: the listener counts
            return self._app(scope, receive, send)
        if head.length > self._max:
            return self._place.refuse(scope["gateway"], send, "body_too_large")
        return self._app(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        left = self._max

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                if left < 0:
                    self._place.refused()
                    raise Refused("body_too_large", f"the request body has more than {self._max} bytes")
            return message

        return counted
