"""A forward proxy: a client's bytes on one side, what the hosts that it names get to read on the other.

Whatever the client says, a strict reader at a host must find requests that others find in what the client said for that
host, each once and no others; a tunnel carries what came behind its CONNECT and nothing else; and nothing behind a
CONNECT, opened or refused, is a request. The second half of an input is what the first host says.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.errors import NameUnknown
from gateway.listeners.outward import Held
from gateway.listeners.resolver import Resolver
from tests.fuzz import opinions
from tests.fuzz.acts import acts, sides
from tests.fuzz.loop import Finding, Line, Loop
from tests.fuzz.opinions import Refused, Request, Response
from tests.fuzz.proxy import each_once
from tests.fuzz.site import FORWARD, Site

_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_HOST = re.compile(rb"\r\nhost: ([^\r]*)\r\n")
_OURS = re.compile(rb"\r\nproxy-(?:authorization|connection):", re.IGNORECASE)
_TARGET = re.compile(rb"http://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)


class _Names:
    """Two are known."""

    async def addresses(self, name: str) -> tuple[list[str], float]:
        if name in ("a", "b"):
            return ["192.0.2.3"], 5.0
        raise NameUnknown(name, "is not known")


class Hosts:
    """All that can be reached: what they have read as requests, and what has come through tunnels."""

    def __init__(self, loop: Loop, first: bytes) -> None:
        self.requests: list[Request] = []
        self.tunnels: list[bytearray] = []
        self.switched = False  # whether one has agreed to speak something else
        self._loop = loop
        self._first: bytes | None = first or None

    def __call__(self, line: Line) -> Any:
        if isinstance(line.get_protocol(), Held):
            heard = bytearray()
            self.tunnels.append(heard)
            self._loop.call_soon(self._says, line)
            return heard.extend
        reader = opinions.Reader()

        def hear(data: bytes) -> None:
            if self.switched:
                return
            try:
                for request, whole in reader.feed(data):
                    self._read(request, whole)
                    self._loop.call_soon(self._says, line)
            except Refused as refused:
                raise Finding(f"sent to a host: {data!r}: {refused}") from None

        return hear

    def _read(self, request: Request, whole: bytes) -> None:
        head = whole.partition(b"\r\n\r\n")[0] + b"\r\n"
        host = _HOST.search(head)
        if host is None or _OURS.search(head):
            raise Finding(f"sent to a host: {head!r}")
        self.requests.append(Request(request.method, b"http://%b%b" % (host[1], request.target), request.body, True))

    def _says(self, line: Line) -> None:
        first, self._first = self._first, None
        if first is None:
            line.send(_OK)
            return
        self.switched = b" 101" in first
        for act in acts(first):
            line.does(act)


def run(loop: Loop, data: bytes) -> tuple[list[Request], list[Response]]:
    """Play an input and judge what came of it: what hosts have read, what the client heard. Raises Finding."""
    client, answer = sides(data)
    hosts = Hosts(loop, answer)
    loop.origin = hosts
    site = Site(loop, config=FORWARD)
    proxy = site.entry.app._app
    proxy.egress._resolver = Resolver(_Names())
    try:
        site.play(client)
    finally:
        proxy.onward.close()
        loop.settle()
    theirs = _until_connect(opinions.requests(bytes(site.sent)))
    each_once(hosts.requests, theirs, _same)
    for carried in hosts.tunnels:
        if bytes(carried) not in bytes(site.sent):
            raise Finding(f"no client sent this through a tunnel: {carried!r}")
    if len(hosts.tunnels) > sum(request.method == b"CONNECT" for request in theirs):
        raise Finding("more tunnels than were asked for")
    return hosts.requests, _answers(bytes(site.heard), theirs)


def _until_connect(requests: list[Request]) -> list[Request]:
    """Those up to the first CONNECT: what follows it is no request, whatever it looks like."""
    for number, request in enumerate(requests):
        if request.method == b"CONNECT":
            return requests[: number + 1]
    return requests


def _same(one: Request, other: Request) -> bool:
    """one: as a host has read it. other: as the client has sent it."""
    match = _TARGET.fullmatch(other.target)
    if match is None or not other.complete:
        return False
    host, rest = match.groups()
    if not rest.startswith(b"/"):
        rest = b"*" if not rest and other.method == b"OPTIONS" else b"/" + rest
    target = b"http://%b%b" % (host.removesuffix(b":"), rest)
    return (one.method, one.target, one.body) == (other.method, target, other.body)


def _answers(heard: bytes, requests: list[Request]) -> list[Response]:
    methods = [request.method for request in requests]
    try:
        found, rest = opinions.responses(heard, [*methods, b"GET"], ended=True)
        final = sum(response.status >= 200 for response in found)
        if rest and found[-1].status >= 400:  # to us this was no request, and so not a HEAD
            found, rest = opinions.responses(heard, [*methods[: final - 1], b"GET"], ended=True)
            final = sum(response.status >= 200 for response in found)
    except Refused as refused:
        raise Finding(f"not an answer: {refused}") from None
    is_tunnel = bool(found) and (found[-1].status == 101 or (found[-1].status == 200 and b"CONNECT" in methods))
    if rest and not is_tunnel:
        raise Finding(f"more than answers was said: {rest!r}")
    if final > len(methods) + 1:
        raise Finding("more answers than requests")
    return found
