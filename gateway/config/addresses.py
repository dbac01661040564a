"""Fields that say where something is: addresses and ports, networks, hosts."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

from gateway.config import values
from gateway.config.fields import FilePath, matching, text
from gateway.config.quantities import integer, whole
from gateway.config.values import Address, Origin, shown

ListenAddress = Annotated[
    Address,
    PlainValidator(values.parse_listen),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(unix:/.+|fd:\d+|systemd:.+|[^/]*:\d{1,5})$",
            "examples": [":8080", "127.0.0.1:8080", "[::]:443", "unix:/run/app.sock", "fd:3", "systemd:web"],
        }
    ),
]
EndpointAddress = Annotated[
    Origin,
    PlainValidator(values.parse_origin),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(unix:/.+|http://[^/?#]+(/[^?#]*)?|[^/]+:\d{1,5})$",
            "examples": ["10.0.0.1:8080", "app.internal:8080", "http://10.0.0.1:8080/base", "unix:/run/app.sock"],
        }
    ),
]


def _socket_path(value: str) -> str:
    if len(value.encode()) > values.SUN_PATH:
        raise ValueError(f"the path of a unix socket has at most {values.SUN_PATH} bytes, got {shown(value)}")
    return value


SocketPath = Annotated[FilePath, AfterValidator(_socket_path), text(r"[\s\S]*[^/]")]

Port = Annotated[int, PlainValidator(whole(1, 65535)), integer(1, 65535)]


def _port_range(value: object) -> str:
    written = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(written, str) and re.fullmatch(r"\d{1,5}(-\d{1,5})?", written, re.ASCII):
        first, _, last = written.partition("-")
        if 1 <= int(first) <= int(last or first) <= 65535:
            return written
    raise ValueError(f'expected a port such as 443 or a range such as "1024-65535", got {shown(value)}')


PortRange = Annotated[
    str,
    PlainValidator(_port_range),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": r"^\d{1,5}(-\d{1,5})?$"},
            ],
            "examples": [443, "1024-65535"],
        }
    ),
]


def _ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f'expected an IP address such as "10.0.0.2", got {shown(value)}') from None


IPAddress = Annotated[
    str, AfterValidator(_ip_address), WithJsonSchema({"type": "string", "examples": ["10.0.0.2", "2001:db8::2"]})
]


def _ip_address_and_port(value: str) -> str:
    address, colon, port = value, "", ""
    if value.startswith("[") or value.count(":") == 1:
        address, colon, port = value.rpartition(":")
    try:
        ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        if colon:
            whole(1, 65535)(int(port))
    except ValueError:
        raise ValueError(f'expected an address such as "10.0.0.53" or "10.0.0.53:5353", got {shown(value)}') from None
    return value


IPAddressAndPort = Annotated[
    str,
    AfterValidator(_ip_address_and_port),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.53", "10.0.0.53:5353", "[2001:db8::53]:53"]}),
]


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        pass
    try:
        near = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f'expected a network such as "10.0.0.0/8", got {shown(value)}') from None
    raise ValueError(f"expected a network, got an address inside {near}: {shown(value)}")


def _network_or(word: str) -> AfterValidator:
    def check(value: str) -> str:
        if value == word:
            return value
        try:
            return _network(value)
        except ValueError as error:
            raise ValueError(str(error).replace('"10.0.0.0/8",', f'"10.0.0.0/8" or "{word}",')) from None

    return AfterValidator(check)


PrefixLength = Annotated[int, PlainValidator(whole(1, 128)), integer(1, 128)]
Network = Annotated[
    str, AfterValidator(_network), WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "2001:db8::/32"]})
]
TrustedProxy = Annotated[
    str,
    _network_or("unix"),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "127.0.0.1", "2001:db8::/32", "unix"]}),
]
TargetNetwork = Annotated[
    str,
    _network_or("public"),
    WithJsonSchema({"type": "string", "examples": ["public", "10.0.0.0/8", "2001:db8::/32"]}),
]

_DNS_NAME = r"[A-Za-z0-9_:]([A-Za-z0-9_.:-]{0,252})"
DnsName = Annotated[str, matching(_DNS_NAME, 'a name such as "app.internal"'), text(_DNS_NAME)]


def _host(value: str) -> str:
    what = 'a host such as "example.com" or "*.example.com", without a port'
    if len(value) > 256:
        raise ValueError(f"expected {what}, got one of {len(value)} characters")
    if value.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(value.removeprefix('[').removesuffix(']'))}]"
        except ValueError:
            raise ValueError(f"expected {what}, got {shown(value)}") from None
    star, name = ("*.", value[2:]) if value.startswith("*.") else ("", value)
    try:
        name = name.removesuffix(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    if len(name) > 253 or not all(re.fullmatch(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", label) for label in name.split(".")):
        raise ValueError(f"expected {what}, got {shown(value)}")
    return star + name


Host = Annotated[
    str, AfterValidator(_host), WithJsonSchema({"type": "string", "examples": ["example.com", "*.example.com"]})
]


def authority(value: str) -> str:
    """A host with or without a port, in lower case, international names as DNS has them. Raises ValueError."""
    host, _, port = value.rpartition(":") if re.search(r":\d+$", value) else (value, "", "")
    try:
        if host.startswith("*") or (port and not 0 < int(port) < 65536):
            raise ValueError
        return _host(host) + (f":{int(port)}" if port else "")
    except ValueError:
        raise ValueError(f'expected a host such as "example.com" or "example.com:8080", got {shown(value)}') from None


def _host_sent(value: str) -> str:
    return value if value in ("preserve", "endpoint") else authority(value)


HostSent = Annotated[
    str,
    AfterValidator(_host_sent),
    WithJsonSchema({"type": "string", "examples": ["preserve", "endpoint", "app.internal:8080"]}),
]
