"""What may be tried again, where, and what a client is told when it may not."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any

import pytest

from gateway import errors
from gateway.errors import UpstreamError
from gateway.proxy.answers import STATUS, Answers, answer
from gateway.proxy.retry import IDEMPOTENT, again, elsewhere

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, UpstreamError) and kind is not UpstreamError
]
SAFE = (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sent", [False, True])
def test_another_endpoint_is_asked_only_when_nothing_was_sent(kind: type[UpstreamError], sent: bool) -> None:
    expected = not sent and kind is not errors.QueueTimeout
    assert elsewhere(kind("a", "b", sent=sent)) is expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("method", [*SAFE, b"POST", b"PATCH", b"LOCK", b"get"])
@pytest.mark.parametrize("has_body", [False, True])
def test_the_same_is_asked_again_only_after_a_kept_connection_was_cut(
    kind: type[UpstreamError], reused: bool, method: bytes, has_body: bool
) -> None:
    error = kind("a", "b", sent=True, reused=reused)
    expected = kind is errors.ConnectionCut and reused and method in SAFE and not has_body
    assert again(error, method, has_body) is expected


def test_the_idempotent_methods_are_the_rfc_s() -> None:
    assert set(SAFE) == IDEMPOTENT


def test_every_error_has_an_answer() -> None:
    assert set(KINDS) == STATUS.keys()
    for kind, status in STATUS.items():
        if kind in (errors.NoEndpoint, errors.QueueTimeout):
            assert status == 503
        else:
            assert status == (504 if kind.__name__.endswith("Timeout") else 502)


class _Told:
    """What an exchange and an ASGI `send` get to hear."""

    def __init__(self) -> None:
        self.answered = False
        self.ended = "ok"
        self.cuts: list[str] = []
        self.messages: list[dict[str, Any]] = []

    def cut(self, reason: str) -> None:
        self.cuts.append(reason)

    async def send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)


def _run(work: Awaitable[None]) -> None:
    """Drive what waits for nobody."""
    with pytest.raises(StopIteration):
        next(iter(work.__await__()))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_becomes_an_answer(kind: type[UpstreamError]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise kind("10.0.0.1:80", "secret detail")

    told = _Told()
    _run(Answers(app)({"gateway": told}, None, told.send))
    start, body = told.messages
    fields = dict(start["headers"])
    assert start["status"] == STATUS[kind]
    assert fields[b"proxy-status"] == b"gateway; error=" + kind.reason.encode()
    assert fields[b"content-length"] == b"%d" % len(body["body"])
    assert (b"retry-after" in fields) == (STATUS[kind] == 503)
    assert told.ended == kind.reason
    assert b"10.0.0.1" not in body["body"] and b"secret" not in body["body"]  # not for the public


def test_after_the_answer_began_it_is_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise errors.ConnectionCut("a", "b")

    told = _Told()
    told.answered = True
    _run(Answers(app)({"gateway": told}, None, told.send))
    assert told.messages == [] and told.cuts == ["connection_terminated"]


def test_our_own_reason_goes_beside_the_rfc_s() -> None:
    told = _Told()
    _run(answer(told, told.send, 404, "destination_not_found", "no_route", [(b"x-a", b"b")]))
    start, body = told.messages
    fields = dict(start["headers"])
    assert fields[b"proxy-status"] == b"gateway; error=destination_not_found; details=no_route"
    assert fields[b"x-a"] == b"b"
    assert body["body"] == b"404 Not Found: no_route\n"
    assert told.ended == "no_route"
