"""The header fields that plug-ins see are the ones that go out, however they were changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.plugins import Headers, Request, Response
from gateway.wire import RequestHead, read_request, read_response

NAMES = ["x-a", "X-B", "accept", "cookie", "x-forwarded-for", "x-real-ip", "via", "date", "etag"]
FIELDS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["1", "2, 3", "", "ü"])), max_size=8)
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "add", "del"]), st.sampled_from(NAMES), st.sampled_from(["x", "y z", ""])),
    max_size=6,
)


def request_of(fields: list[tuple[str, str]], introduced: bytes | None) -> tuple[Request, RequestHead]:
    block = "".join(f"{name}: {value}\r\n" for name, value in fields)
    found = read_request(f"GET / HTTP/1.1\r\nhost: h\r\n{block}\r\n".encode("latin-1"))
    assert found is not None
    head = found[0]
    head.introduced = introduced
    exchange = SimpleNamespace(route=None)
    return Request({"gateway": exchange, "headers": head}), head


def play(headers: Headers, model: list[tuple[str, str]], edits: list[tuple[str, str, str]]) -> None:
    for kind, name, value in edits:
        key = name.lower()
        if kind == "add":
            headers.add(name, value)
        elif kind == "set":
            headers[name] = value
        else:
            del headers[name]
        if kind != "add":
            model[:] = [pair for pair in model if pair[0] != key]
        if kind != "del":
            model.append((key, value))


def agree(headers: Headers, model: list[tuple[str, str]]) -> None:
    for name in {name.lower() for name in NAMES}:
        wanted = [value for known, value in model if known == name]
        assert headers.all(name.upper()) == wanted, name
        first = headers.get(name)
        if name in ("via", "date") and first is not None:  # what matters to an intermediary is read as one list
            assert ", ".join(wanted).startswith(first)
        else:
            assert first == (wanted[0] if wanted else None), name
        assert (name in headers) == bool(wanted)
    assert sorted(headers.items()) == sorted(model) and len(headers) == len(model)
    assert set(headers) == {name for name, _ in model}


@given(fields=FIELDS, edits=EDITS, is_introduced=st.booleans())
def test_a_request_is_as_it_was_changed(
    fields: list[tuple[str, str]], edits: list[tuple[str, str, str]], is_introduced: bool
) -> None:
    fields = [(name, value.strip()) for name, value in fields if name not in ("x-forwarded-for", "x-real-ip")]
    request, head = request_of(fields, b"\r\nx-forwarded-for: 1.1.1.1" if is_introduced else b"")
    model = [("host", "h"), *((name.lower(), value) for name, value in fields)]
    if is_introduced:
        model.append(("x-forwarded-for", "1.1.1.1"))
    play(request.headers, model, edits)
    agree(request.headers, model)
    # The lines that go to the endpoint hold the same.
    lines = (head.lines + (head.introduced or b"")).decode("latin-1").split("\r\n")[1:]
    sent = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    ordinary = [pair for pair in model if pair[0] not in ("host", "via")]
    assert sorted(pair for pair in sent if pair[0] != "via") == sorted(ordinary)


@given(fields=FIELDS, edits=EDITS, is_list=st.booleans())
def test_a_response_is_as_it_was_changed(
    fields: list[tuple[str, str]], edits: list[tuple[str, str, str]], is_list: bool
) -> None:
    fields = [(name, value.strip()) for name, value in fields]
    block = "".join(f"{name}: {value}\r\n" for name, value in fields)
    found = read_response(f"HTTP/1.1 200 OK\r\n{block}\r\n".encode("latin-1"), False)
    assert found is not None
    source: Any = list(found[0]) if is_list else found[0]
    response = Response(200, source, request_of([], None)[0])
    model = [(name.lower(), value) for name, value in fields]
    play(response.headers, model, edits)
    agree(response.headers, model)


def test_what_is_refused() -> None:
    request, _ = request_of([("connection", "keep-alive"), ("content-length", "0")], b"")
    assert request.headers["content-length"] == "0" and "connection" not in request.headers
    for name in ("connection", "Content-Length", "transfer-encoding", "upgrade", "te", "host", "expect"):
        with pytest.raises(ValueError):
            request.headers[name] = "x"
        with pytest.raises(ValueError):
            request.headers.add(name, "x")
    for name in ("content-length", "connection", "host"):
        with pytest.raises(ValueError):
            del request.headers[name]
    for value in ("a\r\nb: c", "a\nb", "a\0", "\x7f", "€"):
        with pytest.raises(ValueError):
            request.headers["x-a"] = value
    for target in ("", "x", "http://h/", "*", "/a b", "/#", "/\r\n", "/€"):
        with pytest.raises(ValueError):
            request.target = target
    for host in ("", "a b", "a/b", "a\r\nb: c", "user@host", "x" * 300):
        with pytest.raises(ValueError):
            request.host = host
    with pytest.raises(RuntimeError):
        request.respond(200)
    response = Response(200, [], request)
    for status in (0, 99, 100, 101, 199, 600, 1000):
        with pytest.raises(ValueError):
            response.status = status
    with pytest.raises(KeyError):
        response.headers["x-none"]
