"""Fields that tell browsers what they must not do with a response."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, WithJsonSchema

from gateway.config.fields import Flag
from gateway.config.http import FieldValue
from gateway.config.values import shown
from gateway.middleware.middleware import App, Message, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.wire import ResponseHead, edited, with_headers

OFF = "off"


def _hsts(value: str) -> str:
    parts = [part.strip().lower() for part in value.split(";")]
    ages = [part for part in parts if part.startswith("max-age=")]
    if value != OFF and (
        len(ages) != 1
        or not ages[0].removeprefix("max-age=").isdigit()
        or not {*parts} <= {*ages, "includesubdomains", "preload"}
    ):
        raise ValueError(
            f'expected "off", or a value such as "max-age=31536000; includeSubDomains", got {shown(value)}'
        )
    return value


Hsts = Annotated[
    FieldValue, AfterValidator(_hsts), WithJsonSchema({"type": "string", "examples": ["max-age=31536000"]})
]

# Each is safe for a site that never heard of it: nothing that a page may do today is taken from it, but for being
# framed by other sites and being read as another type than it says. HSTS: half a year, and not for names below ours.
BASIC = {
    "hsts": "max-age=15552000",
    "content_type_options": "nosniff",
    "frame_options": "SAMEORIGIN",
    "referrer_policy": "strict-origin-when-cross-origin",
}
# For sites that load nothing from elsewhere and know it. COEP is not among them: it breaks every image of another site
# that did not agree to it; nor is the preload list, which takes months to leave.
STRICT = {
    "hsts": "max-age=63072000; includeSubDomains",
    "content_type_options": "nosniff",
    "frame_options": "DENY",
    "referrer_policy": "no-referrer",
    "csp": "default-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "permissions_policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "coop": "same-origin",
    "corp": "same-origin",
}
PRESETS: dict[str, dict[str, str]] = {"basic": BASIC, "strict": STRICT, "none": {}}
NAMES = {
    "hsts": "strict-transport-security",
    "csp": "content-security-policy",
    "csp_report_only": "content-security-policy-report-only",
    "content_type_options": "x-content-type-options",
    "frame_options": "x-frame-options",
    "referrer_policy": "referrer-policy",
    "permissions_policy": "permissions-policy",
    "coop": "cross-origin-opener-policy",
    "corp": "cross-origin-resource-policy",
    "coep": "cross-origin-embedder-policy",
}


class Options(Base):
    kind: Literal["security_headers"] = "security_headers"
    """Adds fields that tell browsers what they must not do with a response."""
    preset: Literal["basic", "strict", "none"] = "basic"
    """What is sent where nothing else is said. "basic" suits nearly every site: Strict-Transport-Security for half a
    year, X-Content-Type-Options, X-Frame-Options SAMEORIGIN, Referrer-Policy strict-origin-when-cross-origin. "strict"
    is for sites that load nothing from elsewhere: two years with all names below, no frames, no referrer, a
    Content-Security-Policy of the own origin alone, no camera, microphone or location, and a browsing context of its
    own. The keys below replace what the preset says; "off" takes it away."""
    hsts: Hsts | None = None
    """Strict-Transport-Security (RFC 6797): browsers come by https only, for max-age seconds. Sent by https alone."""
    csp: FieldValue | None = None
    """Content-Security-Policy: what a page may load and run."""
    csp_report_only: FieldValue | None = None
    """Content-Security-Policy-Report-Only: a policy that is tried, and only reported on."""
    content_type_options: Literal["nosniff", "off"] | None = None
    """X-Content-Type-Options: a text is not run as a script because it looks like one."""
    frame_options: Literal["DENY", "SAMEORIGIN", "off"] | None = None
    """X-Frame-Options: who may show the page in a frame, for browsers that don't know frame-ancestors."""
    referrer_policy: (
        Literal[
            "no-referrer",
            "no-referrer-when-downgrade",
            "origin",
            "origin-when-cross-origin",
            "same-origin",
            "strict-origin",
            "strict-origin-when-cross-origin",
            "unsafe-url",
            "off",
        ]
        | None
    ) = None
    """Referrer-Policy: how much other sites learn of where a link was followed."""
    permissions_policy: FieldValue | None = None
    """Permissions-Policy: which devices and features pages may use."""
    coop: Literal["same-origin", "same-origin-allow-popups", "noopener-allow-popups", "unsafe-none", "off"] | None = (
        None
    )
    """Cross-Origin-Opener-Policy: whether windows of other sites that opened the page, or that it opens, may reach
    it."""
    corp: Literal["same-origin", "same-site", "cross-origin", "off"] | None = None
    """Cross-Origin-Resource-Policy: which sites may load it."""
    coep: Literal["require-corp", "credentialless", "unsafe-none", "off"] | None = None
    """Cross-Origin-Embedder-Policy: whether the page loads only what agreed to be loaded."""
    override: Flag = False
    """Whether a field replaces one of the same name that the response has; else that one stays."""

    def fields(self) -> dict[str, str]:
        """What is sent, by name of the field."""
        said = PRESETS[self.preset] | {key: value for key in NAMES if (value := getattr(self, key)) is not None}
        return {NAMES[key]: value for key, value in said.items() if value != OFF}


class SecurityHeaders(Middleware):
    """Adds Strict-Transport-Security, X-Content-Type-Options and their like to every response, the gateway's own
    answers among them. A field that the response has already stays, or is replaced (`override`). It never looks at a
    body.

    Order: outermost, or nearly, so that refusals of the layers inside get the fields too."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "security_headers", preset = "strict", csp = "default-src \'self\'" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        fields = {
            name.encode(): b"\r\n%b: %b" % (name.encode(), value.encode()) for name, value in options.fields().items()
        }
        open_fields = {name: line for name, line in fields.items() if name != b"strict-transport-security"}
        self._by_http = _Lines(open_fields, options.override)
        self._by_https = _Lines(fields, options.override)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        lines = self._by_https if scope["gateway"].scheme == "https" else self._by_http

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start" and message["status"] != 101:
                message = with_headers(message, lines.put_in(message["headers"]))
            return send(message)

        return self._app(scope, receive, sending)


class _Lines:
    """Fields that go into a response."""

    __slots__ = ("_all", "_each", "_names", "_override")

    def __init__(self, fields: dict[bytes, bytes], override: bool) -> None:
        """fields: the line of each name, CRLF before it."""
        self._all = b"".join(fields.values())
        self._names = frozenset(fields)
        self._each = [(b"\r\n" + name + b":", line) for name, line in fields.items()]
        self._override = override

    def put_in(self, headers: Any) -> Any:
        if self._override:
            return edited(headers, self._names, self._all)
        if type(headers) is ResponseHead:
            if not headers.added and headers.fields.without(self._names) is headers.fields:  # it has none of them
                return edited(headers, _NONE, self._all)
            there = headers.lines.lower()
            add = b"".join([line for start, line in self._each if start not in there])
        else:
            names = {name.lower() for name, _ in headers}
            add = b"".join([line for start, line in self._each if start[2:-1] not in names])
        return edited(headers, _NONE, add)


_NONE: frozenset[bytes] = frozenset()
