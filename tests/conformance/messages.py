"""HTTP/1.1 messages as a strict reader finds them in a stream of bytes. Shares nothing with the gateway's own grammar:
a mistake there must not be one here too.

What can't be read in exactly one way is a `problem`, and nothing after it is read.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

Pair = tuple[bytes, bytes]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[^\r\n\0]*")  # other control characters may be kept (RFC 9110, section 5.5)
_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e\x80-\xff]+) HTTP/1\.[01]")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LONGEST_HEAD = 1 << 20


class Malformed(Exception):
    """Bytes that are no HTTP/1.1 message, or that are more than one."""


@dataclass(slots=True, eq=False)
class Message:
    """framing: "none", "length", "chunked", or "close" for all that comes until the connection ends."""

    head: bytes
    start: bytes
    fields: tuple[Pair, ...]
    framing: str = "none"
    body: bytearray = field(default_factory=bytearray)
    trailers: tuple[Pair, ...] = ()
    complete: bool = False

    def all(self, name: str) -> list[bytes]:
        """The values of a field, line by line."""
        wanted = name.lower().encode("latin-1")
        return [value for key, value in self.fields if key.lower() == wanted]

    def members(self, name: str) -> list[bytes]:
        """The members of a list field, in lower case."""
        return [part.strip(b" \t").lower() for value in self.all(name) for part in value.split(b",") if part.strip()]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    def __str__(self) -> str:
        body = bytes(self.body)
        told = f"{body[:80]!r}{'' if len(body) <= 80 else f'... {len(body)} bytes'}"
        return f"{self.head.decode('latin-1')!r} + {self.framing} {told}{'' if self.complete else ' (cut)'}"


class Reader(ABC):
    """Cuts a stream into messages. `feed`, then `end` when the stream is over."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.problem = ""
        self.held = False  # nothing is read until `release`
        self.raw: bytearray | None = None  # of what comes after a switch of protocols
        self._data = bytearray()
        self._left = 0
        self._step: Callable[[], bool] = self._head

    @property
    def rest(self) -> bytes:
        """What came behind the last message and isn't one yet."""
        return bytes(self._data)

    def feed(self, data: bytes) -> None:
        if self.raw is not None:
            self.raw += data
            return
        self._data += data
        self._go_on()

    def _go_on(self) -> None:
        try:
            while not self.problem and not self.held and self.raw is None and self._data and self._step():
                pass
        except Malformed as why:
            self.problem = f"{why}: {bytes(self._data[:120])!r}"

    def release(self, raw: bool) -> None:
        """Read on after a hold; raw: what comes is another protocol."""
        self.held = False
        if raw:
            self.raw = self._data
            self._data = bytearray()
        else:
            self._go_on()

    def end(self, clean: bool) -> None:
        """The stream is over; clean: in good order."""
        last = self.messages[-1] if self.messages else None
        if last is not None and last.framing == "close" and clean and not self.problem:
            last.complete = True

    # Steps: each takes something off the data and says whether it could.

    def _head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if len(self._data) > _LONGEST_HEAD:
                raise Malformed("an endless head")
            return False
        head = bytes(self._data[: end + 4])
        start, *lines = head[:-4].split(b"\r\n")
        message = Message(head, start, tuple(map(_field, lines)))
        self._judge(message)
        del self._data[: end + 4]
        self.messages.append(message)
        if message.framing == "none" or (message.framing == "length" and not self._left):
            self._over(message)
        else:
            self._step = {"length": self._counted, "chunked": self._size, "close": self._all}[message.framing]
        return True

    @abstractmethod
    def _judge(self, message: Message) -> None:
        """Set the framing. Raises Malformed."""

    def _framing(self, message: Message) -> str:
        lengths, codings = message.all("content-length"), message.members("transfer-encoding")
        if lengths and codings:
            raise Malformed("both Content-Length and Transfer-Encoding")
        if codings:
            if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or len(message.all("transfer-encoding")) > 1:
                raise Malformed("a Transfer-Encoding that is not chunked at its end, once")
            return "chunked"
        if not lengths:
            return "none"
        if len(lengths) > 1 or not re.fullmatch(rb"[0-9]+", lengths[0]):
            raise Malformed("not one Content-Length")
        self._left = int(lengths[0])
        return "length"

    def _over(self, message: Message) -> None:
        message.complete = True
        self._step = self._head

    def _counted(self) -> bool:
        message = self.messages[-1]
        piece = self._data[: self._left]
        message.body += piece
        self._left -= len(piece)
        del self._data[: len(piece)]
        if not self._left:
            self._over(message)
        return True

    def _all(self) -> bool:
        self.messages[-1].body += self._data
        self._data.clear()
        return True

    def _size(self) -> bool:
        found = _SIZE.match(self._data)
        if found is None:
            if b"\n" in self._data or len(self._data) > 1024:
                raise Malformed("not a chunk size")
            return False
        self._left = int(found[1], 16)
        del self._data[: found.end()]
        self._step = self._chunk if self._left else self._trailers
        return True

    def _chunk(self) -> bool:
        piece = self._data[: self._left]
        self.messages[-1].body += piece
        self._left -= len(piece)
        del self._data[: len(piece)]
        if not self._left:
            self._step = self._chunk_end
        return True

    def _chunk_end(self) -> bool:
        if not b"\r\n".startswith(self._data[:2]):
            raise Malformed("no CRLF behind a chunk")
        if len(self._data) < 2:
            return False
        del self._data[:2]
        self._step = self._size
        return True

    def _trailers(self) -> bool:
        if self._data.startswith(b"\r\n"):
            del self._data[:2]
        else:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return False
            self.messages[-1].trailers = tuple(map(_field, bytes(self._data[:end]).split(b"\r\n")))
            del self._data[: end + 4]
        self._over(self.messages[-1])
        return True


class RequestReader(Reader):
    """What an origin is sent. After a request with an Upgrade it is held: what follows may be another protocol."""

    def _judge(self, message: Message) -> None:
        if not _REQUEST.fullmatch(message.start):
            raise Malformed("not a request line")
        if len(message.all("host")) != 1:
            raise Malformed("not one Host")
        message.framing = self._framing(message)

    def _over(self, message: Message) -> None:
        super()._over(message)
        self.held = b"upgrade" in message.members("connection") and bool(message.all("upgrade"))


class ResponseReader(Reader):
    """What a client is sent. methods: those of its requests, in order; GET where it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.methods: list[bytes] = []

    @property
    def finals(self) -> list[Message]:
        return [message for message in self.messages if message.status >= 200 or message.status == 101]

    @property
    def interims(self) -> list[Message]:
        return [message for message in self.messages if message.status < 200 and message.status != 101]

    def _judge(self, message: Message) -> None:
        found = _STATUS.fullmatch(message.start)
        if not found:
            raise Malformed("not a status line")
        status = int(found[1])
        method = self.methods[len(self.finals)] if len(self.finals) < len(self.methods) else b"GET"
        framing = self._framing(message)
        if status < 200 and framing != "none":
            raise Malformed("framing in a response that has no body")
        if status == 204 and framing != "none":
            raise Malformed("framing in a 204")
        if status < 200 or status in (204, 304) or method == b"HEAD":
            self._left = 0
        else:
            message.framing = framing if framing != "none" else "close"
            return
        message.framing = "none"

    def _over(self, message: Message) -> None:
        super()._over(message)
        if message.status == 101:
            self.release(raw=True)


def _field(line: bytes) -> Pair:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise Malformed(f"not a field: {line[:80]!r}")
    return name, value.strip(b" \t")
