"""SOCKS messages in any pieces: what is read of them is what they say, is said as soon as it can be, and stays so."""

from __future__ import annotations

from ipaddress import ip_address

from gateway import socks
from gateway.socks import (
    Credentials,
    Greeting,
    Malformed,
    Request,
    read_credentials,
    read_datagram,
    read_greeting,
    read_request,
)
from tests.fuzz.loop import Finding, Loop

SEEDS: tuple[bytes, ...] = (
    b"\x05\x01\x00",
    b"\x05\x02\x00\x02\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
    b"\x01\x03ann\x06secret",
    b"\x01\x00\x00",
    b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50rest",
    b"\x05\x01\x00\x03\x09localhost\x00\x50",
    b"\x05\x03\x00\x04" + bytes(15) + b"\x01\x00\x35",
    b"\x05\x02\x00\x03\x00\x00\x50",
    b"\x05\x01\x01\x01\x7f\x00\x00\x01\x00\x50",
    b"\x05\x01\x00\x02\x00\x50",
    b"\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x35data",
    b"\x00\x00\x00\x03\x04a.b.\x00\x35",
    b"\x00\x00\x01\x04" + bytes(16) + b"\x00\x35",
    b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
    b"GET / HTTP/1.1\r\n\r\n",
)


def run(loop: Loop, data: bytes) -> None:
    """Raises Finding."""
    for read in (read_greeting, read_credentials, read_request):
        said: object = None
        for end in range(len(data) + 1):
            try:
                now: object = read(data[:end])
            except Malformed as error:
                now = str(error)
            if said is not None and now != said:
                raise Finding(f"{said!r}, and with more bytes {now!r}")
            said = now
        if isinstance(said, tuple) and data[: said[1]] != _written(said[0], data):
            raise Finding(f"{data[: said[1]]!r} was read as {said[0]!r}")
    try:
        found = read_datagram(data)
    except Malformed:
        return
    if _address(found.host, found.port, data[3]) not in (b"", data[3 : found.start]):
        raise Finding(f"{data[: found.start]!r} was read as {found!r}")


def _written(message: object, data: bytes) -> bytes:
    """The message as it must have come, made in another way than it was read."""
    match message:
        case Greeting(methods):
            return bytes((5, len(methods))) + methods
        case Credentials(user, password):
            return bytes((1, len(user))) + user + bytes((len(password),)) + password
        case Request(command, host, port):
            address = _address(host, port, data[3])
            return bytes((5, command, 0)) + address if address else data[: 7 + data[4]]
    raise Finding(f"{message!r} is no message")


def _address(host: str, port: int, kind: int) -> bytes:
    """b"": a name that can't be written as it came, for it was no UTF-8."""
    if kind == 3:
        name = host.encode()
        return b"" if "\N{REPLACEMENT CHARACTER}" in host else bytes((3, len(name))) + name + port.to_bytes(2, "big")
    return socks.datagram(str(ip_address(host)), port)[3:]
