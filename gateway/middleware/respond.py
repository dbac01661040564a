"""A fixed answer in the place of a route's own."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Literal

from gateway.config.http import Method, UrlPath
from gateway.config.model import Respond as RespondConfig
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.respond import Respond as FixedAnswer


class Options(RespondConfig, Base):
    kind: Literal["respond"] = "respond"
    """Answers by itself."""
    methods: tuple[Method, ...] = ()
    """Only requests with these methods are answered; others go on. Any when empty."""
    path: UrlPath | None = None
    """Only this path and those below it are answered; others go on. Any when absent."""

    @classmethod
    def answers(cls, written: Mapping[str, Any]) -> bool:
        return not (written.get("methods") or written.get("path"))


class Respond(Middleware):
    """Gives one fixed answer, to every request or to those with some methods or below a path: a page for a site that
    is being worked on, a robots.txt, a health check of the gateway's own. It reads no body.

    Order: inside what should wrap its answer too, such as compression and security headers. What stands inside of it
    gets only the requests that it lets pass."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "respond", status = 503, body = "Back at noon.", headers = { retry-after = "3600" } }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._methods = frozenset(options.methods)
        self._path = options.path
        self._below = None if options.path is None else options.path.rstrip("/") + "/"
        self._answer = FixedAnswer(options)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self._methods and scope["method"] not in self._methods:
            return self._app(scope, receive, send)
        if self._below is not None:
            path = scope["path"]
            if path != self._path and not path.startswith(self._below):
                return self._app(scope, receive, send)
        scope["gateway"].begun = True
        return self._answer(scope, receive, send)
