"""PROXY headers: what is one is read in one way, what is none is known at once, and what we write others can read."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy_protocol import (
    Address,
    Header,
    Malformed,
    NoHeader,
    begun,
    crc32c,
    read,
    v1,
    v2,
)
from gateway.ranges import unmapped

LONGEST_V1, LONGEST_V2 = 107, 4096
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
FOUR = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 56324, 443)
SIX = bytes.fromhex("20010db8000000000000000000000001 20010db8000000000000000000000002") + struct.pack("!HH", 1, 65535)


def binary(command: int, transport: int, rest: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, transport, len(rest) if length is None else length) + rest


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def summed(transport: int, block: bytes, *tlvs: bytes) -> bytes:
    """With a checksum behind these."""
    before = b"".join((block, *tlvs))
    blank = binary(0x21, transport, before + tlv(3, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank))


def ending(data: bytes) -> tuple[Header, int] | str | None:
    try:
        return read(data)
    except NoHeader:
        return "none"
    except Malformed:
        return "malformed"


# As HAProxy 2.6 has sent them: by send-proxy-v2, for its health checks, and with proxy-v2-options crc32c,unique-id; by
# send-proxy-v2-ssl.
HAPROXY_V2 = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c 7f000001 7f000001 827e d079")
HAPROXY_LOCAL = bytes.fromhex("0d0a0d0a000d0a515549540a 20 00 0007 030004 a9b87e8f")
HAPROXY_CRC = bytes.fromhex(
    "0d0a0d0a000d0a515549540a 21 11 001e 7f000001 7f000001 be30 ddd1 030004 a866f5e9 050008 69642d3237313630"
)
HAPROXY_SSL = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 0014 7f000001 7f000001 e1f8 e205 200005 0000000000")

KNOWN = [
    (b"PROXY TCP4 127.0.0.1 127.0.0.1 49098 59965\r\n", ("127.0.0.1", 49098), ("127.0.0.1", 59965)),
    (HAPROXY_V2, ("127.0.0.1", 33406), ("127.0.0.1", 53369)),
    (HAPROXY_LOCAL, None, None),
    (HAPROXY_CRC, ("127.0.0.1", 48688), ("127.0.0.1", 56785)),
    (HAPROXY_SSL, ("127.0.0.1", 57848), ("127.0.0.1", 57861)),
    (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", ("192.168.0.1", 56324), ("192.168.0.11", 443)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",) + (("255.255.255.255", 65535),) * 2,
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",) + (("0.0.0.0", 0),) * 2,
    (b"PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:2 1 2\r\n", ("2001:db8::1", 1), ("2001:db8::2", 2)),
    (b"PROXY TCP6 " + b":".join([b"ffff"] * 8) + b" ::1 65535 65535\r\n", (":".join(["ffff"] * 8), 65535),
     ("::1", 65535)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2\r\n", ("192.0.2.1", 1), ("192.0.2.2", 2)),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN \r\n", None, None),
    (b"PROXY UNKNOWN ffff:f...f:ffff \x00\xff  anything\r\n", None, None),
    (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None, None),
    (binary(0x21, 0x11, FOUR), ("192.0.2.1", 56324), ("198.51.100.2", 443)),
    (binary(0x21, 0x12, FOUR), ("192.0.2.1", 56324), ("198.51.100.2", 443)),
    (binary(0x21, 0x21, SIX), ("2001:db8::1", 1), ("2001:db8::2", 65535)),
    (binary(0x21, 0x22, SIX), ("2001:db8::1", 1), ("2001:db8::2", 65535)),
    (binary(0x21, 0x21, bytes(10) + b"\xff\xff\xc0\0\2\1" + bytes(15) + b"\1" + bytes(4)), ("192.0.2.1", 0),
     ("::1", 0)),
    (binary(0x21, 0x31, b"/run/a".ljust(108, b"\0") * 2), None, None),
    (binary(0x21, 0x32, bytes(216)), None, None),
    (binary(0x21, 0x00, b""), None, None),
    (binary(0x21, 0x00, b"what nobody reads"), None, None),
    (binary(0x21, 0x01, b""), None, None),
    (binary(0x21, 0x10, FOUR), None, None),
    (binary(0x20, 0x00, b""), None, None),
    (binary(0x20, 0x11, FOUR), None, None),
    (binary(0x20, 0xFF, b"x"), None, None),
    (binary(0x20, 0x00, tlv(3, b"1234")), None, None),
    (binary(0x21, 0x11, FOUR + tlv(4, b"")), ("192.0.2.1", 56324), ("198.51.100.2", 443)),
    (binary(0x21, 0x11, FOUR + tlv(0xEA, b"\1vpce-08d2bf15fac5001c9")), ("192.0.2.1", 56324), ("198.51.100.2", 443)),
    (binary(0x21, 0x11, FOUR + tlv(5, bytes(128)) + tlv(2, b"example.com") + tlv(1, b"h2")),
     ("192.0.2.1", 56324), ("198.51.100.2", 443)),
    (binary(0x21, 0x11, FOUR + tlv(4, bytes(LONGEST_V2 - 16 - 12 - 3))), ("192.0.2.1", 56324), ("198.51.100.2", 443)),
    (summed(0x11, FOUR), ("192.0.2.1", 56324), ("198.51.100.2", 443)),
    (summed(0x21, SIX, tlv(5, b"id"), tlv(4, bytes(7))), ("2001:db8::1", 1), ("2001:db8::2", 65535)),
    (summed(0x31, bytes(216)), None, None),
]  # fmt: skip


@pytest.mark.parametrize(("data", "source", "destination"), KNOWN)
def test_what_a_header_says(data: bytes, source: Address | None, destination: Address | None) -> None:
    expected = Header(source, destination), len(data)
    assert read(data) == expected
    assert read(data + b"GET / HTTP/1.1\r\n") == expected, "what follows does not matter"
    assert read(data + data) == expected
    for end in range(len(data)):
        assert read(data[:end]) is None, f"whole after {end} bytes"


def swapped(data: bytes, at: int, new: int) -> bytes:
    """With another byte there."""
    return data[:at] + bytes([new]) + data[at + 1 :]


# Each with how many bytes it takes to be sure.
MALFORMED = {
    "a family that is none": (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", 8),
    "TCP5": (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n", 10),
    "lower case": (b"PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n", 7),
    "UNKNOWN and more": (b"PROXY UNKNOWNS\r\n", 14),
    "UNKNOWN with a bare LF": (b"PROXY UNKNOWN\n", 14),
    "UNKNOWN with a bare CR": (b"PROXY UNKNOWN a\rb\r\n", 17),
    "UNKNOWN that has no end": (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", LONGEST_V1),
    "two spaces before the family": (b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", 7),
    "two spaces": (b"PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", 0),
    "a tab": (b"PROXY TCP4\t1.2.3.4 1.2.3.4 1 2\r\n", 11),
    "a space at the end": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", 0),
    "a bare LF": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", 31),
    "a bare CR": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rG", 32),
    "no addresses": (b"PROXY TCP4\r\n", 11),
    "one address": (b"PROXY TCP4 1.2.3.4 1 2\r\n", 0),
    "no ports": (b"PROXY TCP4 1.2.3.4 1.2.3.4\r\n", 0),
    "one port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", 0),
    "three ports": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", 0),
    "port 65536": (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", 0),
    "destination port 70000": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n", 0),
    "a port of six digits": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 000002\r\n", 0),
    "a port with a zero in front": (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", 0),
    "a port with a sign": (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", 28),
    "a negative port": (b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n", 28),
    "a port in hex": (b"PROXY TCP4 1.2.3.4 1.2.3.4 0x1 2\r\n", 29),
    "an octet with a zero in front": (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", 0),
    "an octet above 255": (b"PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", 0),
    "three octets": (b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", 0),
    "five octets": (b"PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n", 0),
    "a name": (b"PROXY TCP4 localhost 1.2.3.4 1 2\r\n", 12),
    "digits of another script": ("PROXY TCP4 \u0661.2.3.4 1.2.3.4 1 2\r\n".encode(), 12),
    "IPv6 as TCP4": (b"PROXY TCP4 ::1 ::1 1 2\r\n", 12),
    "IPv4 as TCP6": (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", 0),
    "IPv6 with two gaps": (b"PROXY TCP6 1::2::3 ::1 1 2\r\n", 0),
    "IPv6 of nine parts": (b"PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", 0),
    "IPv6 with five digits": (b"PROXY TCP6 12345::1 ::1 1 2\r\n", 0),
    "IPv6 in brackets": (b"PROXY TCP6 [::1] ::1 1 2\r\n", 12),
    "IPv6 with a zone": (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", 19),
    "a line without an end": (b"PROXY TCP4 " + b"1" * 200, LONGEST_V1),
    "a NUL": (b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n", 19),
    "version 1 in binary": (binary(0x11, 0x11, FOUR), 13),
    "version 3": (binary(0x31, 0x11, FOUR), 13),
    "version 0": (binary(0x01, 0x11, FOUR), 13),
    "command 2": (binary(0x22, 0x11, FOUR), 13),
    "command 15": (binary(0x2F, 0x11, FOUR), 13),
    "family 4": (binary(0x21, 0x41, FOUR), 14),
    "family 15": (binary(0x21, 0xF1, FOUR), 14),
    "protocol 3": (binary(0x21, 0x13, FOUR), 14),
    "protocol 15": (binary(0x21, 0x2F, FOUR), 14),
    "IPv4 in 11 bytes": (binary(0x21, 0x11, FOUR[:11]), 16),
    "IPv6 in 12 bytes": (binary(0x21, 0x21, FOUR), 16),
    "IPv6 in 35 bytes": (binary(0x21, 0x22, SIX[:35]), 16),
    "unix in 215 bytes": (binary(0x21, 0x31, bytes(215)), 16),
    "no addresses in binary": (binary(0x21, 0x11, b""), 16),
    "too long": (binary(0x21, 0x11, FOUR + tlv(4, bytes(LONGEST_V2 - 16 - 12 - 2))), 16),
    "as long as can be said": (binary(0x20, 0x00, b"", 0xFFFF), 16),
    "a TLV of one byte": (binary(0x21, 0x11, FOUR + b"\4"), 29),
    "a TLV of two bytes": (binary(0x21, 0x11, FOUR + b"\4\0"), 30),
    "a TLV that is cut": (binary(0x21, 0x11, FOUR + tlv(4, b"1234")[:-1]), 34),
    "a second TLV that is cut": (binary(0x21, 0x11, FOUR + tlv(1, b"h2") + tlv(4, b"1234")[:-1]), 39),
    "a TLV behind IPv6 that is cut": (binary(0x21, 0x21, SIX + b"\4\0\1"), 55),
    "a TLV behind unix that is cut": (binary(0x21, 0x31, bytes(216) + b"\4\0\1"), 235),
    "a unique id of 129 bytes": (binary(0x21, 0x11, FOUR + tlv(5, bytes(129))), 0),
    "a checksum of three bytes": (binary(0x21, 0x11, FOUR + tlv(3, bytes(3))), 0),
    "a checksum of eight bytes": (binary(0x21, 0x11, FOUR + tlv(3, bytes(8))), 0),
    "a checksum of zero": (binary(0x21, 0x11, FOUR + tlv(3, bytes(4))), 0),
    "two checksums": (summed(0x11, FOUR, tlv(3, bytes(4))), 0),
    "a checksum that is wrong": (swapped(HAPROXY_CRC, 31, 0xA9), 0),
    "an address that was changed": (swapped(summed(0x11, FOUR), 16, 193), 0),
    "a TLV that was changed": (swapped(summed(0x11, FOUR, tlv(2, b"example.com")), 31, 0x45), 0),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_must_not_be_read(case: str) -> None:
    """Sure as early as said: at the end of the whole where it says 0. And never sure of the opposite before."""
    data, sure = MALFORMED[case]
    sure = sure or len(data)
    for end in range(len(data) + 1):
        assert ending(data[:end]) == (None if end < sure else "malformed"), end
    assert ending(data + b"GET / HTTP/1.1\r\n\r\n") == "malformed"


@pytest.mark.parametrize(
    ("data", "sure"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 1),
        (b"POST / HTTP/1.1\r\n\r\n", 2),
        (b"PUT / HTTP/1.1\r\n\r\n", 2),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 3),
        (b"PROPFIND / HTTP/1.1\r\n\r\n", 4),
        (b"PROXYFY / HTTP/1.1\r\n\r\n", 6),
        (b"PROXY\tTCP4", 6),
        (b"proxy TCP4", 1),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", 3),
        (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", 5),
        (b"\r\n\r\n\0\r\nQUIT\r", 12),
        (b"\x16\x03\x01\x02\x00\x01", 1),
        (b"\x05\x01\x00", 1),
        (b" PROXY UNKNOWN\r\n", 1),
        (b"\0", 1),
    ],
)
def test_what_is_none(data: bytes, sure: int) -> None:
    for end in range(len(data) + 1):
        assert ending(data[:end]) == (None if end < sure else "none"), end
        assert not begun(data[:end])


def test_what_begins_one() -> None:
    for data in (b"PROXY UNKNOWN\r\n", binary(0x20, 0, b"")):
        least = 6 if data.startswith(b"P") else 12
        assert [begun(data[:end]) for end in range(len(data))] == [end >= least for end in range(len(data))]


def test_the_checksum() -> None:
    """Of RFC 3720, appendix B.4, and the one that every catalogue of checksums has."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C


