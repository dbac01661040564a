"""What a case is made of: expectations of messages, the steps of a play, and the case itself.

Most cases are one `Exchange`: the client sends, the origin answers by itself, and one of several outcomes must come
about. Where the order of things matters the steps are told one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.conformance.messages import Message, Pair
from tests.conformance.stage import AGAIN, Failed, Stage, plain
from tests.conformance.stage import Reply as Reply

Statuses = int | Container[int]
_DATE = re.compile(rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-3]\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4}"
                   rb" [0-2]\d:[0-5]\d:[0-6]\d GMT")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What a message's fields must be. has: fields by their whole value, repeated ones joined by ", " in their order.
    lines: values line by line. like: a value that an expression matches. order: names that come in this order, and
    nothing of theirs in between. member: one of a list. absent: fields, or as "name: member" members of a list field.
    trailers: as `has`; no_trailers: names that must not be among them. within, not_within: parts of the body."""

    has: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    like: Mapping[str, str] = field(default_factory=dict)
    member: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    trailers: Mapping[str, str] | None = None
    no_trailers: tuple[str, ...] = ()
    body: bytes | None = None
    within: tuple[bytes, ...] = ()
    not_within: tuple[bytes, ...] = ()
    framing: tuple[str, ...] = ()

    def wrong(self, message: Message) -> Iterator[str]:
        for name, value in self.has.items():
            if (got := _joined(message.fields, name)) != value.encode("latin-1"):
                yield f"{name} is {got!r}, not {value!r}"
        for name, values in self.lines.items():
            if (every := message.all(name)) != [value.encode("latin-1") for value in values]:
                yield f"{name} is {every}, not {values}"
        for name, expression in self.like.items():
            got = _joined(message.fields, name)
            if got is None or not re.fullmatch(expression, got.decode("latin-1")):
                yield f"{name} is {got!r}, which is not like {expression}"
        for name, member in self.member.items():
            if member.encode() not in message.members(name):
                yield f"{name} does not hold {member}"
        for name in self.absent:
            name, _, member = name.partition(": ")
            if member and member.encode() in message.members(name):
                yield f"{name} holds {member}"
            if not member and message.all(name):
                yield f"{name} is there: {message.all(name)}"
        if self.order:
            wanted = [name.lower().encode() for name in self.order]
            names = [name.lower() for name, _ in message.fields if name.lower() in wanted]
            if names != wanted:
                yield f"the order is {names}"
        if self.trailers is not None:
            for name, value in self.trailers.items():
                if (got := _joined(message.trailers, name)) != value.encode("latin-1"):
                    yield f"the trailer {name} is {got!r}, not {value!r}"
        for name in self.no_trailers:
            if _joined(message.trailers, name) is not None:
                yield f"there is a trailer {name}"
        if self.body is not None and message.body != self.body:
            yield f"the body is {bytes(message.body[:100])!r} ({len(message.body)} bytes)"
        for part in self.within:
            if part not in message.body:
                yield f"{part!r} is not in the body"
        for part in self.not_within:
            if part in message.body:
                yield f"{part!r} is in the body"
        if self.framing and message.framing not in self.framing:
            yield f"the framing is {message.framing}"


