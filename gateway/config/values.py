"""How quantities, addresses and targets are written: "30s", "64KiB", "100/s", "[::]:443", "http://app/base".

Pure: text in, a number or an address out, and back again. Each `parse_` function takes whatever TOML may hold at its
place and raises ValueError with the sentence that the user reads.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_DURATIONS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_BINARY = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DECIMAL = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES = {"B": 1, **_BINARY, **_DECIMAL}
_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}

DURATION = r"\d+(\.\d+)?(ms|s|m|h)"
SIZE = r"\d+(\.\d+)?(B|[KMGT]iB|[kKMGT]B)"
RATE = r"\d+(\.\d+)?/[smh]"
BYTE_RATE = rf"{SIZE}/[smh]"

_LONGEST = 365 * 24 * 3600.0  # above this nobody means it, and deadlines stay far from where floats lose milliseconds
_LARGEST = 1 << 62
SUN_PATH = 107  # bytes in sockaddr_un.sun_path, without the closing NUL
# Two generations of them and the observers fit on the scoreboard (`scoreboard.SEATS`), with room for one more drain.
MOST_WORKERS = 128

# What may stand in a request target or a Location (RFC 3986, sections 3.3 and 3.4), with everything else escaped.
TARGET_PATH = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*"
TARGET_QUERY = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"


class Secret(str):
    """A string that nobody is shown: not in messages, not in the effective configuration."""

    __slots__ = ()

    def __repr__(self) -> str:
        return HIDDEN


HIDDEN = "(secret)"

_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_TELLING = frozenset(
    (
        "apikey", "authorization", "cookie", "credential", "key", "passphrase", "passwd", "password", "pwd", "secret",
        "sig", "signature", "token",
    )
)  # fmt: skip
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_PARAMETER = re.compile(r"(?<=[?&])([^=&#\s]+)=([^&#\s]+)")


def is_telling(name: str) -> bool:
    """Whether what has this name (a header, a parameter, an option) is by its last word nobody else's to read:
    "x-api-key", "accessToken", "set-cookie", but not "token_url"."""
    words = _WORD.findall(name)
    return bool(words) and words[-1].lower().removesuffix("s") in _TELLING


def guarded(value: Any, is_secret: bool = False) -> Any:
    """The same with a `Secret` in the place of each string in it whose name is telling."""
    if isinstance(value, dict):
        return {key: guarded(item, is_secret or is_telling(str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [guarded(item, is_secret) for item in value]
    return Secret(value) if is_secret and isinstance(value, str) else value


def without_credentials(text: str) -> str:
    """The text without what a URL in it has before its host, and in parameters with telling names."""
    if "://" not in text:
        return text
    text = _USERINFO.sub(HIDDEN + "@", text)
    return _PARAMETER.sub(lambda found: f"{found[1]}={HIDDEN}" if is_telling(found[1]) else found[0], text)


def shown(value: object) -> str:
    """A value as an error message names it: short, and in TOML's words."""
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        value = without_credentials(_PASSWORD.sub("://...@", value))
        return json.dumps(value if len(value) <= 60 else value[:57] + "...", ensure_ascii=False)
    if isinstance(value, int | float):
        text = str(value) if isinstance(value, float) or abs(value) < 10**20 else "a very large number"
        return text.lower()
    if isinstance(value, dict):
        return "a table"
    return "an array" if isinstance(value, list | tuple) else "a date or time"


# What stands before the host of a URL: it is shown to whoever reads what was wrong with it.
_PASSWORD = re.compile(r"://.*@", re.DOTALL)


def _unlike(what: str, value: object) -> ValueError:
    return ValueError(f"expected {what}, got {shown(value)}")


def parse_duration(value: object) -> float:
    """Seconds."""
    if not isinstance(value, str) or not re.fullmatch(DURATION, value, re.ASCII):
        raise _unlike('a duration such as "30s"', value)
    number = value.rstrip("hms")
    seconds = float(number) * _DURATIONS[value[len(number) :]]
    if not 0 < seconds <= _LONGEST:
        raise _unlike('a duration above 0 and at most "8760h"', value)
    return seconds


def format_duration(seconds: float) -> str:
    for unit, length in _DURATIONS.items():
        count = seconds / length
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{round(seconds * 1000, 9):.9f}".rstrip("0").rstrip(".") + "ms"


def _bytes(value: str) -> float:
    number = value.rstrip("BKMGTki")
    unit = value[len(number) :]
    return float(number) * _SIZES["kB" if unit == "KB" else unit]


def parse_size(value: object) -> int:
    """Bytes."""
    if not isinstance(value, str) or not re.fullmatch(SIZE, value, re.ASCII):
        raise _unlike('a size such as "64KiB"', value)
    size = _bytes(value)
    if not 1 <= size <= _LARGEST:
        raise _unlike("a size of at least one byte and not beyond all disks", value)
    return int(size)


