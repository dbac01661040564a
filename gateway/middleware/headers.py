"""Header fields of requests and responses, set, added, removed and rewritten."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, model_validator

from gateway.config.fields import GUARDED, Regex
from gateway.config.section import Section
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.template import Template, TemplateText, safe
from gateway.middleware.written import EditedName, in_request, in_response
from gateway.wire import RequestHead, amended, edited, value_of, with_headers


class Replacement(Section):
    """A change within the value of a field."""

    name: EditedName
    """The field. Each line of that name is changed on its own."""
    regex: Regex
    """What is looked for, anywhere in the value."""
    to: str
    """What each match becomes, with its groups as \\1 or \\g<name>."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            re.compile(self.regex).sub(self.to, "")
        except (re.error, IndexError) as error:
            raise ValueError(f"to does not fit regex: {error}") from None
        return self


class Edits(Section):
    """What is done, in this order: remove, replace, set, add, default."""

    remove: tuple[EditedName, ...] = ()
    """Fields that are removed."""
    replace: tuple[Replacement, ...] = ()
    """Changes within values."""
    set: Annotated[dict[EditedName, TemplateText], GUARDED] = {}
    """Fields that take the place of all others of their name."""
    add: Annotated[dict[EditedName, TemplateText], GUARDED] = {}
    """Fields that are added, also when there are others of their name."""
    default: Annotated[dict[EditedName, TemplateText], GUARDED] = {}
    """Fields that are added where there is none of their name."""


def _only(allowed: Callable[[str], str]) -> Any:
    """Refuses edits of fields that are not to be written in one direction."""

    def check(edits: Edits) -> Edits:
        for names in (edits.set, edits.default, edits.add, edits.remove):
            for name in names:
                allowed(name)
        return edits

    return AfterValidator(check)


class Options(Base):
    kind: Literal["headers"] = "headers"
    request: Annotated[Edits, _only(in_request)] = Edits()
    """What is done to the fields of requests."""
    response: Annotated[Edits, _only(in_response)] = Edits()
    """What is done to the fields of responses, also of those that the gateway makes itself."""


class Headers(Middleware):
    """Changes header fields of requests before they go on, and of responses before they reach the client. Values may
    have places: {client_ip} {host} {path} {request_id} {route} {header:NAME} {cookie:NAME} {jwt:CLAIM}; "{{" is a plain
    brace. A claim reads as with `claims_to_headers` of jwt, and as nothing where that would refuse it. Fields that
    frame a message or end at a hop (Connection, Content-Length, Transfer-Encoding ...) can't be written; the Host of
    requests is the upstream's `host` to say.

    Order: outermost for what every response is to have; inside of jwt for values that come from claims."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "headers", response = { set = { x-frame-options = "DENY" }, remove = ["server"] } }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._request = _Edit(options.request) if options.request != Edits() else None
        self._response = _Edit(options.response) if options.response != Edits() else None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        request, response = self._request, self._response
        if request is not None:
            head = scope["headers"]
            if request.is_static:
                edited(head, request.drop, request.lines)
            else:
                request.apply(head, scope["gateway"], head)
        if response is None:
            return self._app(scope, receive, send)
        return self._app(scope, receive, response.static(send) if response.is_static else response.made(scope, send))


class _Edit:
    """Edits of one direction, prepared: all that no request changes is one removal and one block of lines."""

    __slots__ = ("_defaults", "_dynamic", "_replace", "drop", "is_static", "lines")

    def __init__(self, edits: Edits) -> None:
        self.drop = frozenset(name.lower().encode() for name in (*edits.remove, *edits.set))
        self._replace = [
            (one.name.lower().encode(), re.compile(one.regex.encode()), one.to.encode()) for one in edits.replace
        ]
        self._defaults = _templates(edits.default)
        written = [*_templates(edits.set), *_templates(edits.add)]
        is_static = all(template.is_static for _, template in written)
        self._dynamic = [] if is_static else written
        self.is_static = is_static and not self._replace and not self._defaults
        self.lines = b"".join([_line(name, template.render(None, None)) for name, template in written if is_static])

    def static(self, send: Send) -> Send:
        """A `send` that edits responses, where no request changes what is done."""
        drop, lines = self.drop, self.lines

        def edit(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = amended(message, drop, lines)
            return send(message)

        return edit

    def made(self, scope: Scope, send: Send) -> Send:
        """The same where some of it is made of the request."""
        exchange, head = scope["gateway"], scope["headers"]

        def edit(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = with_headers(message, self.apply(message["headers"], exchange, head))
            return send(message)

        return edit

    def apply(self, fields: Any, exchange: Any, head: RequestHead) -> Any:
        """The fields of a message, edited. head: of the request."""
        lines = self.lines
        if self._dynamic:
            # Before anything is removed: what is set may be made of what it replaces.
            lines = b"".join([_line(name, template.render(exchange, head)) for name, template in self._dynamic])
        for one in self._replace:
            fields = self._replaced(fields, *one)
        fields = edited(fields, self.drop, lines)
        for name, template in self._defaults:
            if value_of(fields, name) is None:
                fields = edited(fields, frozenset(), _line(name, template.render(exchange, head)))
        return fields

    def _replaced(self, fields: Any, name: bytes, regex: re.Pattern[bytes], to: bytes) -> Any:
        """The fields with every match in values of this name replaced."""
        if value_of(fields, name) is None:
            return fields
        before = [value for known, value in fields if known.lower() == name]
        after = [regex.sub(to, value) for value in before]
        if after == before:
            return fields
        return edited(fields, frozenset((name,)), b"".join([_line(name, value) for value in after]))


def _templates(written: dict[str, str]) -> list[tuple[bytes, Template]]:
    return [(name.lower().encode(), Template(text)) for name, text in written.items()]


def _line(name: bytes, value: bytes) -> bytes:
    return b"\r\n%b: %b" % (name, safe(value))
