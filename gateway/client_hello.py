"""The first message of a TLS client, looked at and not answered: which name it asks for (SNI, RFC 6066, section 3) and
which protocols it would speak (ALPN, RFC 7301). Pure.

A ClientHello (RFC 8446, section 4.1.2) may come in several records (section 5.1) and in any pieces. What has come is
looked at once: the work is in proportion to the bytes, also when they come one at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.errors import GatewayError

# A ClientHello may be 16 MiB by its length field. With a post-quantum key share and a session ticket it has some 2 KiB;
# nginx takes 16 KiB.
LONGEST = 16 * 1024
# The heads of records come on top: one of five bytes for each byte of the message, if somebody wants it so.
_MOST_RAW = 2 * LONGEST
_RECORD_HEAD, _MESSAGE_HEAD = 5, 4
_LARGEST_RECORD = 1 << 14
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME = 0
_NAME = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")


class Hello(NamedTuple):
    """sni: the name, in lower case, "" when it says none; alpn: protocols as they are written there."""

    sni: str
    alpn: tuple[bytes, ...]


class NoHello(GatewayError):
    """What came is no ClientHello that can be read in one way; `str()` says why."""


class HelloReader:
    """Takes the bytes of one connection until they are a ClientHello."""

    __slots__ = ("_at", "_message", "_raw")

    def __init__(self) -> None:
        self._raw = bytearray()
        self._at = 0  # where the next record begins
        self._message = bytearray()  # what records have brought of it

    @property
    def has_begun(self) -> bool:
        """Whether anything came."""
        return bool(self._raw)

    @property
    def raw(self) -> bytes:
        """All that came, to be passed on."""
        return bytes(self._raw)

    def feed(self, data: bytes) -> Hello | None:
        """The hello, once it is whole. Raises NoHello as soon as it can't become one. Not to be called after either."""
        self._raw += data
        while (end := self._record_end()) and end <= len(self._raw):
            self._message += self._raw[self._at + _RECORD_HEAD : end]
            self._at = end
            if (end := _message_end(self._message)) and end <= len(self._message):
                return _read(bytes(self._message[_MESSAGE_HEAD:end]))
        if len(self._raw) > _MOST_RAW:
            raise NoHello("its records are too many")
        return None

    def _record_end(self) -> int:
        """Where the record under way ends, 0 when that is not known yet."""
        head = self._raw[self._at : self._at + _RECORD_HEAD]
        # The version of the record says next to nothing, but its first byte has been 3 since SSL 3.0.
        if (head and head[0] != _HANDSHAKE) or (len(head) > 1 and head[1] != 3):
            raise NoHello("this is no TLS handshake")
        if len(head) < _RECORD_HEAD:
            return 0
        length = head[3] << 8 | head[4]
        if not 0 < length <= _LARGEST_RECORD:
            raise NoHello("a record is empty or too large")
        return self._at + _RECORD_HEAD + length


def overhearing(subject: Any) -> Callable[[bytes], bool]:
    """What listens to the first bytes of a connection as they pass, and sets `subject.sni`, if it hears one. Returns
    whether it wants to hear more."""
    feed = HelloReader().feed

    def hear(data: bytes) -> bool:
        try:
            hello = feed(data)
        except NoHello:
            return False
        if hello is not None:
            subject.sni = hello.sni
        return hello is None

    return hear


def _message_end(message: bytearray) -> int:
    if message and message[0] != _CLIENT_HELLO:
        raise NoHello("the first message is not a ClientHello")
    if len(message) < _MESSAGE_HEAD:
        return 0
    length = int.from_bytes(message[1:_MESSAGE_HEAD], "big")
    if length > LONGEST:
        raise NoHello(f"it is longer than {LONGEST} bytes")
    return _MESSAGE_HEAD + length


class _Parts:
    """Bytes taken apart from their beginning. Raises NoHello when they are too few."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise NoHello("a length in it reaches beyond its end")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int, least: int = 0) -> bytes:
        """What a length of so many bytes stands before."""
        data = self.take(self.number(size))
        if len(data) < least:
            raise NoHello("a part of it is too short")
        return data


def _read(body: bytes) -> Hello:
    parts = _Parts(body)
    if parts.number(2) >> 8 != 3:
        raise NoHello("its version is not one of TLS")
    parts.take(32)  # random
    if len(parts.vector(1)) > 32:
        raise NoHello("its session is too long")
    if len(parts.vector(2, 2)) % 2:
        raise NoHello("its cipher suites are cut")
    parts.vector(1, 1)  # compression methods
    if not parts.left:
        return Hello("", ())
    extensions = _extensions(_Parts(parts.vector(2)))
    if parts.left:
        raise NoHello("something follows its extensions")
    name, protocols = extensions.get(_SERVER_NAME), extensions.get(_ALPN)
    return Hello(
        _server_name(_Parts(name)) if name is not None else "",
        _protocols(_Parts(protocols)) if protocols is not None else (),
    )


def _extensions(parts: _Parts) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while parts.left:
        kind, data = parts.number(2), parts.vector(2)
        if kind in found:
            raise NoHello("an extension occurs twice")
        found[kind] = data
    return found


def _whole(parts: _Parts) -> _Parts:
    """The list that is all there is in an extension."""
    inner = _Parts(parts.vector(2, 1))
    if parts.left:
        raise NoHello("something follows the list of an extension")
    return inner


def _server_name(parts: _Parts) -> str:
    names = _whole(parts)
    found = b""
    while names.left:
        kind, name = names.number(1), names.vector(2, 1)
        if kind != _HOST_NAME:
            raise NoHello("it has a name of an unknown kind")  # and nobody knows how long such a one is
        if found:
            raise NoHello("it has more than one name")
        found = name
    if not _NAME.fullmatch(found):
        raise NoHello("its name is none of a host")
    return found.decode("ascii").lower()


def _protocols(parts: _Parts) -> tuple[bytes, ...]:
    names = _whole(parts)
    found = []
    while names.left:
        found.append(names.vector(1, 1))
    return tuple(found)