def _joined(pairs: tuple[Pair, ...], name: str) -> bytes | None:
    values = [value for key, value in pairs if key.lower() == name.lower().encode()]
    return b", ".join(values) if values else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Fields):
    """A final response at the client. cut: it must be visibly incomplete. reason: the gateway's own reason code, or
    several, with "|" between. interims: the 1xx that came before it; None for any. exact: every byte, "<date>" for the
    date. version: of HTTP."""

    status: Statuses = 200
    cut: bool = False
    reason: str = ""
    interims: tuple[int, ...] | None = None
    exact: bytes | None = None
    phrase: str | None = None
    version: bytes = b""

    def missed(self, message: Message, before: list[int]) -> str:
        """Why the message is not this answer, "" when it is. before: the statuses of its interims."""
        status = message.status
        if not (status == self.status if isinstance(self.status, int) else status in self.status):
            return f"the status is {status}, not {_told(self.status)}"
        if not message.start.startswith(self.version):
            return f"it says {message.start[:9]!r}"
        if self.cut == message.complete:
            return "it looks complete" if self.cut else "it is cut"
        if self.interims is not None and tuple(before) != self.interims:
            return f"the interim responses are {before}"
        if self.reason and not _gives(message, self.reason):
            return f"the reason is {message.all('proxy-status')}, not {self.reason}"
        if self.phrase is not None and message.start[13:] != self.phrase.encode("latin-1"):
            return f"the reason phrase is {message.start[13:]!r}"
        if self.exact is not None and (got := _DATE.sub(b"<date>", message.head) + message.body) != self.exact:
            return f"it is {got!r}"
        return "; ".join(self.wrong(message))


def _told(statuses: Statuses) -> object:
    return statuses if isinstance(statuses, int | range) else sorted(s for s in range(100, 1000) if s in statuses)


