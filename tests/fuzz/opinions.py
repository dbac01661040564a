"""How others read the same bytes: h11, and httptools where h11 reads nothing.

Where both are known to refuse what is allowed they are helped: httptools knows only the methods it has heard of, and
neither takes white space around a chunk extension or bytes beyond ASCII in a target.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h11
import httptools

from tests.fuzz.chunks import reference

_MOST = 1 << 20
_FORGIVEN = 4  # empty lines before a request


@dataclass(frozen=True, slots=True)
class Request:
    """complete: whether the body has come to its end."""

    method: bytes
    target: bytes
    body: bytes
    complete: bool


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    complete: bool
    fields: tuple[tuple[bytes, bytes], ...] = ()

    def __getitem__(self, name: bytes) -> bytes:
        return b", ".join(value for key, value in self.fields if key == name)


class Refused(Exception):
    """This is nothing that a parser reads."""


_START = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) (?=HTTP/1\.[0-9]\r\n)")
_BEYOND = bytes(range(0x80)) + b"x" * 0x80


def _helped(data: bytes) -> tuple[bytes, bytes, bytes]:
    """The method, the target, and the data with others in their place that everybody knows."""
    start = _START.match(data)
    if start is None:
        return b"", b"", data
    method, target = start.groups()
    known = method if method in (b"GET", b"HEAD", b"CONNECT") else b"POST"
    return method, target, b"%b %b " % (known, target.translate(_BEYOND)) + data[start.end() :]


def requests(data: bytes) -> list[Request]:
    """The requests in a stream, up to the first that neither of them reads. The last may be incomplete."""
    found: list[Request] = []
    while True:
        for _ in range(_FORGIVEN):
            data = data.removeprefix(b"\r\n")
        if not data:
            return found
        try:
            request, data = by_h11(data)
        except Refused:
            try:
                request, data = by_httptools(data)
            except Refused:
                return found
        if request is None:
            return found
        found.append(request)
        if not request.complete:
            return found


def by_h11(data: bytes) -> tuple[Request | None, bytes]:
    """The request at the start of data, and what follows it; None while its head is not whole."""
    method, target, data = _helped(data)
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST)
    parser.receive_data(data)
    head: Any = None
    body = b""
    try:
        while True:
            event: Any = parser.next_event()
            if event is h11.NEED_DATA:
                return (None if head is None else Request(method, target, body, False)), b""
            if type(event) is h11.Request:
                head = event
                method, target = method or head.method, target or head.target
            elif type(event) is h11.Data:
                body += bytes(event.data)
            elif type(event) is h11.EndOfMessage:
                return Request(method, target, body, True), parser.trailing_data[0]
    except h11.RemoteProtocolError as error:
        if head is None:
            raise Refused(str(error)) from None
        outcome, body, rest, _ = reference(data.partition(b"\r\n\r\n")[2])
        return Request(method, target, body, outcome == "whole"), rest


class Reader:
    """h11 on a connection whose requests come in parts, each head in one."""

    def __init__(self) -> None:
        self._begin(b"")

    def _begin(self, data: bytes) -> None:
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MOST)
        self._body: list[bytes] = []
        self._begun = False
        self._taken = b""
        if data:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            self._method, self._target, helped = _helped(data)
            self._parser.receive_data(helped)
        else:
            self._parser.receive_data(data)
        self._taken += data

    def feed(self, data: bytes) -> Iterator[tuple[Request, bytes]]:
        """The requests that are whole now, each with its bytes. Raises Refused."""
        self._receive(data)
        while True:
            try:
                event: Any = self._parser.next_event()
            except h11.RemoteProtocolError as error:
                raise Refused(str(error)) from None
            if type(event) is h11.Data:
                self._body.append(bytes(event.data))
            elif type(event) is h11.EndOfMessage:
                rest = self._parser.trailing_data[0]
                whole = self._taken[: len(self._taken) - len(rest)]
                request = Request(self._method, self._target, b"".join(self._body), True)
                self._begin(rest)
                yield request, whole
                if not rest:
                    return
            elif type(event) is not h11.Request:
                return


class _Listener:
    """What httptools tells."""

    def __init__(self) -> None:
        self.target = b""
        self.body = b""
        self.headed = self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_headers_complete(self) -> None:
        self.headed = True

    def on_message_complete(self) -> None:
        self.complete = True


def by_httptools(data: bytes) -> tuple[Request | None, bytes]:
    """As `by_h11`. What is no request line of HTTP/1.x is none here either: it is read as one of HTTP/0.9."""
    method, target, data = _helped(data)
    if not method and b"\r\n" in data:
        raise Refused("no request line")
    listener = _Listener()
    parser: Any = httptools.HttpRequestParser(listener)
    for index in range(len(data)):
        try:
            parser.feed_data(data[index : index + 1])
        except httptools.HttpParserUpgrade:
            pass  # the gateway's to accept; until then it is a request like another
        except httptools.HttpParserError as error:
            if not listener.headed:
                raise Refused(str(error)) from None
            break
        if listener.complete:
            break
    if not listener.headed:
        return None, b""
    method, target = method or parser.get_method(), target or listener.target
    rest = data[index + 1 :] if listener.complete else b""
    return Request(method, target, listener.body, listener.complete), rest


def responses(data: bytes, methods: list[bytes], ended: bool) -> tuple[list[Response], bytes]:
    """The responses to requests of these methods, interim ones too, and what follows them. ended: the connection has.

    Raises Refused for what is none.
    """
    found: list[Response] = []
    for method in methods:
        if not data:
            break
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST)
        upgrade = [("connection", "upgrade"), ("upgrade", "any")]  # so that a 101 is read as what it is
        parser.send(h11.Request(method=method, target="/", headers=[("host", "a"), *upgrade]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(data)
        if ended:
            parser.receive_data(b"")
        head: Any = None
        body = b""
        try:
            while True:
                event: Any = parser.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    if head is not None:
                        found.append(Response(head.status_code, body, False, tuple(head.headers)))
                    return found, parser.trailing_data[0] if event is h11.PAUSED else b""
                if type(event) is h11.InformationalResponse:
                    found.append(Response(event.status_code, b"", True, tuple(event.headers)))
                elif type(event) is h11.Response:
                    head = event
                elif type(event) is h11.Data:
                    body += bytes(event.data)
                elif type(event) is h11.EndOfMessage:
                    break
                elif type(event) is h11.ConnectionClosed:
                    return found, b""
        except h11.RemoteProtocolError as error:
            if ended and ("closed" in str(error) or "ConnectionClosed" in str(error)):
                if head is None:
                    return found, parser.trailing_data[0]
                found.append(Response(head.status_code, body, False, tuple(head.headers)))
                return found, b""
            raise Refused(f"{error}: {data[:200]!r}") from None
        found.append(Response(head.status_code, body, True, tuple(head.headers)))
        data = parser.trailing_data[0]
    return found, data