# Writing.


@pytest.mark.parametrize(
    ("source", "destination", "line", "block"),
    [
        (("192.0.2.1", 56324), ("198.51.100.2", 443), b"TCP4 192.0.2.1 198.51.100.2 56324 443", b"\x11\x00\x0c" + FOUR),
        (("2001:DB8::1", 1), ("2001:db8:0::2", 65535), b"TCP6 2001:db8::1 2001:db8::2 1 65535", b"\x21\x00\x24" + SIX),
        (
            ("::ffff:192.0.2.1", 56324),
            ("198.51.100.2", 443),
            b"TCP4 192.0.2.1 198.51.100.2 56324 443",
            b"\x11\x00\x0c" + FOUR,
        ),
        (
            ("192.0.2.1", 1),
            ("fe80::1%lo", 2),
            b"TCP6 ::ffff:c000:201 fe80::1 1 2",
            b"\x21\x00\x24" + bytes(10) + b"\xff\xff\xc0\0\2\1\xfe\x80" + bytes(13) + b"\1\0\1\0\2",
        ),
    ],
)
def test_what_is_written(source: Address, destination: Address, line: bytes, block: bytes) -> None:
    # Python 3.13 writes IPv4-mapped addresses with dots.
    assert v1(source, destination).replace(b"::ffff:192.0.2.1", b"::ffff:c000:201") == b"PROXY %b\r\n" % line
    assert v2(source, destination) == SIGNATURE + b"\x21" + block
    assert v2(source, destination, is_udp=True) == SIGNATURE + b"\x21" + bytes([block[0] + 1]) + block[1:]


