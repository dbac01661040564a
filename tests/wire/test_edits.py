"""Heads that layers change on their way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import (
    RequestHead,
    ResponseHead,
    announced_trailers,
    cookie,
    edited,
    listed,
    parameter,
    passable_trailers,
    read_request,
    read_response,
    reframed,
    value_of,
)

REQUEST = (
    b"GET /x?a=1&b=%20c&a=2 HTTP/1.1\r\nHost: a\r\nX-User: eve\r\nAccept: */*\r\nTE: trailers\r\n"
    b"x-user: mallory\r\nCookie: a=1; b=2\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 3\r\nDate: now\r\nX-A: 1\r\nx-a: 2\r\nVia: 1.1 b\r\n\r\nabc"
)


def request(data: bytes = REQUEST) -> RequestHead:
    found = read_request(data)
    assert found is not None
    return found[0]


def response(data: bytes = RESPONSE) -> ResponseHead:
    found = read_response(data, False)
    assert found is not None
    return found[0]


def test_a_value_is_found_by_its_lower_case_name() -> None:
    head = request()
    assert head.value(b"x-user") == b"eve"
    assert head.value(b"accept") == b"*/*"
    assert head.value(b"host") == b"a"
    assert head.value(b"te") == b"trailers"
    assert head.value(b"user") is None and head.value(b"x-use") is None
    assert request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").value(b"accept") is None


def test_a_name_that_occurs_twice() -> None:
    head = request()
    assert head.repeats(b"x-user") and not head.repeats(b"accept") and not head.repeats(b"user")
    head.add(b"\r\nAccept: b")
    assert head.repeats(b"accept") and head.repeats(b"x-user") and not head.repeats(b"cookie")
    head.drop(frozenset((b"x-user",)))
    assert not head.repeats(b"x-user")


def test_what_was_dropped_does_not_come_back_behind_the_body() -> None:
    head = request(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-User, x-sum, x-a\r\n\r\n")
    trailers = [(b"x-user", b"root"), (b"x-sum", b"1"), (b"x-a", b"2")]
    assert passable_trailers(trailers, head) == trailers
    head.drop(frozenset((b"x-user",)))
    head.drop(frozenset((b"x-a", b"x-b")))
    assert passable_trailers(trailers, head) == [(b"x-sum", b"1")]
    assert announced_trailers(head) == b"x-sum"


def test_dropped_fields_are_gone_everywhere() -> None:
    head = request()
    head.drop(frozenset((b"x-user", b"te")))
    assert head.lines == b"GET /x?a=1&b=%20c&a=2 HTTP/1.1\r\nAccept: */*\r\nCookie: a=1; b=2"
    assert head.value(b"x-user") is None and b"te" not in head.special
    assert [name for name, _ in head] == [b"host", b"accept", b"cookie"]
    assert not head.fields.asking


def test_what_one_request_loses_the_next_one_of_the_connection_keeps() -> None:
    first = request()
    found = read_request(REQUEST, first.fields)
    assert found is not None
    second = found[0]
    assert second.fields is first.fields
    first.drop(frozenset((b"x-user",)))
    assert second.value(b"x-user") == b"eve" and b"eve" in second.lines
    third = read_request(REQUEST, second.fields)
    assert third is not None
    third[0].drop(frozenset((b"x-user",)))
    assert third[0].fields is first.fields  # and was not taken apart again


def test_added_fields_are_seen_by_whoever_comes_next() -> None:
    head = request()
    head.drop(frozenset((b"x-user",)))
    head.add(b"\r\nx-user: alice")
    assert head.value(b"x-user") == b"alice"
    assert (b"x-user", b"alice") in head.pairs()
    assert head.lines.endswith(b"\r\nx-user: alice")
    head.retarget(b"/y")
    assert head.lines.startswith(b"GET /y HTTP/1.1\r\n") and head.lines.endswith(b"\r\nx-user: alice")
    head.drop(frozenset((b"x-user",)))
    assert head.value(b"x-user") is None and b"alice" not in head.lines


def test_who_the_client_is_says_the_listener() -> None:
    head = request(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\r\n")
    head.introduced = b"\r\nx-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: http"
    assert head.value(b"x-forwarded-for") == b"10.0.0.1"
    assert head.value(b"x-real-ip") is None
    head.drop(frozenset((b"x-forwarded-for",)))
    head.add(b"\r\nx-real-ip: 10.0.0.1")
    assert head.introduced == b"\r\nx-forwarded-proto: http"
    assert head.value(b"x-forwarded-for") is None and head.value(b"x-real-ip") == b"10.0.0.1"


def test_a_body_whose_length_is_not_known_any_more() -> None:
    head = request(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    head.reframe()
    assert head.length == -1 and b"content-length" not in head.special
    answer = reframed(response())
    assert b"content-length" not in answer.special and b"content-length" not in dict(answer.pairs())
    assert reframed([(b"Content-Length", b"3"), (b"a", b"b")]) == [(b"a", b"b")]


def test_responses_of_both_kinds_are_edited_alike() -> None:
    head = response()
    pairs = response().pairs()
    drop = frozenset((b"x-a", b"server"))
    for headers in (head, pairs):
        assert value_of(headers, b"server") == b"s" and value_of(headers, b"x-b") is None
        changed = edited(headers, drop, b"\r\nx-b: 3")
        assert value_of(changed, b"x-b") == b"3" and value_of(changed, b"x-a") is None
        assert list(changed) == [(b"content-length", b"3"), (b"date", b"now"), (b"via", b"1.1 b"), (b"x-b", b"3")]
    assert head.lines == b"HTTP/1.1 200 OK\r\nx-b: 3"
    assert value_of(edited([(b"Server", b"s")], drop, b""), b"server") is None


def test_cookies_and_parameters() -> None:
    head = request()
    assert cookie(head, b"b") == b"2" and cookie(head, b"c") == b""
    assert parameter(head.target, b"a") == b"1" and parameter(head.target, b"b") == b" c"
    assert parameter(head.target, b"c") is None and parameter(b"/", b"a") is None


NAMES = st.sampled_from([b"accept", b"x-user", b"te", b"cookie", b"x-other", b"via"])


@given(st.lists(st.tuples(NAMES, st.sampled_from([b"", b"1", b"a b"]))), st.frozensets(NAMES), st.lists(NAMES))
def test_edits_say_the_same_as_a_list_of_pairs_would(
    fields: list[tuple[bytes, bytes]], drop: frozenset[bytes], add: list[bytes]
) -> None:
    head = request(b"GET / HTTP/1.1\r\nhost: a\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in fields) + b"\r\n")
    head.drop(drop)
    head.add(b"".join(b"\r\n%b: added" % name for name in add))
    kept = [(name, value) for name, value in fields if name not in drop]
    assert head.pairs() == [(b"host", b"a"), *kept, *((name, b"added") for name in add)]
    for name in (b"accept", b"x-user", b"cookie", b"x-other"):
        values = [value for known, value in head.pairs() if known == name]
        assert head.value(name) == (values[0] if values else None)


def test_a_length_that_is_not_known_any_more_is_told_nowhere() -> None:
    head = request(b"POST / HTTP/1.0\r\nContent-Length: 3\r\nX-A: 1\r\n\r\n")
    head.reframe()
    assert head.length == -1 and head.value(b"content-length") is None and head.pairs() == [(b"x-a", b"1")]
    head = request(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
    head.reframe()
    assert head.pairs() == [(b"host", b"a")]
    answer = response()
    answer.reframe()
    assert answer.value(b"content-length") is None


def test_fields_can_be_dropped_where_there_is_no_host() -> None:
    head = request(b"GET / HTTP/1.0\r\nTE: trailers\r\nX-A: 1\r\n\r\n")
    head.drop(frozenset((b"te",)))
    assert head.pairs() == [(b"x-a", b"1")]


def test_fields_that_are_repeated_are_one_list() -> None:
    head = response(b"HTTP/1.1 200 OK\r\nVary: A\r\nVia: 1.1 a\r\nVARY: b,c\r\nvia: 1.1 b\r\nX-Vary: d\r\n\r\n")
    pairs = [(b"Vary", b"A"), (b"Via", b"1.1 a"), (b"vary", b"b,c"), (b"via", b"1.1 b"), (b"x-vary", b"d")]
    for fields in (head, pairs):
        assert listed(fields, b"vary") == b"A, b,c" and listed(fields, b"via") == b"1.1 a, 1.1 b"
        assert listed(fields, b"x-vary") == b"d" and listed(fields, b"ary") is None
    head.add(b"\r\nvary: e")
    assert head.listed(b"vary") == b"A, b,c, e"
    head.drop(frozenset((b"vary",)))
    assert head.listed(b"vary") is None
    head.add(b"\r\nvary: f")
    assert head.listed(b"vary") == b"f"