def format_size(size: int) -> str:
    exact = [(size // length, unit) for unit, length in _SIZES.items() if size % length == 0]
    count, unit = min(exact)
    return f"{count}{unit}"


def parse_rate(value: object) -> float:
    """Events per second."""
    if not isinstance(value, str) or not re.fullmatch(RATE, value, re.ASCII):
        raise _unlike('a rate such as "100/s"', value)
    count, _, period = value.partition("/")
    return float(count) / _PERIODS[period]


def format_rate(rate: float) -> str:
    for period, seconds in _PERIODS.items():
        count = round(rate * seconds)
        if count and count / seconds == rate:
            return f"{count}/{period}"
    return f"{Decimal(rate):f}/s"


def parse_byte_rate(value: object) -> float:
    """Bytes per second."""
    if not isinstance(value, str) or not re.fullmatch(BYTE_RATE, value, re.ASCII):
        raise _unlike('a rate such as "1KiB/s"', value)
    written, _, period = value.partition("/")
    size = _bytes(written)
    if size > _LARGEST:
        raise _unlike("a rate that a network can have", value)
    return size / _PERIODS[period]


def format_byte_rate(rate: float) -> str:
    for period, seconds in _PERIODS.items():
        size = round(rate * seconds)
        if size and size / seconds == rate:
            return f"{format_size(size)}/{period}"
    return f"{Decimal(rate):f}B/s"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """host: an IP literal without brackets, a name, or "" for every address of the machine (":8080")."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class FdAddress:
    """A descriptor that the process was started with."""

    fd: int

    def __str__(self) -> str:
        return f"fd:{self.fd}"


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """A socket that systemd passes under this FileDescriptorName."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}"


Address = TcpAddress | UnixAddress | FdAddress | SystemdAddress


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an origin server is connected to, and the path below which it is meant: "http://app:80/base".

    base: in its escaped form, "" for the root.
    """

    peer: TcpAddress | UnixAddress
    base: str = ""

    @property
    def authority(self) -> str:
        """What stands for it in a Host field and in a URL; a unix socket has no name of its own."""
        if isinstance(self.peer, UnixAddress):
            return "localhost"
        return str(self.peer).removesuffix(":80")

    def __str__(self) -> str:
        return f"http://{self.peer}{self.base}" if self.base else str(self.peer)


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """A resource of a server that we ask ourselves. target: path and query in their escaped form, as they are sent."""

    is_https: bool
    peer: TcpAddress
    target: str = "/"

    @property
    def authority(self) -> str:
        """As in a Host field: without the port where it is the usual one."""
        return str(self.peer).removesuffix(":443" if self.is_https else ":80")

    @property
    def origin(self) -> str:
        """Its scheme, host and port (RFC 6454), written in one way only."""
        return f"{'https' if self.is_https else 'http'}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.target


_A_LISTEN_ADDRESS = 'an address such as ":8080", "127.0.0.1:8080", "[::1]:8080", "unix:/run/app.sock" or "systemd:web"'
_AN_ENDPOINT = 'an address such as "10.0.0.1:8080", "app.internal:8080" or "unix:/run/app.sock"'
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


def parse_listen(value: object) -> Address:
    """Where to listen. The master resolves no names, so a host is an IP literal, `localhost` or empty."""
    if isinstance(value, TcpAddress | UnixAddress | FdAddress | SystemdAddress):
        return value
    if not isinstance(value, str):
        raise _unlike(_A_LISTEN_ADDRESS, value)
    scheme, _, rest = value.partition(":")
    if scheme == "unix":
        return _unix(value, rest)
    if scheme == "fd":
        if not re.fullmatch(r"\d{1,6}", rest, re.ASCII):
            raise _unlike('a descriptor such as "fd:3"', value)
        return FdAddress(int(rest))
    if scheme == "systemd":
        if not re.fullmatch(r"[\x21-\x39\x3b-\x7e]{1,255}", rest):  # what systemd takes as a FileDescriptorName
            raise _unlike('a name as in "systemd:web"', value)
        return SystemdAddress(rest)
    address = _tcp(value, _A_LISTEN_ADDRESS)
    if address.host not in ("", "localhost") and not _is_ip(address.host):
        raise _unlike("an IP address, localhost or nothing before the port (no name is resolved here)", value)
    return address


def parse_endpoint(value: object) -> TcpAddress | UnixAddress:
    """Where an origin listens."""
    if isinstance(value, TcpAddress | UnixAddress):
        return value
    if not isinstance(value, str):
        raise _unlike(_AN_ENDPOINT, value)
    scheme, _, rest = value.partition(":")
    if scheme == "unix":
        return _unix(value, rest)
    if "://" in value:
        return _url(value)
    address = _tcp(value, _AN_ENDPOINT)
    if address.host in ("", "fd") or not address.port:  # nobody's host, but where to listen is written "fd:3"
        raise _unlike(_AN_ENDPOINT, value)
    return address


def parse_origin(value: object) -> Origin:
    """Where an origin listens, as an address or as a URL that may have a path."""
    if isinstance(value, Origin):
        return value
    if not isinstance(value, str) or "://" not in value:
        return Origin(parse_endpoint(value))
    scheme, _, rest = value.partition("://")
    authority, slash, path = rest.partition("/")
    base = slash + path
    if "?" in value or "#" in value:
        raise ValueError(f"the address of an endpoint has no query and no fragment, got {shown(value)}")
    if not re.fullmatch(TARGET_PATH, base) or not {".", ".."}.isdisjoint(base.split("/")):
        raise _unlike('a path in its escaped form, as in "http://app:8080/base"', value)
    return Origin(_url(f"{scheme}://{authority}", value), "" if base == "/" else base)


def _url(value: str, whole: str | None = None) -> TcpAddress:
    scheme, _, rest = value.partition("://")
    if scheme != "http":
        raise ValueError(f'{shown(scheme + "://")} is not supported here, only "http://host:port"')
    if not re.search(r":\d*$", rest):
        rest += ":80"
    address = _tcp(rest, _AN_ENDPOINT, whole or value)
    if not address.host or not address.port:
        raise _unlike(_AN_ENDPOINT, whole or value)
    return address


_A_URL = 'a URL such as "https://id.example.com/keys"'


def parse_http_url(value: object) -> HttpUrl:
    """A URL of http or https: nobody's password in it, no fragment, nothing that would have to be escaped."""
    if not isinstance(value, str):
        raise _unlike(_A_URL, value)
    found = re.fullmatch(r"(https?)://([^/?#@]+)([/?][^#]*)?", value, re.ASCII | re.IGNORECASE)
    if found is None:
        raise _unlike(_A_URL, value)
    is_https = found[1].lower() == "https"
    authority, target = found[2].lower(), found[3] or "/"
    if not re.search(r":\d*$", authority) or authority.endswith("]"):
        authority += ":443" if is_https else ":80"
    peer = _tcp(authority, _A_URL, value)
    target = target if target.startswith("/") else "/" + target
    if not peer.host or not peer.port or not re.fullmatch(TARGET_QUERY, target):
        raise _unlike(_A_URL, value)
    return HttpUrl(is_https, peer, target)


def _unix(value: str, path: str) -> UnixAddress:
    if not path.startswith("/") or "\0" in path or path.endswith("/"):
        raise _unlike('an absolute path as in "unix:/run/app.sock"', value)
    if len(path.encode()) > SUN_PATH:
        raise ValueError(f"the path of a unix socket has at most {SUN_PATH} bytes, this one {len(path.encode())}")
    return UnixAddress(path)


def _tcp(value: str, what: str, whole: str | None = None) -> TcpAddress:
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65535:
        raise _unlike(what, whole or value)
    if bracketed:
        host = host[1:-1]
        if ":" not in host or not _is_ip(host):
            raise _unlike(what, whole or value)
    elif host and not _is_ip4(host) and not _is_name(host):
        raise _unlike(what, whole or value)
    return TcpAddress(host, int(port))


def _is_name(host: str) -> bool:
    # All digits and dots but no IPv4 address: a slip of the pen such as 10.0.0.256, and no name that exists.
    return len(host) <= 253 and bool(_NAME.fullmatch(host)) and not re.fullmatch(r"[\d.]+", host)


def _is_ip4(host: str) -> bool:
    return ":" not in host and _is_ip(host)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_GROUP = re.compile(r"\\(?:(\d{1,2})|g<(\w+)>)", re.ASCII)


def parse_replacement(text: str, pattern: re.Pattern[str]) -> tuple[str | int, ...]:
    """What a match of the pattern is replaced by: literal pieces of a request target, and numbers of groups."""
    pieces: list[str | int] = []
    at = 0
    for found in _GROUP.finditer(text):
        name = found[1] or found[2]
        number = int(name) if name.isdecimal() else pattern.groupindex.get(name, -1)
        if not 0 <= number <= pattern.groups:
            raise ValueError(f"there is no group {found[0]} in the regular expression")
        pieces += [text[at : found.start()], number]
        at = found.end()
    pieces.append(text[at:])
    if not text.startswith("/") or not all(re.fullmatch(TARGET_QUERY, piece) for piece in pieces if type(piece) is str):
        raise _unlike(r'a path in its escaped form such as "/new/\1" or "/new/\g<name>"', text)
    return tuple(pieces)
