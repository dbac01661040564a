"""The whole data path: a client's bytes on one side, what an origin gets to read on the other.

Whatever the client says and however it is cut, a strict reader behind the gateway must find the requests in it that
others find in what the client said, each once and no others. The second half of an input is what the origin answers to
its first request; after that it answers as it should.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fuzz import opinions
from tests.fuzz.acts import acts, sides
from tests.fuzz.loop import Finding, Line, Loop
from tests.fuzz.opinions import Refused, Request, Response
from tests.fuzz.site import Site

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Origin:
    """Reads what the gateway sends, on all its connections, and answers every request that is whole."""

    def __init__(self, loop: Loop, first: bytes) -> None:
        self.requests: list[Request] = []
        self.tunnels = False  # whether it has agreed to speak something else
        self._loop = loop
        self._first: bytes | None = first or None

    def __call__(self, line: Line) -> Any:
        reader = opinions.Reader()

        def hear(data: bytes) -> None:
            if self.tunnels:
                return
            for request in strictly(reader, data):
                self.requests.append(request)
                self._loop.call_soon(self._answer, line)

        return hear

    def _answer(self, line: Line) -> None:
        first, self._first = self._first, None
        if first is None:
            line.send(_OK)
            return
        self.tunnels = b" 101" in first
        for act in acts(first):
            line.does(act)  # whose time it is decides the client


def strictly(reader: opinions.Reader, data: bytes) -> list[Request]:
    """The requests that are whole now. Raises Finding when one of the others refuses one or they don't agree."""
    found = []
    try:
        for request, whole in reader.feed(data):
            other, rest = opinions.by_httptools(whole)
            if request != other or rest:
                raise Finding(f"sent to an origin and read in two ways: {whole!r}: {request}, {other}")
            found.append(request)
    except Refused as refused:
        raise Finding(f"sent to an origin: {data!r}: {refused}") from None
    return found


def run(loop: Loop, data: bytes) -> tuple[list[Request], list[Response]]:
    """Play an input and judge what came of it: what the origin read, what the client heard. Raises Finding."""
    client, answer = sides(data)
    origin = Origin(loop, answer)
    loop.origin = origin
    site = Site(loop)
    try:
        site.play(client)
    finally:
        for upstream in site.upstreams.values():
            upstream.close()
        loop.settle()
    theirs = opinions.requests(bytes(site.sent))
    each_once(origin.requests, theirs, _same)
    heard = _answers(bytes(site.heard), theirs)
    if sum(response.status >= 200 for response in heard) > len(theirs) + 1:
        raise Finding("more answers than requests")
    return origin.requests, heard


def each_once(got: list[Request], theirs: list[Request], same: Callable[[Request, Request], bool]) -> None:
    """Raises Finding unless the origin got the client's requests in their order; a repetition may only follow at
    once, for a retry. same: whether what the origin got is what the client sent."""
    place = -1
    for request in got:
        if place >= 0 and same(request, theirs[place]):
            if place + 1 < len(theirs) and same(request, theirs[place + 1]):
                place += 1
            continue
        place += 1
        while place < len(theirs) and not same(request, theirs[place]):
            place += 1
        if place >= len(theirs):
            raise Finding(f"no client sent this to the origin: {request}; others read {theirs}")


def _same(one: Request, other: Request) -> bool:
    return (
        other.complete
        and (one.method, one.body) == (other.method, other.body)
        and (other.target.endswith(one.target) or one.target in (b"/", b"*") or one.target[1:2] == b"?")
    )


def _answers(heard: bytes, requests: list[Request]) -> list[Response]:
    methods = [request.method for request in requests]
    try:
        found, rest = opinions.responses(heard, [*methods, b"GET"], ended=True)
        final = sum(response.status >= 200 for response in found)
        if rest and found[-1].status >= 400:  # to us this was no request, and so not a HEAD
            found, rest = opinions.responses(heard, [*methods[: final - 1], b"GET"], ended=True)
    except Refused as refused:
        raise Finding(f"not an answer: {refused}") from None
    if rest and not any(response.status == 101 for response in found):
        raise Finding(f"more than answers was said: {rest!r}")
    return found
