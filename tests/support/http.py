"""An HTTP/1.1 client that hides nothing: raw sockets, every answer read to its last byte and no further."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

_HEAD_END = b"\r\n\r\n"


class Cut(Exception):
    """The connection ended, or something that is no HTTP came, before the answer was whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """fields: by lower-case name; of a repeated field the last one."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.fields.get("connection", "").lower() == "close"


class AnswerReader:
    """Turns the bytes of one connection into answers. `expect` first, then `feed` until it returns one."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._method = "GET"
        self._head: tuple[int, dict[str, str]] | None = None
        self._body = bytearray()

    def expect(self, method: str) -> None:
        """A request of this method was sent."""
        self._method = method
        self._head = None
        self._body = bytearray()

    @property
    def begun(self) -> bool:
        """Whether anything of the answer has come."""
        return bool(self._data) or self._head is not None

    def feed(self, data: bytes) -> Answer | None:
        """The answer once it is whole. Raises Cut for what can't be one."""
        self._data += data
        while self._head is None:
            end = self._data.find(_HEAD_END)
            if end < 0:
                return None
            head = _head(bytes(self._data[:end]))
            del self._data[: end + 4]
            if head[0] >= 200:
                self._head = head
        status, fields = self._head
        if self._method == "HEAD" or status in (204, 304):
            return self._whole(b"")
        if fields.get("transfer-encoding", "").lower() == "chunked":
            return self._whole(bytes(self._body)) if self._chunks() else None
        if "content-length" in fields:
            length = int(fields["content-length"])
            if len(self._data) < length:
                return None
            body = bytes(self._data[:length])
            del self._data[:length]
            return self._whole(body)
        return None

    def end(self) -> Answer:
        """The connection has ended: the answer it delimits. Raises Cut when it delimits none."""
        if self._head is None:
            raise Cut("ended within the head" if self._data else "ended without an answer")
        fields = self._head[1]
        if "content-length" in fields or "transfer-encoding" in fields:
            raise Cut(f"ended within the body, {len(self._data) + len(self._body)} bytes of it had come")
        body = bytes(self._data)
        self._data.clear()
        return self._whole(body)

    def _whole(self, body: bytes) -> Answer:
        assert self._head is not None
        status, fields = self._head
        return Answer(status, fields, body)

    def _chunks(self) -> bool:
        """Move whole chunks from the data to the body; true after the last one. Trailers are not expected."""
        while True:
            line = self._data.find(b"\r\n")
            if line < 0:
                return False
            try:
                size = int(bytes(self._data[:line]), 16)
            except ValueError:
                raise Cut("not a chunk") from None
            if len(self._data) < line + 2 + size + 2:
                return False
            self._body += self._data[line + 2 : line + 2 + size]
            del self._data[: line + 2 + size + 2]
            if size == 0:
                return True


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/1.1 "):
        raise Cut(f"not HTTP/1.1: {first[:40]!r}")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    return int(first[9:12]), fields


def request(method: str, path: str, body: bytes = b"", fields: Mapping[str, str] | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: example.com", *(f"{k}: {v}" for k, v in (fields or {}).items())]
    if body or method == "POST":
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + _HEAD_END + body


def connect(address: str, timeout: float = 15.0, source: str = "") -> socket.socket:
    """address: "127.0.0.1:80", "[::1]:80" or "unix:/path"; source: an address of our own. Raises OSError."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        try:
            sock.connect(address.removeprefix("unix:"))
        except OSError:
            sock.close()
            raise
        return sock
    return socket.create_connection(split(address), timeout, (source, 0) if source else None)


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class Client:
    """One blocking connection."""

    def __init__(self, address: str, timeout: float = 15.0, source: str = "") -> None:
        self.sock = connect(address, timeout, source)
        self._reader = AnswerReader()

    def send(self, method: str, path: str, body: bytes = b"", fields: Mapping[str, str] | None = None) -> None:
        self._reader.expect(method)
        self.sock.sendall(request(method, path, body, fields))

    def expect(self, method: str) -> None:
        """A request is to be sent by `sock.sendall`."""
        self._reader.expect(method)

    def start(self, path: str, fields: Mapping[str, str]) -> None:
        """The head of a PUT; the body, which `fields` frame, is for `sock.sendall`."""
        self._reader.expect("PUT")
        self.sock.sendall(request("PUT", path, fields=fields))

    def send_most(self, path: str, body: bytes) -> bytes:
        """A POST but for its last byte, which is returned: until `sock.sendall` has it the request is under way."""
        self._reader.expect("POST")
        data = request("POST", path, body)
        self.sock.sendall(data[:-1])
        return data[-1:]

    def answer(self) -> Answer:
        """Raises Cut when the connection ends first, TimeoutError when nothing comes."""
        while True:
            data = self.sock.recv(65536)
            if not data:
                return self._reader.end()
            answer = self._reader.feed(data)
            if answer is not None:
                return answer

    def get(self, path: str = "/hello") -> Answer:
        self.send("GET", path)
        return self.answer()

    def post(self, path: str, body: bytes) -> Answer:
        self.send("POST", path, body)
        return self.answer()

    def ended(self) -> bool:
        """Wait until the other side closes; false when it says something instead."""
        return self.sock.recv(1) == b""

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def get(address: str, path: str = "/hello", timeout: float = 15.0) -> Answer:
    """One request on a connection of its own."""
    with Client(address, timeout) as client:
        return client.get(path)