@pytest.mark.parametrize("pair", [(None, None), (("1.2.3.4", 1), None), (None, ("1.2.3.4", 1))])
def test_what_is_not_known(pair: tuple[Address | None, Address | None]) -> None:
    assert v1(*pair) == b"PROXY UNKNOWN\r\n"
    assert v2(*pair) == v2(*pair, is_udp=True) == SIGNATURE + bytes([0x20, 0, 0, 0])


def test_what_is_no_address_is_not_written() -> None:
    for write in (v1, v2):
        with pytest.raises(ValueError, match="localhost"):
            write(("localhost", 1), ("127.0.0.1", 2))


ADDRESSES = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))


def plain(address: Address) -> Address:
    return str(unmapped(ip_address(address[0]))), address[1]


@given(ADDRESSES, ADDRESSES, st.binary(max_size=20))
def test_what_is_written_is_read(source: Address, destination: Address, rest: bytes) -> None:
    expected = Header(plain(source), plain(destination))
    for header in (v1(source, destination), v2(source, destination), v2(source, destination, is_udp=True)):
        assert read(header + rest) == (expected, len(header))
        assert all(read(header[:end]) is None for end in range(len(header)))
    line = v1(source, destination)
    assert len(line) <= LONGEST_V1
    both = [unmapped(ip_address(host)) for host, _ in (source, destination)]
    assert line.startswith(b"PROXY TCP4 ") == all(isinstance(one, IPv4Address) for one in both)


@given(ADDRESSES, ADDRESSES, st.lists(st.tuples(st.integers(6, 255), st.binary(max_size=60)), max_size=6))
def test_a_checksum_that_is_right_is_taken_and_any_other_is_not(
    source: Address, destination: Address, tlvs: list[tuple[int, bytes]]
) -> None:
    plainly = v2(source, destination)
    data = summed(plainly[13], plainly[16:], *(tlv(kind, value) for kind, value in tlvs))
    assert read(data) == (Header(plain(source), plain(destination)), len(data))
    for at in (*range(16, len(plainly)), *range(len(data) - 4, len(data))):
        assert ending(swapped(data, at, data[at] ^ 0x10)) == "malformed", at


@given(st.binary(max_size=300) | st.binary(max_size=40).map(lambda rest: b"PROXY TCP4 " + rest)
       | st.binary(max_size=60).map(lambda rest: SIGNATURE + b"\x21" + rest))  # fmt: skip
def test_what_was_sure_stays_sure(data: bytes) -> None:
    """Read byte by byte, whatever comes has one outcome, the same as read at once."""
    whole = ending(data)
    for end in range(len(data) + 1):
        found = ending(data[:end])
        if found is not None:
            assert found == whole
            break
    else:
        assert whole is None
