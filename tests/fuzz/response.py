"""The upstream connection: whatever an endpoint says is a response or an UpstreamError, the same however it is cut, and
only a connection on which nothing is left over is used again.

An input begins with what was asked: H (HEAD), U (an upgrade), B (a body that is never sent to its end), else a GET.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from gateway.config.model import Config
from gateway.errors import UpstreamError
from gateway.metrics.plan import Plan
from gateway.worker.assembly import assemble
from tests.fuzz import opinions
from tests.fuzz.acts import END, LATE, SPLIT, Act, acts
from tests.fuzz.loop import Finding, Line, Loop, wheel
from tests.fuzz.opinions import Refused
from tests.fuzz.site import fresh_board, holds

_PATIENCE = 30
_MOST_HELD = 256 * 1024 + 140 * 1024
_MANY = 32
_BYTEWISE = 400  # up to this size an input is also cut into single bytes


@dataclass(slots=True)
class Outcome:
    interim: list[int] = field(default_factory=list)
    status: int = 0
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    tunnel: bytes | None = None  # what came behind a 101
    error: str = ""
    reusable: bool = False

    def like(self, other: Outcome) -> bool:
        """Whether a reader is told the same. What arrived before an error may be more or less, and many interim
        responses at once are refused where they are not one by one."""
        if max(len(self.interim), len(other.interim)) >= _MANY:
            return True
        if self.error or other.error:
            return self.error == other.error
        return self == other


async def _ask(connection: Any, kind: bytes, outcome: Outcome) -> None:
    more = {"upgrade": True} if kind == b"U" else {}
    try:
        connection.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", kind == b"H", kind == b"B", **more)
        while True:
            head = await connection.response()
            if head.status == 101 or head.status >= 200:
                break
            outcome.interim.append(head.status)
        outcome.status = head.status
        if head.status == 101:
            outcome.tunnel = b""
            return
        while True:
            outcome.body += connection.take()
            if connection.over:
                break
            await connection.arrival()
        outcome.trailers = list(connection.trailers)
    except UpstreamError as error:
        outcome.error = type(error).__name__


@lru_cache(maxsize=1)
def _config() -> Config:
    return Config.model_validate(
        {
            "listeners": [{"name": "web", "listen": "127.0.0.1:0"}],
            "upstreams": {"app": {"endpoints": ["192.0.2.3:80"], "timeouts": {"response": "3s", "idle": "3s"}}},
            "routes": [{"name": "app", "upstream": "app"}],
        }
    )


def once(loop: Loop, kind: bytes, played: list[Act]) -> Outcome:
    """One exchange in which the endpoint does this. Raises Finding."""
    lines: list[Line] = []

    def accept(line: Line) -> Callable[[bytes], None]:
        lines.append(line)
        return lambda data: None

    loop.origin = accept
    plan = Plan()
    plan.cover(_config())
    board = fresh_board()
    made = assemble(_config(), plan, board, board.seat(1), wheel(loop), lambda exchange: None)
    endpoint = made.upstreams["app"].endpoints[0]
    taking = loop.create_task(endpoint.pool.acquire())
    loop.settle()
    connection = taking.result()
    [line] = lines
    outcome = Outcome()
    task = loop.create_task(_ask(connection, kind, outcome))
    loop.settle()
    for act in played:
        line.does(act)
        if act.mark == LATE:
            loop.passes(1.0)
        loop.settle()
        if holds(connection) > _MOST_HELD:
            raise Finding(f"{holds(connection)} bytes are held for one endpoint")
    if kind != b"B":
        for _ in range(_PATIENCE):
            if task.done():
                break
            loop.passes(1.0)
        if not task.done():
            raise Finding(f"after {_PATIENCE} s without a byte the exchange is still waited for")
    else:
        task.cancel()
        loop.settle()
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
    _judge_reuse(connection, line, outcome, made.upstreams["app"], endpoint, loop)
    loop.quiet()
    return outcome


def _judge_reuse(connection: Any, line: Line, outcome: Outcome, upstream: Any, endpoint: Any, loop: Loop) -> None:
    if outcome.tunnel is not None:
        outcome.tunnel = bytes(connection.detach()[1]) + line.unread
        line.abort()
    else:
        outcome.reusable = connection.is_reusable()
        endpoint.pool.release(connection)
        upstream.close()
    loop.settle()
    loop.passes(1.0)
    if not line.lost:
        raise Finding("a connection nobody uses is open")


def run(loop: Loop, data: bytes) -> Outcome:
    """Play an input as it is cut, in one piece and in single bytes; compare, also with what h11 reads."""
    kind, said = (data[:1], data[1:]) if data[:1] in (b"H", b"U", b"B") and data[1:5] == b"HTTP" else (b"G", data)
    played = list(acts(said))
    outcome = once(loop, kind, played)
    if all(act.mark in (SPLIT, END) for act in played):
        sent = b"".join(act.data for act in played if act.mark == SPLIT)
        end = [act for act in played if act.mark == END][:1]
        if end:  # what is said after the end is not heard
            sent = b"".join(act.data for act in played[: played.index(end[0])])
        cuts = [[Act(SPLIT, sent)] if sent else []]
        if len(sent) <= _BYTEWISE:
            cuts.append([Act(SPLIT, sent[index : index + 1]) for index in range(len(sent))])
        for cut in cuts:
            other = once(loop, kind, [*cut, *end])
            if not outcome.like(other):
                raise Finding(f"it matters how it is cut: {outcome}, {other}")
        if kind in (b"G", b"H") and not outcome.error:
            _compare(outcome, sent, b"HEAD" if kind == b"H" else b"GET", bool(end))
    return outcome


def _compare(outcome: Outcome, sent: bytes, method: bytes, ended: bool) -> None:
    """Raises Finding when h11 reads it as another response, or would not use the connection again."""
    try:
        found, rest = opinions.responses(sent, [method], ended)
    except Refused:
        return  # it is more strict, or less so: what is refused harms nobody
    if not found or not found[-1].complete or found[-1].status < 200:
        raise Finding(f"a whole response that others don't think whole: {outcome}, {found}")
    final = found[-1]
    if (final.status, final.body) != (outcome.status, outcome.body):
        raise Finding(f"a response is read in two ways: {outcome}, {final}")
    if outcome.reusable and rest:
        raise Finding(f"a connection with {rest!r} left over is used again")
