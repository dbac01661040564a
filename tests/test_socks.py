"""SOCKS 5 messages: what is read of any bytes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

Reader = Callable[[bytes], tuple[Any, int] | None]
READERS: tuple[Reader, ...] = (read_greeting, read_credentials, read_request)

NAMES = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda name: 0 < len(name.encode()) < 256)
PORTS = st.integers(0, 65535)
HOSTS = st.one_of(
    st.ip_addresses(v=4).map(lambda one: (str(one), b"\x01" + one.packed)),
    st.ip_addresses(v=6).map(lambda one: (str(one), b"\x04" + one.packed)),
    NAMES.map(lambda name: (name, bytes((3, len(name.encode()))) + name.encode())),
)


@given(st.binary(max_size=255), st.binary())
def test_a_greeting(methods: bytes, rest: bytes) -> None:
    data = bytes((5, len(methods))) + methods
    assert read_greeting(data + rest) == (Greeting(methods), len(data))


@given(st.binary(max_size=255), st.binary(max_size=255), st.binary())
def test_credentials(user: bytes, password: bytes, rest: bytes) -> None:
    data = bytes((1, len(user))) + user + bytes((len(password),)) + password
    assert read_credentials(data + rest) == (Credentials(user, password), len(data))


@given(st.integers(0, 255), HOSTS, PORTS, st.binary())
def test_a_request(command: int, host: tuple[str, bytes], port: int, rest: bytes) -> None:
    name, written = host
    data = bytes((5, command, 0)) + written + port.to_bytes(2, "big")
    assert read_request(data + rest) == (Request(command, name, port), len(data))
    for end in range(len(data)):
        assert read_request(data[:end]) is None


@given(st.integers(0, 255), HOSTS, PORTS, st.binary())
def test_a_datagram(fragment: int, host: tuple[str, bytes], port: int, rest: bytes) -> None:
    name, written = host
    head = bytes((0, 0, fragment)) + written + port.to_bytes(2, "big")
    assert read_datagram(head + rest) == (fragment, name, port, len(head))
    for end in range(len(head)):
        with pytest.raises(Malformed):
            read_datagram(head[:end])


@given(st.ip_addresses(), PORTS, st.binary())
def test_what_is_written_is_read(address: IPv4Address | IPv6Address, port: int, data: bytes) -> None:
    assert read_datagram(socks.datagram(str(address), port) + data)[1:3] == (str(address), port)
    written = socks.reply(socks.SUCCEEDED, str(address), port)
    assert read_request(written) == (Request(0, str(address), port), len(written))


@given(st.sampled_from(READERS), st.binary(max_size=600))
def test_any_bytes_are_read_the_same_in_any_pieces(read: Reader, data: bytes) -> None:
    """It is said as soon as it can be, and more bytes change nothing of it."""
    said: Any = None
    for end in range(len(data) + 1):
        try:
            now: Any = read(data[:end])
        except Malformed as error:
            now = str(error)
        if said is not None:
            assert now == said
        said = now
    if isinstance(said, tuple):
        assert 0 < said[1] <= len(data)


@pytest.mark.parametrize(
    ("read", "data", "reason", "reply"),
    [
        (read_greeting, b"\x04", "socks_version", 1),
        (read_greeting, b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "socks_version", 1),
        (read_greeting, b"GET / HTTP/1.1\r\n", "socks_version", 1),
        (read_greeting, b"\x16\x03\x01\x02\x00", "socks_version", 1),
        (read_greeting, b"\0", "socks_version", 1),
        (read_credentials, b"\x05", "socks_malformed", 1),
        (read_credentials, b"\0", "socks_malformed", 1),
        (read_request, b"\x04", "socks_malformed", 1),
        (read_request, b"\x05\x01\x01", "socks_malformed", 1),
        (read_request, b"\x05\x01\x00\x00", "socks_address_type", 8),
        (read_request, b"\x05\x01\x00\x02", "socks_address_type", 8),
        (read_request, b"\x05\x01\x00\x05", "socks_address_type", 8),
        (read_request, b"\x05\x01\x00\xff", "socks_address_type", 8),
        (read_request, b"\x05\x01\x00\x03\x00", "socks_malformed", 1),
    ],
)
def test_what_is_refused_at_once(read: Reader, data: bytes, reason: str, reply: int) -> None:
    with pytest.raises(Malformed) as found:
        read(data)
    assert (found.value.reason, found.value.reply) == (reason, reply)


@pytest.mark.parametrize("data", [b"\0\1\0\1\x7f\0\0\1\0\x35", b"\1\0\0\1\x7f\0\0\1\0\x35", b"\0\0\0\2\0\0", b""])
def test_datagrams_that_are_none(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_datagram(data)


def test_a_name_that_is_no_utf8_is_a_name_that_nobody_has() -> None:
    found = read_request(b"\x05\x01\x00\x03\x02\xff\xfe\x00\x50")
    assert found is not None and found[0].host == "\N{REPLACEMENT CHARACTER}" * 2


def test_a_zone_is_not_written() -> None:
    assert socks.reply(0, "fe80::1%2", 80) == socks.reply(0, "fe80::1", 80)
