"""The PROXY protocol, versions 1 and 2, as HAProxy's doc/proxy-protocol.txt has it: who the client of a connection is,
told by the proxy that hands it on, in a header before everything else. Pure.

Where a header says that there is no client, or none with an address and port (LOCAL, UNKNOWN, unix sockets), what
stands in it is skipped: then both ends are those of the socket.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import NamedTuple

from gateway.errors import GatewayError
from gateway.ranges import read as read_address
from gateway.ranges import unmapped, written

# The longest line of version 1 with its CRLF (section 2.1).
LONGEST_V1 = 107
# Of version 2, where 65,551 bytes could be announced. The document wants to stay within 536 (section 2.2); the names of
# certificates and what clouds add take some more.
LONGEST_V2 = 4096

_V1 = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_WORDS = (b"TCP4 ", b"TCP6 ", b"UNKNOWN ", b"UNKNOWN\r\n")
_PORT = rb"(0|[1-9][0-9]{0,4})"
_PORTS = rb" " + _PORT + rb" " + _PORT + rb"\r\n"
_LINE = re.compile(
    rb"PROXY (?:TCP4 ([0-9.]++) ([0-9.]++)" + _PORTS + rb"|TCP6 ([0-9A-Fa-f:.]++) ([0-9A-Fa-f:.]++)" + _PORTS
    + rb"|UNKNOWN(?: [^\r\n]*+)?\r\n)"
)  # fmt: skip
# What a line is made of behind its word, for as long as it has no end.
_SO_FAR = {
    b"TCP4 ": re.compile(rb"[0-9. ]*+\r?"),
    b"TCP6 ": re.compile(rb"[0-9A-Fa-f:. ]*+\r?"),
    b"UNKNOWN ": re.compile(rb"[^\r\n]*+\r?"),
}

_FIXED = Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21  # with the version in the upper half
_UNSPEC, _INET, _INET6, _UNIX = range(4)
_STREAM, _DGRAM = 1, 2
# Source and destination, then their ports.
_PAIRS = {_INET: Struct("!4s4sHH"), _INET6: Struct("!16s16sHH")}
_BLOCKS = {_INET: 12, _INET6: 36, _UNIX: 216}
_TLV = Struct("!BH")
_CRC32C, _UNIQUE_ID = 0x03, 0x05
_LONGEST_ID = 128

Address = tuple[str, int]  # host and port


class Malformed(GatewayError):
    """A header that must not be read; `str()` says why."""


class NoHeader(Malformed):
    """What came begins no header: something else is spoken."""


class Header(NamedTuple):
    """Both ends of the client's connection, IPv4-mapped addresses as IPv4; None where a header doesn't say."""

    source: Address | None
    destination: Address | None


_UNKNOWN = Header(None, None)


def read(data: bytes) -> tuple[Header, int] | None:
    """The header at the start of data, and where it ends. None: it is not whole yet.

    Raises NoHeader as soon as this can't be the beginning of one, and Malformed as soon as it is one that must not be
    read.
    """
    if data.startswith(_V1):
        return _read_v1(data)
    if data.startswith(_SIGNATURE):
        return _read_v2(data)
    if _V1.startswith(data) or _SIGNATURE.startswith(data):
        return None
    raise NoHeader("this is no PROXY header")


def begun(data: bytes) -> bool:
    """Whether this begins a header and nothing else, whole or not."""
    return data.startswith((_V1, _SIGNATURE))


# Version 1: a line of text.


def _read_v1(data: bytes) -> tuple[Header, int] | None:
    end = data.find(b"\r\n", 0, LONGEST_V1)
    if end < 0:
        if len(data) >= LONGEST_V1:
            raise Malformed(f"the line has no end in {LONGEST_V1} bytes")
        _check_begun(data[len(_V1) :])
        return None
    end += 2
    match = _LINE.fullmatch(data, 0, end)
    if match is None:
        raise Malformed("the line is not as version 1 has it")
    four, six = match.groups()[:4], match.groups()[4:]
    if four[0] is not None:
        return _pair(IPv4Address, *four), end
    if six[0] is not None:
        return _pair(IPv6Address, *six), end
    return _UNKNOWN, end


def _check_begun(rest: bytes) -> None:
    """Raise Malformed unless this can go on to be a line; rest: what follows the first word."""
    for word in _WORDS:
        if word.startswith(rest) or (rest.startswith(word) and _SO_FAR[word].fullmatch(rest, len(word))):
            return
    raise Malformed("the line is not as version 1 has it")


def _pair(kind: type[IPv4Address | IPv6Address], source: bytes, destination: bytes, *ports: bytes) -> Header:
    try:
        hosts = [kind(text.decode("ascii")) for text in (source, destination)]
    except ValueError:
        raise Malformed("an address can't be read") from None
    source_port, destination_port = map(int, ports)
    if source_port > 65535 or destination_port > 65535:
        raise Malformed("a port is above 65535")
    return Header((written(hosts[0]), source_port), (written(hosts[1]), destination_port))


# Version 2: binary.


def _read_v2(data: bytes) -> tuple[Header, int] | None:
    """Each byte is judged as soon as it is there. Of LOCAL all that follows the command is skipped, as the document
    wants it, and of UNSPEC, where nobody knows how long the addresses are; so their checksum is not looked for."""
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise Malformed("the version is not 2 or the command is unknown")
    is_local = len(data) > 12 and data[12] == _LOCAL
    if len(data) > 13 and not is_local and (data[13] >> 4 > _UNIX or data[13] & 15 > _DGRAM):
        raise Malformed("the address family or the protocol is unknown")
    if len(data) < _FIXED.size:
        return None
    _, _, transport, length = _FIXED.unpack_from(data)
    end = _FIXED.size + length
    family = _UNSPEC if is_local or not transport & 15 else transport >> 4
    block = _BLOCKS.get(family, 0)
    if end > LONGEST_V2:
        raise Malformed(f"the header is longer than {LONGEST_V2} bytes")
    if length < block:
        raise Malformed("the header is too short for its addresses")
    if len(data) < end:
        return None
    if family == _UNSPEC:
        return _UNKNOWN, end
    _check_tlvs(data[:end], _FIXED.size + block)
    if family == _UNIX:
        return _UNKNOWN, end
    source, destination, *ports = _PAIRS[family].unpack_from(data, _FIXED.size)
    kind = IPv4Address if family == _INET else IPv6Address
    return Header((written(kind(source)), ports[0]), (written(kind(destination)), ports[1])), end


def _check_tlvs(header: bytes, at: int) -> None:
    """Raise Malformed unless the header, from here on, is a row of type, length and value."""
    checksum = 0
    while at < len(header):
        if at + _TLV.size > len(header):
            raise Malformed("what follows the addresses is cut")
        kind, length = _TLV.unpack_from(header, at)
        at += _TLV.size
        if at + length > len(header):
            raise Malformed("what follows the addresses is longer than the header")
        if kind == _CRC32C:
            if length != 4 or checksum:
                raise Malformed("the checksum does not have 4 bytes, or occurs twice")
            checksum = at
        elif kind == _UNIQUE_ID and length > _LONGEST_ID:
            raise Malformed(f"the unique id is longer than {_LONGEST_ID} bytes")
        at += length
    if checksum:
        told = header[checksum : checksum + 4]
        if crc32c(header[:checksum] + bytes(4) + header[checksum + 4 :]) != int.from_bytes(told, "big"):
            raise Malformed("the checksum is wrong")


# CRC-32C (RFC 9260, appendix A; Castagnoli), with the bits of each byte reversed as everybody has it.
_POLYNOMIAL = 0x82F63B78


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_REMAINDERS = tuple(map(_remainder, range(256)))


def crc32c(data: bytes) -> int:
    """0.1 us for each byte."""
    remainder, remainders = 0xFFFFFFFF, _REMAINDERS
    for byte in data:
        remainder = remainder >> 8 ^ remainders[(remainder ^ byte) & 255]
    return remainder ^ 0xFFFFFFFF


# Writing.


def v1(source: Address | None, destination: Address | None) -> bytes:
    """The line that says whose connection this is. None: not known, or a unix socket. Where one address is IPv6 and the
    other IPv4, that is mapped (RFC 4291, section 2.5.5.2). Raises ValueError for what is no address."""
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    is_ipv4, hosts = _alike(source[0], destination[0])
    word = "TCP4" if is_ipv4 else "TCP6"
    return f"PROXY {word} {hosts[0]} {hosts[1]} {source[1]} {destination[1]}\r\n".encode("ascii")


def v2(source: Address | None, destination: Address | None, is_udp: bool = False) -> bytes:
    """The same in version 2, without TLVs: 28 bytes for IPv4, 52 for IPv6; 16 where nothing is known, as LOCAL, which
    nobody may refuse. Some 5 us: who sends it with each datagram of a session keeps it."""
    if source is None or destination is None:
        return _FIXED.pack(_SIGNATURE, _LOCAL, _UNSPEC, 0)
    is_ipv4, hosts = _alike(source[0], destination[0])
    family = _INET if is_ipv4 else _INET6
    pairs = _PAIRS[family]
    fixed = _FIXED.pack(_SIGNATURE, _PROXY, family << 4 | (_DGRAM if is_udp else _STREAM), pairs.size)
    return fixed + pairs.pack(hosts[0].packed, hosts[1].packed, source[1], destination[1])


def _alike(*texts: str) -> tuple[bool, list[IPv4Address | IPv6Address]]:
    """Whether all of these are IPv4; and they, of one family."""
    hosts = [unmapped(read_address(text)) for text in texts]
    is_ipv4 = all(isinstance(host, IPv4Address) for host in hosts)
    return is_ipv4, hosts if is_ipv4 else [_mapped(host) for host in hosts]


def _mapped(host: IPv4Address | IPv6Address) -> IPv6Address:
    return IPv6Address(0xFFFF << 32 | int(host)) if isinstance(host, IPv4Address) else host
