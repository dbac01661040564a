"""The first message of a TLS client."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client_hello import LONGEST, Hello, HelloReader, NoHello
from tests.support.hellos import alpn, body, extension, hello, message, real, records, server_name, vector


def read(data: bytes) -> Hello | None:
    return HelloReader().feed(data)


def bytewise(data: bytes) -> Hello | None:
    """A byte at a time: it is known with the last one and not before."""
    reader = HelloReader()
    for at in range(len(data)):
        found = reader.feed(data[at : at + 1])
        if found is not None:
            assert at == len(data) - 1
            assert reader.raw == data
            return found
    return None


@pytest.mark.parametrize("name", ["example.com", "a.b.example.com", "xn--bcher-kva.example", "under_score.example"])
def test_what_openssl_says(name: str) -> None:
    data = real(name, ["h2", "http/1.1"])
    assert read(data) == bytewise(data) == Hello(name, (b"h2", b"http/1.1"))


def test_nothing_asked_for() -> None:
    assert read(real(None)) == Hello("", ())


def test_no_extensions_at_all() -> None:
    content = body()[:-2]
    assert read(records(message(content))) == Hello("", ())


def test_a_name_in_capitals() -> None:
    assert read(hello(server_name(b"Example.COM"))) == Hello("example.com", ())


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 200])
def test_several_records(size: int) -> None:
    data = hello(server_name(b"example.com"), alpn(b"h2"), size=size)
    assert read(data) == bytewise(data) == Hello("example.com", (b"h2",))


def test_a_large_one() -> None:
    """A key share, a ticket and padding."""
    data = hello(server_name(b"example.com"), extension(51, bytes(1200)), extension(41, bytes(8000)), size=4000)
    assert read(data) == Hello("example.com", ())


def test_what_follows_it_is_kept() -> None:
    reader = HelloReader()
    data = hello(server_name(b"a.example")) + b"early data"
    assert reader.feed(data) == Hello("a.example", ())
    assert reader.raw == data


def _cut(data: bytes, at: int, byte: int) -> bytes:
    return data[:at] + bytes((byte,)) + data[at + 1 :]


GOOD = message(body(server_name(b"example.com"), alpn(b"h2")))
MALFORMED = {
    "http": b"GET / HTTP/1.1\r\n",
    "ssh": b"SSH-2.0-x\r\n",
    "ssl 2": b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10",
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "application data": b"\x17\x03\x03\x00\x01x",
    "another version of records": b"\x16\x02\x00\x00\x10",
    "an empty record": b"\x16\x03\x01\x00\x00",
    "a record that is too large": b"\x16\x03\x01\x40\x01",
    "another message": records(message(body(), kind=2)),
    "a message that is too large": records(b"\1" + (LONGEST + 1).to_bytes(3, "big")),
    "an empty message": records(message(b"")),
    "another version": records(message(body(version=b"\2\0"))),
    "no random": records(message(b"\3\3" + bytes(31))),
    "a session that is too long": records(message(body(session=bytes(33)))),
    "a session that is cut": records(message(b"\3\3" + bytes(32) + b"\x20")),
    "no cipher suites": records(message(body(suites=b""))),
    "half a cipher suite": records(message(body(suites=b"\x13\x01\x13"))),
    "no compression": records(message(body(compression=b""))),
    "something behind the extensions": records(message(body() + b"x")),
    "a byte of extensions": records(message(body()[:-2] + vector(2, b"\0"))),
    "an extension beyond the end": records(message(body(b"\0\0\0\x10abc"))),
    "an extension twice": hello(extension(9, b""), extension(9, b"")),
    "two lists of names": hello(server_name(b"a.example"), server_name(b"b.example")),
    "two names": hello(server_name(b"a.example", b"b.example")),
    "a name of another kind": hello(server_name(b"a.example", kind=1)),
    "an empty list of names": hello(extension(0, vector(2, b""))),
    "an empty name": hello(server_name(b"")),
    "no list of names": hello(extension(0, b"")),
    "a list that is too short": hello(extension(0, vector(2, b"\0" + vector(2, b"a")) + b"x")),
    "a name beyond its list": hello(extension(0, vector(2, b"\0\0\x05abc"))),
    "a name with a zero": hello(server_name(b"example.com\0.evil")),
    "a name with a line end": hello(server_name(b"example.com\r\n")),
    "a name with a space": hello(server_name(b"example .com")),
    "a name that is no ASCII": hello(server_name("bücher.example".encode())),
    "a name with a dot behind": hello(server_name(b"example.com.")),
    "a name that is too long": hello(server_name(b"a" * 255)),
    "an empty protocol": hello(alpn(b"")),
    "no protocols": hello(extension(16, vector(2, b""))),
    "a protocol beyond its list": hello(extension(16, vector(2, b"\x05h2"))),
    "a length of the list that is wrong": records(_cut(GOOD, len(GOOD) - 4, 9)),
    "records of a byte without end": records(b"\1\0\x3f\xff" + bytes(9000), 1),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_none(what: str) -> None:
    data = MALFORMED[what]
    with pytest.raises(NoHello):
        read(data)
    with pytest.raises(NoHello):
        bytewise(data)


def test_the_bound() -> None:
    largest = hello(extension(21, bytes(LONGEST - 43 - 4)), size=8000)
    assert read(largest) == Hello("", ())
    with pytest.raises(NoHello):
        read(hello(extension(21, bytes(LONGEST - 43 - 3)), size=8000))


@given(st.binary(max_size=200))
def test_anything(data: bytes) -> None:
    with contextlib.suppress(NoHello):
        assert read(data) is None


@given(data=st.data())
def test_a_changed_one(data: st.DataObject) -> None:
    """Whatever is changed and however it is cut, both ways of reading it agree, and a name is one."""
    raw = bytearray(hello(server_name(b"example.com"), alpn(b"h2"), size=data.draw(st.integers(1, 200))))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    whole: Hello | str | None
    try:
        whole = read(bytes(raw))
    except NoHello:
        whole = "none"
    piecewise: Hello | str | None = None
    reader = HelloReader()
    try:
        for at in range(len(raw)):
            piecewise = reader.feed(bytes(raw[at : at + 1]))
            if piecewise is not None:
                break
    except NoHello:
        piecewise = "none"
    assert piecewise == whole
    if isinstance(whole, Hello):
        assert whole.sni == whole.sni.lower() and not set(whole.sni) & set(" \r\n\0\"'")


def test_openssl_reads_the_same() -> None:
    """What is put together here is a ClientHello to others as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    heard: list[str | None] = []
    context.sni_callback = lambda sock, name, context: heard.append(name)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    versions = extension(43, vector(1, b"\3\3"))
    incoming.write(hello(server_name(b"example.com"), versions, size=50))
    with contextlib.suppress(ssl.SSLError):
        server.do_handshake()
    assert heard == ["example.com"]
