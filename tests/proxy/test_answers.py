"""What becomes of a failure behind the listener: an answer while there can be one, a visible cut afterwards."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import errors
from gateway.answer import answer
from gateway.errors import UpstreamError
from gateway.proxy.answers import Answers
from gateway.reasons import REASONS
from gateway.refusals import PLAIN, Page, Style

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, UpstreamError) and kind is not UpstreamError
]


class _Told:
    """What an exchange and an ASGI `send` get to hear."""

    def __init__(self, accept: bytes = b"", style: Style = PLAIN) -> None:
        self.listener = SimpleNamespace(style=style)
        self.head = SimpleNamespace(lines=b"GET /a HTTP/1.1\r\naccept: " + accept)
        self.target = b"/a"
        self.route: Any = None
        self.begun = self.complete = False
        self.reason = self.request_id = ""
        self.cuts: list[str] = []
        self.messages: list[dict[str, Any]] = []

    def cut(self, reason: str) -> None:
        self.cuts.append(reason)

    async def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    @property
    def fields(self) -> dict[bytes, bytes]:
        return dict(self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        body: bytes = self.messages[1]["body"]
        return body


def _run(work: Awaitable[None]) -> None:
    """Drive what waits for nobody."""
    with pytest.raises(StopIteration):
        next(iter(work.__await__()))


def failed(error: BaseException, told: _Told) -> _Told:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    _run(Answers(app)({"gateway": told}, None, told.send))
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_becomes_an_answer(kind: type[UpstreamError], caplog: pytest.LogCaptureFixture) -> None:
    told = failed(kind("10.0.0.1:80", "secret detail"), _Told())
    start, body = told.messages
    assert start["status"] == REASONS[kind.reason].status
    assert told.fields[b"proxy-status"].startswith(b"gateway; error=")
    assert told.fields[b"content-length"] == b"%d" % len(body["body"])
    assert (b"retry-after" in told.fields) == (start["status"] == 503)
    assert told.reason == kind.reason
    assert b"10.0.0.1" not in body["body"] and b"secret" not in body["body"]  # not for the public
    assert not told.cuts and not caplog.records


def test_after_the_answer_began_it_is_cut() -> None:
    told = _Told()
    told.begun = True
    failed(errors.ConnectionCut("a", "b"), told)
    assert told.messages == [] and told.cuts == ["connection_terminated"]


@pytest.mark.parametrize("route", [None, SimpleNamespace(name="shop", style=None)])
def test_whatever_else_fails_is_our_fault_and_said_aloud(route: Any, caplog: pytest.LogCaptureFixture) -> None:
    told = _Told()
    told.route = route
    failed(ValueError("secret detail"), told)
    assert told.messages[0]["status"] == 500
    assert told.reason == "proxy_internal_error"
    assert b"secret" not in told.body
    [record] = caplog.records
    assert record.levelno == logging.ERROR and record.exc_info is not None
    assert record.getMessage() == f"route {route.name if route else '-'}: its application failed on b'/a'"


def test_a_failure_after_the_beginning_cuts_and_one_after_the_end_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = _Told()
    told.begun = True
    failed(ValueError(), told)
    assert told.messages == [] and told.cuts == ["proxy_internal_error"]
    told.complete = True
    failed(ValueError(), told)
    assert told.messages == [] and len(told.cuts) == 1
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()])
def test_a_cancellation_is_not_answered(error: BaseException) -> None:
    told = _Told()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        next(iter(Answers(app)({"gateway": told}, None, told.send).__await__()))
    assert told.messages == [] and not told.cuts


def test_a_reason_of_ours_and_fields_besides() -> None:
    told = _Told()
    _run(answer(told, told.send, "method_not_allowed", [(b"allow", b"GET")]))
    assert told.messages[0]["status"] == 405
    assert told.fields[b"proxy-status"] == b'gateway; error=http_request_denied; details="method_not_allowed"'
    assert told.fields[b"allow"] == b"GET"
    assert told.body.startswith(b"405 Method Not Allowed: method_not_allowed\n")
    assert told.reason == "method_not_allowed"


def test_a_refusal_has_an_id_that_a_person_can_quote() -> None:
    told = _Told(b"application/json")
    _run(answer(told, told.send, "no_route"))
    assert re.fullmatch("[0-9a-f]{16}", told.request_id)
    assert json.loads(told.body)["request_id"] == told.request_id
    other = _Told()
    _run(answer(other, other.send, "no_route"))
    assert other.request_id != told.request_id
    given = _Told()
    given.request_id = "already-there"
    _run(answer(given, given.send, "no_route"))
    assert given.request_id == "already-there" and b"already-there" in given.body


def test_the_client_gets_the_form_it_accepts() -> None:
    for accept, kind in (
        (b"text/html", b"text/html"),
        (b"*/*", b"text/plain"),
        (b"application/json", b"application/p"),
    ):
        told = _Told(accept)
        _run(answer(told, told.send, "no_route"))
        assert told.fields[b"content-type"].startswith(kind)


def test_the_route_s_page_goes_before_the_listener_s() -> None:
    def style(name: str) -> Style:
        return Style({"5xx": Page("text/plain", name)}, reason_header=True)

    told = _Told(style=style("listener"))
    assert failed(errors.NoEndpoint("", "x"), told).body == b"listener"
    assert told.fields[b"x-gateway-reason"] == b"destination_unavailable"
    for route_style, expected in ((style("route"), b"route"), (None, b"listener")):
        told = _Told(style=style("listener"))
        told.route = SimpleNamespace(name="r", style=route_style)
        assert failed(errors.NoEndpoint("", "x"), told).body == expected
