"""The server protocol in front of a small application: what it takes for a request is what others take for one, and
whatever comes ends in order."""

from __future__ import annotations

import re
from typing import Any

from gateway.reasons import REASONS
from tests.fuzz import opinions
from tests.fuzz.loop import Finding, Loop
from tests.fuzz.opinions import Refused, Request, Response
from tests.fuzz.site import Site

_REASON = re.compile(rb'gateway; error=([a-z_]+)(?:; details="([a-z0-9_]+)")?')
_REFUSALS = frozenset(status for reason in REASONS.values() for status in reason.statuses)


class Application:
    """Reads a request's body and answers. The path says how: /early before the body is read, /parts in many parts,
    /large more than a client takes at once, /bare without a body."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        head = scope["headers"]
        self.seen.append(Request(head.method, head.target, b"", False))
        index = len(self.seen) - 1
        path = scope["path"]
        if path.startswith("/early"):
            await _answer(send, b"early")
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                self.seen[index] = Request(head.method, head.target, body, False)
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen[index] = Request(head.method, head.target, body, True)
        if path.startswith("/parts"):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-parts", b"3")]})
            for part in (b"one", b"", b"two" * 9000, b"three"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})
        elif path.startswith("/large"):
            await _answer(send, b"large" * 40_000)
        elif path.startswith("/bare"):
            await _answer(send, b"", 204)
        else:
            await _answer(send, body)


async def _answer(send: Any, body: bytes, status: int = 200) -> None:
    fields = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def run(loop: Loop, data: bytes) -> tuple[list[Request], list[Response]]:
    """Play an input and judge what came of it: what the application saw, what the client heard. Raises Finding."""
    application = Application()
    site = Site(loop, application)
    site.play(data)
    theirs = opinions.requests(bytes(site.sent))
    prefix(application.seen, theirs)
    heard = _answers(bytes(site.heard), application.seen)
    final = [response for response in heard if response.status >= 200]
    refused = [response for response in final if response.status in _REFUSALS]
    for response in refused:
        well_formed(response)
    if len(final) - len(refused) > len(application.seen):
        raise Finding(f"{len(final)} answers for {len(application.seen)} requests")
    if len(refused) > 1:
        raise Finding("refused twice")
    return application.seen, heard


def prefix(mine: list[Request], theirs: list[Request]) -> None:
    """Raises Finding unless all that we saw is what others see, and no more."""
    if len(mine) > len(theirs):
        raise Finding(f"nobody else reads this as a request: {mine[len(theirs)]}; {theirs}")
    for one, other in zip(mine, theirs, strict=False):
        same = one.method == other.method and _same_target(one.target, other.target)
        if one.complete:
            same = same and other.complete and one.body == other.body
        if not same or not other.body.startswith(one.body):
            raise Finding(f"a request is read in two ways: {one}, {other}")


def _same_target(ours: bytes, theirs: bytes) -> bool:
    """Ours is in origin-form already, theirs as it came."""
    return ours == theirs or theirs.endswith(ours) or ours in (b"/", b"*") or ours[1:2] == b"?"


def _answers(heard: bytes, seen: list[Request]) -> list[Response]:
    methods = [request.method for request in seen]
    try:
        found, rest = opinions.responses(heard, [*methods, b"GET"], ended=True)
    except Refused as refused:
        raise Finding(f"not an answer: {refused}") from None
    if rest and not any(response.status == 101 for response in found):
        raise Finding(f"more than answers was said: {rest!r}")
    return found


def well_formed(response: Response) -> None:
    """Raises Finding unless a refusal says what it must."""
    said = _REASON.fullmatch(response[b"proxy-status"])
    reason = REASONS.get((said[2] or said[1]).decode()) if said is not None else None
    if reason is None or response.status not in reason.statuses:
        raise Finding(f"a refusal without a reason of the table: {response}")
    if not response[b"date"] or not response[b"content-type"]:
        raise Finding(f"a refusal without a date or the type of its body: {response}")
