"""What a client is told when the gateway answers itself: a status, fields, and a body in the form it accepts. Pure.

The parser's refusals and the proxy's answers are made here, so both look the same: the reason code, one sentence and
the request id, as text, as a small HTML page, or as problem details (RFC 9457). Nothing of the request is repeated in
them. An error page of the configuration takes the body's place, whatever the client accepts: somebody wanted it there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from http import HTTPStatus
from typing import NamedTuple

from gateway.reasons import REASONS, Reason

# Our name in Proxy-Status (RFC 9209), for people; that in Via is another for each gateway.
_NAME = "gateway"
# Seconds a client is asked to wait: what is full or down is rarely so for longer than a breath.
_RETRY_AFTER = {429: b"1", 503: b"1"}
# Of Accept; browsers send some 150 bytes. Also what one remembered value may cost.
_LONGEST_ACCEPT = 512

# As RFC 9110, section 15 has them; older Pythons call some otherwise.
PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


class Page:
    """A body with places for {status} {phrase} {reason} {detail} and {request_id}, escaped as its type wants it."""

    __slots__ = ("_escape", "_pieces", "content_type")

    _PLACE = re.compile(r"\{(status|phrase|reason|detail|request_id)\}")

    def __init__(self, content_type: str, template: str) -> None:
        self.content_type = content_type.encode()
        self._pieces = self._PLACE.split(template)  # text and names by turns
        self._escape: Callable[[str], str] = _as_it_is
        if "html" in content_type:
            self._escape = escape
        elif "json" in content_type:
            self._escape = _in_json

    def render(self, values: Mapping[str, str]) -> bytes:
        pieces = self._pieces.copy()
        pieces[1::2] = [self._escape(values[name]) for name in pieces[1::2]]
        return "".join(pieces).encode()


def _as_it_is(text: str) -> str:
    return text


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


TEXT = Page("text/plain; charset=utf-8", "{status} {phrase}: {reason}\n{detail}\nrequest id {request_id}\n")
HTML = Page(
    "text/html; charset=utf-8",
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{status} {phrase}</title>
<style>
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem }
:root { color-scheme: light dark }
h1 { font-weight: 600 }
footer { opacity: .7; font-size: .85rem }
</style>
<h1>{status} {phrase}</h1>
<p>{detail}</p>
<footer>{reason} &middot; request id {request_id}</footer>
</html>
""",
)
PROBLEM = Page(
    "application/problem+json",
    '{"type":"about:blank","title":"{phrase}","status":{status},"detail":"{detail}",'
    '"reason":"{reason}","request_id":"{request_id}"}\n',
)
# What can be made, the first where the client has no preference.
_FORMS = {b"text/plain": TEXT, b"text/html": HTML, b"application/problem+json": PROBLEM, b"application/json": PROBLEM}


@dataclass(frozen=True, slots=True)
class Style:
    """How a listener's or a route's refusals look. pages: by status ("404") or class ("5xx")."""

    pages: Mapping[str, Page] = field(default_factory=dict)
    reason_header: bool = False

    def page(self, status: int) -> Page | None:
        if not self.pages:
            return None
        return self.pages.get(str(status)) or self.pages.get(f"{status // 100}xx")


PLAIN = Style()


class Refusal(NamedTuple):
    """fields: lower-case names, content-length among them; Date and framing are the listener's."""

    fields: list[tuple[bytes, bytes]]
    body: bytes


def refuse(
    status: int, reason: str, accept: bytes, request_id: str, style: Style, route_style: Style | None = None
) -> Refusal:
    """The answer for a reason. accept: the request's Accept, b"" for none or an unknown one; style: the listener's;
    route_style: where it has a page, that goes before the listener's."""
    phrase = PHRASES.get(status, "Refused")
    known = REASONS.get(reason)
    if known is None or not known.error:
        known = Reason("http_request_error" if status < 500 else "proxy_internal_error", phrase + ".")
    page = route_style.page(status) if route_style is not None else None
    page = page or style.page(status) or _FORMS[preferred(accept)]
    body = page.render(
        {"status": str(status), "phrase": phrase, "reason": reason, "detail": known.text, "request_id": request_id}
    )
    details = f'; details="{reason}"' if reason != known.error else ""
    fields = [
        (b"content-type", page.content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),  # it names one request, and some statuses may be kept unasked (RFC 9111)
        (b"proxy-status", f"{_NAME}; error={known.error}{details}".encode()),
    ]
    if status in _RETRY_AFTER:
        fields.append((b"retry-after", _RETRY_AFTER[status]))
    if style.reason_header or (route_style is not None and route_style.reason_header):
        fields.append((b"x-gateway-reason", reason.encode()))
    return Refusal(fields, body)


def accept_in(lines: bytes) -> bytes:
    """The value of the first Accept among these field lines, CRLF before each; they may be of a head that was refused,
    and so be anything."""
    at = lines.lower().find(b"\r\naccept:")
    if at < 0:
        return b""
    end = lines.find(b"\r\n", at + 2)
    return lines[at + 9 : end if end >= 0 else len(lines)].strip(b" \t")


# Content negotiation (RFC 9110, section 12.5.1).

_QUALITY = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def preferred(accept: bytes) -> bytes:
    """Which of the media types that we can make the client likes best. One that it names goes before one that a
    wildcard covers, then the one that comes first; text/plain where it likes none."""
    if len(accept) > _LONGEST_ACCEPT:
        accept = accept[:_LONGEST_ACCEPT].rpartition(b",")[0]
    return _preferred(accept)


@lru_cache(maxsize=256)
def _preferred(accept: bytes) -> bytes:
    ranges: dict[bytes, tuple[float, int]] = {}
    for place, member in enumerate(accept.lower().split(b",")):
        name, *parameters = [part.strip(b" \t") for part in member.split(b";")]
        quality = _quality(parameters)
        if quality is not None:
            ranges.setdefault(name, (quality, -place))
    best, best_rank = b"text/plain", (0.0, 0, 0)
    for name in _FORMS:
        for vague, covers in enumerate((name, name.partition(b"/")[0] + b"/*", b"*/*")):
            if covers in ranges:
                quality, place = ranges[covers]
                rank = (quality, -vague, place)
                if rank > best_rank:
                    best, best_rank = name, rank
                break
    return best


def _quality(parameters: list[bytes]) -> float | None:
    """The weight among the parameters of a media range, 1 without one, None for one that isn't a weight."""
    for parameter in parameters:
        if parameter.startswith(b"q="):
            return float(parameter[2:]) if _QUALITY.fullmatch(parameter[2:]) else None
    return 1.0
