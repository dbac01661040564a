from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.middleware.headers import Options
from tests.listeners.site import Site, get
from tests.upstream.peer import Message, Origin, live, noting, ok

ORIGIN = b"Server: secret\r\nX-Two: 1\r\nX-Two: 2\r\nLocation: http://a/x\r\n"


async def asked(fields: bytes = b"", **options: Any) -> tuple[Message, Message]:
    seen: list[Message] = []
    routes = [{"name": "app", "upstream": "app", "middleware": [{"kind": "headers", **options}]}]
    async with Origin(noting(seen, lambda _: ok(fields=ORIGIN))) as origin, Site(origin, routes=routes) as site:
        peer = await site.client(get(fields=fields))
        await peer.response()
        await peer.send(get(fields=fields))  # the same again: what is remembered must do the same
        answer = await peer.response()
        assert seen[0].fields == seen[1].fields
        return seen[1], answer


@live
async def test_fields_of_responses_are_removed_set_and_added() -> None:
    edits = {"remove": ["server"], "set": {"X-Two": "3", "x-frame-options": "DENY"}, "add": {"location": "/b"}}
    _, answer = await asked(response=edits)
    assert b"server" not in answer
    assert answer.all(b"x-two") == [b"3"] and answer[b"x-frame-options"] == b"DENY"
    assert answer.all(b"location") == [b"http://a/x", b"/b"]


@live
async def test_fields_of_requests_are_removed_set_and_added() -> None:
    edits = {"remove": ["accept"], "set": {"x-a": "1"}, "add": {"x-b": "2"}, "default": {"x-c": "3", "x-d": "4"}}
    request, _ = await asked(b"Accept: x\r\nX-A: 0\r\nX-A: 00\r\nX-B: 0\r\nX-C: 0\r\n", request=edits)
    assert b"accept" not in request and request[b"x-a"] == b"1"
    assert request.all(b"x-b") == [b"0", b"2"] and request[b"x-c"] == b"0" and request[b"x-d"] == b"4"


@live
async def test_values_are_made_of_the_request() -> None:
    edits = {"set": {"x-who": "{client_ip} on {host} {path} via {route}", "x-a": "was {header:x-a}"}}
    request, answer = await asked(b"X-A: 1\r\n", request=edits, response={"set": {"x-b": "{header:x-a}"}})
    assert request[b"x-who"] == b"127.0.0.1 on example.com / via app"
    assert request[b"x-a"] == b"was 1"
    assert answer[b"x-b"] == b"was 1"  # what the request has become


@live
async def test_matches_within_values_are_replaced_line_by_line() -> None:
    replace = [
        {"name": "location", "regex": "^http://([^/]+)", "to": r"https://\1"},
        {"name": "x-two", "regex": "2", "to": "two"},
        {"name": "x-none", "regex": "a", "to": "b"},
    ]
    _, answer = await asked(response={"replace": replace})
    assert answer[b"location"] == b"https://a/x" and answer.all(b"x-two") == [b"1", b"two"]


@live
async def test_what_tells_of_the_client_may_be_set_but_not_by_the_client() -> None:
    edits = {"set": {"x-real-ip": "{client_ip}"}, "remove": ["x-forwarded-for"]}
    request, _ = await asked(b"X-Real-IP: 1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n", request=edits)
    assert request[b"x-real-ip"] == b"127.0.0.1" and b"x-forwarded-for" not in request
    assert b"x-forwarded-proto" in request


@live
async def test_answers_of_the_gateway_are_edited_alike() -> None:
    routes = [{"name": "app", "path": "/a", "respond": {"headers": {"X-A": "1"}}}]
    layer = {"kind": "headers", "response": {"remove": ["x-a"], "set": {"x-b": "2"}, "default": {"x-c": "3"}}}
    async with Site(routes=routes, middleware=[layer]) as site:
        for target, status in ((b"/a", 200), (b"/b", 404), (b"/a", 200)):
            answer = await site.ask(get(target))
            assert answer.status == status and b"x-a" not in answer
            assert answer[b"x-b"] == b"2" and answer[b"x-c"] == b"3"


@pytest.mark.parametrize(
    "options, why",
    [
        ({"request": {"set": {"Host": "a"}}}, "written by the gateway"),
        ({"response": {"remove": ["date"]}}, "written by the gateway"),
        ({"request": {"set": {"Content-Length": "1"}}}, "belongs to the connection"),
        ({"response": {"add": {"Connection": "x"}}}, "belongs to the connection"),
        ({"request": {"set": {"a b": "1"}}}, "token|name"),
        ({"request": {"set": {"a": "{nobody}"}}}, "there is no"),
        ({"request": {"set": {"a": "b\r\nc"}}}, "can't stand in a field"),
        ({"response": {"replace": [{"name": "a", "regex": "(", "to": ""}]}}, "regular"),
        ({"response": {"replace": [{"name": "a", "regex": "a", "to": r"\1"}]}}, "to does not fit"),
    ],
)
def test_what_can_not_be_done_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Options.model_validate(options)