def _gives(message: Message, reason: str) -> bool:
    """Whether a Proxy-Status (RFC 9209) of the gateway gives this reason, as its details or as the error itself."""
    told = _joined(message.fields, "proxy-status")
    if told is None:
        return False
    name, *parameters = (part.strip() for part in told.decode("latin-1").split(";"))
    given = dict(part.partition("=")[::2] for part in parameters)
    return name == "gateway" and given.get("details", given.get("error", "")).strip('"') in reason.split("|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen(Fields):
    """A request at the origin. line: its request line, or several of which any will do. host: its Host."""

    line: bytes | tuple[bytes, ...] = ()
    host: str | None = None

    def missed(self, message: Message) -> str:
        lines = (self.line,) if isinstance(self.line, bytes) else self.line
        if lines and message.start not in lines:
            return f"the request line is {message.start!r}"
        if self.host is not None and message.all("host")[0].lower() != self.host.lower().encode("latin-1"):
            return f"Host is {message.all('host')[0]!r}"
        return "; ".join(self.wrong(message))


# Steps of a play.


class Step(Protocol):
    async def play(self, stage: Stage) -> None:
        """Raises Failed."""


_YET = "not yet"  # what an outcome misses may still come


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What may come of an exchange. answers: the final responses, in order. ends: whether the proxy must end the
    client's connection. goes_on: the connection must carry another request. requests: those that reach the origin
    whole; a number where their content does not matter. reused: False when no later request may use the same
    connection to the origin. without: no request line at the origin holds this."""

    answers: tuple[Answer, ...] = ()
    ends: bool = False
    goes_on: bool = False
    requests: tuple[Seen, ...] | int | None = None
    reused: bool = True
    without: bytes = b""

    def missed(self, stage: Stage) -> str:
        finals = stage.answers.finals
        if len(finals) > len(self.answers):
            return f"{len(finals)} answers came, not {len(self.answers)}"
        waiting = ""
        if len(finals) < len(self.answers):
            waiting = f"{_YET}: {len(finals)} answers came, not {len(self.answers)}"
        elif finals and not finals[-1].complete and not stage.client.over:
            waiting = f"{_YET}: the last answer is not whole"
        elif self.ends and not stage.client.over:
            waiting = f"{_YET}: the connection does not end"
        for number, message in enumerate(finals):
            if not (message.complete or stage.client.over):
                continue
            if why := self.answers[number].missed(message, _interims_before(stage, number)):
                return f"answer {number + 1}: {why}"
        if waiting:
            return waiting
        if finals and stage.answers.rest and stage.answers.raw is None:
            return f"behind the answers came {stage.answers.rest[:100]!r}"
        if self.goes_on and stage.client.over and stage.strict:
            return "the connection ended"
        return self._missed_at_origin(stage)

    def _missed_at_origin(self, stage: Stage) -> str:
        whole = [message for _, message in stage.requests if message.complete]
        if self.requests is not None:
            wanted = self.requests if isinstance(self.requests, int) else len(self.requests)
            if len(whole) != wanted:
                yet = f"{_YET}: " if len(whole) < wanted else ""
                return f"{yet}{len(whole)} requests reached the origin, not {wanted}: {[m.start for m in whole]}"
        if self.without:
            for _, message in stage.requests:
                if self.without in message.start:
                    return f"{message.start!r} reached the origin"
        if isinstance(self.requests, tuple):
            for number, (seen, message) in enumerate(zip(self.requests, whole, strict=True)):
                if why := seen.missed(message):
                    return f"request {number + 1}: {why}"
        return ""


def _interims_before(stage: Stage, number: int) -> list[int]:
    """The statuses of the interim responses just before a final one."""
    found: list[int] = []
    finals = 0
    for message in stage.answers.messages:
        if message.status >= 200 or message.status == 101:
            finals += 1
        elif finals == number:
            found.append(message.status)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The client sends all it has; the origin answers each request with the next of the replies, and then with a plain
    200. then: what the client does after sending ("keep", "half", "end", "reset"). methods: of the client's requests,
    where an answer's framing depends on it."""

    send: bytes
    outcomes: tuple[Outcome, ...]
    replies: tuple[Reply, ...] = ()
    then: str = "keep"
    methods: tuple[bytes, ...] = ()
    listener: str = "web"

    async def play(self, stage: Stage) -> None:
        stage.automatic = True
        stage.replies.extend(self.replies)
        client = await stage.connect(self.listener)
        stage.answers.methods = list(self.methods or (self.send.lstrip().partition(b" ")[0],))
        await stage.send(self.send)
        client.finish(self.then)
        await stage.until(lambda: client.over or self._is_decided(stage), lambda: self._why(stage))
        probe = await stage.probe()
        came = [outcome for outcome in self.outcomes if not outcome.missed(stage)]
        if not came:
            raise Failed(self._why(stage))
        outcome = came[0]
        if not outcome.reused and (stage.used(probe) or stage.used(await stage.probe())) and stage.strict:
            raise Failed("the connection to the origin was used again")
        if outcome.goes_on:
            await Again().play(stage)

    def _is_decided(self, stage: Stage) -> bool:
        """Whether an outcome has come about, or none can any more."""
        missed = self._missed(stage)
        return not all(missed) or not any(why.startswith(_YET) for why in missed)

    def _missed(self, stage: Stage) -> list[str]:
        return [outcome.missed(stage) for outcome in self.outcomes]

    def _why(self, stage: Stage) -> str:
        return " | ".join(self._missed(stage))


@dataclass(frozen=True, slots=True)
class Again:
    """The client's connection carries another request."""

    async def play(self, stage: Stage) -> None:
        client, reader = stage.client, stage.answers
        if client.over and not stage.strict:
            return
        known = len(reader.finals)
        reader.methods = [*reader.methods[:known], b"GET"]
        await stage.send(b"GET %b HTTP/1.1\r\nHost: example.com\r\n\r\n" % AGAIN)
        await stage.until(
            lambda: (len(reader.finals) > known and reader.finals[-1].complete) or client.over or reader.problem,
            "the answer to another request on the connection",
        )
        if client.over and len(reader.finals) == known and not stage.strict:
            return
        if len(reader.finals) != known + 1 or reader.finals[-1].body != AGAIN:
            raise Failed("another request on the connection was not answered well")


@dataclass(frozen=True, slots=True)
class Connect:
    """A client, with nothing sent yet. methods: of its requests."""

    methods: tuple[bytes, ...] = ()
    listener: str = "web"

    async def play(self, stage: Stage) -> None:
        await stage.connect(self.listener)
        stage.answers.methods = list(self.methods)


@dataclass(frozen=True, slots=True)
class Send:
    """The client says this."""

    data: bytes

    async def play(self, stage: Stage) -> None:
        if not stage.clients:
            await stage.connect()
            stage.answers.methods = [self.data.partition(b" ")[0]]
        await stage.send(self.data)


@dataclass(frozen=True, slots=True)
class Finish:
    """The client's side: "half", "end" or "reset"."""

    how: str

    async def play(self, stage: Stage) -> None:
        stage.client.finish(self.how)


@dataclass(frozen=True, slots=True)
class Got:
    """The origin gets this request, the next of the case. whole: with its body; else its head will do."""

    seen: Seen = field(default_factory=Seen)
    whole: bool = True

    async def play(self, stage: Stage) -> None:
        at = _cursor(stage, "got")

        def here() -> bool:
            return len(stage.requests) > at and (stage.requests[at][1].complete or not self.whole)

        def refused() -> bool:
            return bool(_final(stage)) or stage.client.over

        await stage.until(lambda: here() or refused(), "a request at the origin")
        if not here():
            await stage.probe()
        if not here():
            raise Failed("the client was answered, and the origin has not got the request")
        stage.current, message = stage.requests[at]
        if why := self.seen.missed(message):
            raise Failed(f"the request at the origin: {why}")
        _advance(stage, "got")


def _final(stage: Stage) -> list[Message]:
    """Final responses that no step has looked at yet."""
    return stage.answers.finals[_cursor(stage, "received") :]


def _cursor(stage: Stage, what: str) -> int:
    return stage.cursors.get((what, len(stage.clients) if what != "got" else 0), 0)


def _advance(stage: Stage, what: str, to: int | None = None) -> None:
    stage.cursors[what, len(stage.clients) if what != "got" else 0] = _cursor(stage, what) + 1 if to is None else to


@dataclass(frozen=True, slots=True)
class GotBody:
    """So much of the current request's body is at the origin, and not more. trailers come with its end."""

    body: bytes

    async def play(self, stage: Stage) -> None:
        message = stage.requests[_cursor(stage, "got") - 1][1]
        await stage.until(lambda: len(message.body) >= len(self.body) or stage.client.over, "a body at the origin")
        if message.body != self.body:
            raise Failed(f"the body at the origin is {bytes(message.body[:100])!r}")


@dataclass(frozen=True, slots=True)
class Incomplete:
    """The current request never becomes whole at the origin, and its connection there ends."""

    async def play(self, stage: Stage) -> None:
        line, message = stage.requests[_cursor(stage, "got") - 1]
        await stage.until(lambda: line.over, "the end of the connection to the origin")
        if message.complete:
            raise Failed("an incomplete request was made whole")


@dataclass(frozen=True, slots=True)
class Say:
    """The origin answers the current request so. then: as in `Reply`."""

    data: bytes
    then: str = "keep"

    async def play(self, stage: Stage) -> None:
        assert stage.current is not None
        await stage.say(stage.current, self.data)
        stage.current.finish(self.then)


@dataclass(frozen=True, slots=True)
class ReadAll:
    """The proxy has read all that the origin said."""

    async def play(self, stage: Stage) -> None:
        assert stage.current is not None
        await stage.read(stage.current)


@dataclass(frozen=True, slots=True)
class OriginFinish:
    """The origin's side: "half", "end" or "reset"."""

    how: str

    async def play(self, stage: Stage) -> None:
        assert stage.current is not None
        stage.current.finish(self.how)


@dataclass(frozen=True, slots=True)
class OriginEnds:
    """The proxy ends the connection to the origin."""

    async def play(self, stage: Stage) -> None:
        line = stage.current
        assert line is not None
        await stage.until(lambda: line.over, "the end of the connection to the origin")


@dataclass(frozen=True, slots=True)
class Receive:
    """The client gets this answer, the next one, whole (or visibly cut)."""

    answer: Answer = field(default_factory=Answer)

    async def play(self, stage: Stage) -> None:
        await stage.until(
            lambda: (_final(stage) and _final(stage)[0].complete) or stage.client.over or stage.answers.problem,
            "an answer",
        )
        if not _final(stage):
            raise Failed("the connection ended without an answer")
        number = _cursor(stage, "received")
        if why := self.answer.missed(_final(stage)[0], _interims_before(stage, number)):
            raise Failed(f"the answer: {why}")
        _advance(stage, "received")
        _advance(stage, "interims", len(stage.answers.interims))


@dataclass(frozen=True, slots=True)
class ReceiveHead:
    """The head of the next answer is at the client, whatever has come of its body."""

    status: int = 200

    async def play(self, stage: Stage) -> None:
        await stage.until(lambda: _final(stage) or stage.client.over, "the head of an answer")
        if not _final(stage) or _final(stage)[0].status != self.status:
            raise Failed("the answer is another")


@dataclass(frozen=True, slots=True)
class Flows:
    """So much of the next answer's body is at the client."""

    body: bytes

    async def play(self, stage: Stage) -> None:
        def body() -> bytes:
            return bytes(_final(stage)[0].body) if _final(stage) else b""

        await stage.until(lambda: len(body()) >= len(self.body) or stage.client.over, "a body's part")
        if body() != self.body:
            raise Failed(f"the body at the client is {body()[:100]!r}")


@dataclass(frozen=True, slots=True)
class Interim:
    """The client gets this interim response, before any final one."""

    status: int
    fields: Fields = field(default_factory=Fields)

    async def play(self, stage: Stage) -> None:
        at = _cursor(stage, "interims")
        await stage.until(
            lambda: len(stage.answers.interims) > at or _final(stage) or stage.client.over, f"a {self.status}"
        )
        if len(stage.answers.interims) <= at:
            raise Failed(f"no {self.status} came")
        message = stage.answers.interims[at]
        if message.status != self.status or (why := "; ".join(self.fields.wrong(message))):
            raise Failed(f"the interim response: {message.status}, {why if message.status == self.status else ''}")
        _advance(stage, "interims")


@dataclass(frozen=True, slots=True)
class Silence:
    """The client has got nothing since, and is connected."""

    async def play(self, stage: Stage) -> None:
        await stage.probe()
        await stage.probe()
        if _final(stage) or len(stage.answers.interims) > _cursor(stage, "interims") or stage.answers.rest:
            raise Failed("the client was told something too early")
        if stage.client.over:
            raise Failed("the client's connection ended")


@dataclass(frozen=True, slots=True)
class Unasked:
    """No further request has reached the origin."""

    async def play(self, stage: Stage) -> None:
        await stage.probe()
        await stage.probe()
        if len(stage.requests) != _cursor(stage, "got"):
            raise Failed(f"the origin got {[message.start for _, message in stage.requests[_cursor(stage, 'got') :]]}")


@dataclass(frozen=True, slots=True)
class Ends:
    """The client's connection ends. after: with this many answers at the most; None for any. reset: whether by one."""

    answers: int | None = None
    reset: bool | None = None

    async def play(self, stage: Stage) -> None:
        await stage.until(lambda: stage.client.over, "the end of the client's connection")
        if self.answers is not None and len(stage.answers.finals) != self.answers:
            raise Failed(f"{len(stage.answers.finals)} answers came")
        if self.reset is not None and stage.client.was_reset != self.reset:
            raise Failed("it ended in good order" if self.reset else "it was reset")


@dataclass(frozen=True, slots=True)
class Passes:
    """In a tunnel: the client has got all these bytes since the switch."""

    data: bytes

    async def play(self, stage: Stage) -> None:
        await _tunnelled(stage, lambda: stage.answers.raw, self.data, "client")


@dataclass(frozen=True, slots=True)
class PassesToOrigin:
    """In a tunnel: the origin has got all these bytes since the switch."""

    data: bytes

    async def play(self, stage: Stage) -> None:
        line = stage.current
        assert line is not None
        await _tunnelled(stage, lambda: line.reader.raw, self.data, "origin")


async def _tunnelled(stage: Stage, raw: Callable[[], bytearray | None], data: bytes, who: str) -> None:
    def wrong() -> bool:
        return not data.startswith(bytes(raw() or b""))

    await stage.until(lambda: bytes(raw() or b"") == data or wrong(), f"the tunnel's bytes at the {who}")
    if wrong():
        raise Failed(f"the {who} got {bytes(raw() or b'')[:200]!r}")


@dataclass(frozen=True, slots=True)
class NotReused:
    """No later request uses the connection on which the current one went."""

    async def play(self, stage: Stage) -> None:
        for _ in range(2):
            if await stage.probe() is stage.current:
                raise Failed("the connection to the origin was used again")


@dataclass(frozen=True, slots=True)
class Remember:
    """Later sends have the last member of this field of the current request in the place of @NAME@."""

    field: str
    name: str

    async def play(self, stage: Stage) -> None:
        message = stage.requests[_cursor(stage, "got") - 1][1]
        values = message.all(self.field)
        if not values:
            raise Failed(f"the request has no {self.field}")
        stage.remembered[b"@%b@" % self.name.encode()] = values[-1].rpartition(b",")[2].strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """ours: only this project promises it; slow: it waits for a deadline, so one delivery of it is enough."""

    name: str
    clause: str
    steps: tuple[Step, ...]
    ours: bool = False
    slow: bool = False
    group: str = ""

    def __repr__(self) -> str:
        return f"{self.group}/{self.name}"


async def play(case: Case, stage: Stage) -> None:
    """Raises Failed, with all that was heard."""
    try:
        for step in case.steps:
            await step.play(stage)
        for why in stage.invariants():
            raise Failed(why)
        await stage.probe()
    except Failed as why:
        told = (f"{case}: {why}", f"clause: {case.clause}", next(stage.invariants(), ""), stage.story())
        raise Failed("\n".join(filter(None, told))) from None


# The usual shapes.

OK = plain(b"ok")


def get(target: str | bytes = b"/", *fields: bytes, method: bytes = b"GET", version: bytes = b"HTTP/1.1") -> bytes:
    """A request head for example.com."""
    target = target.encode("latin-1") if isinstance(target, str) else target
    return b"%b %b %b\r\n" % (method, target, version) + lines(b"Host: example.com", *fields)


def lines(*fields: bytes) -> bytes:
    """Field lines and the empty one."""
    return b"".join(line + b"\r\n" for line in fields) + b"\r\n"


def post(body: bytes, *fields: bytes, target: bytes = b"/", method: bytes = b"POST") -> bytes:
    return get(target, b"Content-Length: %d" % len(body), *fields, method=method) + body


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


def post_chunked(data: bytes, *fields: bytes, target: bytes = b"/") -> bytes:
    """data: the body as it goes over the wire."""
    return get(target, b"Transfer-Encoding: chunked", *fields, method=b"POST") + data


def response(*fields: bytes, body: bytes = b"", status: bytes = b"200 OK", version: bytes = b"HTTP/1.1") -> bytes:
    return b"%b %b\r\n" % (version, status) + lines(*fields) + body


def forwarded(*requests: Seen, answers: int = 1, **more: Any) -> Outcome:
    """The requests reach the origin, each is answered 200, and the connection goes on."""
    told: dict[str, Any] = {"answers": (Answer(),) * answers, "requests": requests, "goes_on": True} | more
    return Outcome(**told)


def refused(*statuses: int, reason: str = "", requests: int | None = 0, without: bytes = b"") -> Outcome:
    """One answer with one of these statuses, and the end of the connection."""
    return Outcome(
        answers=(Answer(status=statuses or (400,), reason=reason),), ends=True, requests=requests, without=without
    )


def exchange(
    name: str, clause: str, send: bytes, *outcomes: Outcome, ours: bool = False, slow: bool = False, **more: Any
) -> Case:
    made = Exchange(send=send, outcomes=outcomes, **more)
    return Case(name=name, clause=clause, steps=(made,), ours=ours, slow=slow)


def scene(name: str, clause: str, *steps: Step, ours: bool = False, slow: bool = False) -> Case:
    return Case(name=name, clause=clause, steps=steps, ours=ours, slow=slow)
