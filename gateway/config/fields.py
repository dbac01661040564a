"""The types that the fields of the model are made of.

Each is a plain Python type that knows how it is written in the file, how it is written back, and how it looks in the
JSON Schema. They replace pydantic's own validators, so a wrong value costs exactly one error, in our words.
"""

from __future__ import annotations

import ipaddress
import re
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from gateway.config import values
from gateway.config.environment import as_read
from gateway.config.values import Address, Origin, shown

MOST = (1 << 31) - 1  # what fits the C int that most of these numbers end up in
NAME = r"[A-Za-z0-9_.-]{1,64}"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, section 5.6.2
_LONGEST_REGEX = 1000
_FASTEST = 1_000_000  # requests in a second: more than a machine answers, and what a microsecond can tell apart


def _whole(least: int, most: int = MOST) -> Callable[[object], int]:
    """A validator for whole numbers in this range."""

    def check(value: object) -> int:
        number = as_read(value)
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"expected a whole number, got {shown(value)}")
        if not least <= number <= most:
            bounds = f"from {least} to {most}" if most < MOST or number > most else f"of at least {least}"
            raise ValueError(f"expected a whole number {bounds}, got {shown(number)}")
        return number

    return check


def _integer(least: int, most: int | None = None) -> WithJsonSchema:
    bounds = {"minimum": least} if most is None else {"minimum": least, "maximum": most}
    return WithJsonSchema({"type": "integer", **bounds})


Count = Annotated[int, PlainValidator(_whole(1)), _integer(1)]
CountOrZero = Annotated[int, PlainValidator(_whole(0)), _integer(0)]
Weight = Annotated[int, PlainValidator(_whole(1, 65535)), _integer(1, 65535)]
WeightOrZero = Annotated[int, PlainValidator(_whole(0, 65535)), _integer(0, 65535)]
Port = Annotated[int, PlainValidator(_whole(1, 65535)), _integer(1, 65535)]
PrefixLength = Annotated[int, PlainValidator(_whole(1, 128)), _integer(1, 128)]
Priority = Annotated[int, PlainValidator(_whole(-MOST)), WithJsonSchema({"type": "integer"})]
Status = Annotated[int, PlainValidator(_whole(200, 599)), _integer(200, 599)]

_REDIRECTS = (301, 302, 303, 307, 308)


def _redirect_status(value: object) -> int:
    number = as_read(value)
    if isinstance(number, bool) or number not in _REDIRECTS:
        raise ValueError(f"expected {', '.join(map(str, _REDIRECTS[:-1]))} or {_REDIRECTS[-1]}, got {shown(value)}")
    return int(number)


RedirectStatus = Annotated[int, PlainValidator(_redirect_status), WithJsonSchema({"enum": [*_REDIRECTS]})]


def _flag(value: object) -> bool:
    flag = as_read(value)
    if not isinstance(flag, bool):
        raise ValueError(f"expected true or false, got {shown(value)}")
    return flag


Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema({"type": "boolean"})]


# Two generations of them and the observers fit on the scoreboard (`scoreboard.SEATS`), with room for one more drain.
MOST_WORKERS = 128


def _workers(value: object) -> int | str:
    if value == "auto":
        return "auto"
    if isinstance(value, str) and not isinstance(as_read(value), int):
        raise ValueError(f'expected a whole number or "auto", got {shown(value)}')
    return _whole(1, MOST_WORKERS)(value)


Workers = Annotated[
    int | Literal["auto"],
    PlainValidator(_workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_WORKERS}, {"const": "auto"}]}),
]

Duration = Annotated[
    float,
    PlainValidator(values.parse_duration),
    PlainSerializer(values.format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{values.DURATION}$", "examples": ["250ms", "30s", "5m", "1h"]}),
]
Size = Annotated[
    int,
    PlainValidator(values.parse_size),
    PlainSerializer(values.format_size, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{values.SIZE}$", "examples": ["64KiB", "10MiB", "1GB"]}),
]


def _rate(value: object) -> float:
    rate = values.parse_rate(value)
    if not 0 < rate <= _FASTEST:
        raise ValueError(f"expected a rate above 0 and at most a million in a second, got {shown(value)}")
    return rate


Rate = Annotated[
    float,
    PlainValidator(_rate),
    PlainSerializer(values.format_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{values.RATE}$", "examples": ["50/s", "100/m", "1000/h"]}),
]
ByteRate = Annotated[
    float,
    PlainValidator(values.parse_byte_rate),
    PlainSerializer(values.format_byte_rate, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{values.BYTE_RATE}$", "examples": ["1KiB/s", "10MiB/m"]}),
]
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


def _http_url(value: object) -> str:
    values.parse_http_url(value)
    return str(value)


HttpUrl = Annotated[
    str,
    PlainValidator(_http_url),
    WithJsonSchema(
        {"type": "string", "pattern": r"^https?://[^/?#@]+([/?][^#]*)?$", "examples": ["https://id.example.com/keys"]}
    ),
]


def _matching(pattern: str, what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"expected {what}, got {shown(value)}")
        return value

    return AfterValidator(check)


def _text(pattern: str, **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", **more})


Name = Annotated[str, _matching(NAME, "1 to 64 letters, digits, '_', '.' or '-'"), _text(NAME)]
NonEmpty = Annotated[str, _matching(r"[^\0]+", "some text"), _text(r"[\s\S]+")]
Texts = Annotated[
    tuple[NonEmpty, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
FilePath = Annotated[str, _matching(r"[^\0]*[^\0/]", "the path of a file"), _text(r"[\s\S]*[^/]")]
Method = Annotated[
    str,
    _matching(r"(?![^A-Z]*[a-z])" + TOKEN, 'a method in upper case such as "GET"'),
    _text(r"[!#$%&'*+.^_`|~0-9A-Z-]+", examples=["GET", "POST"]),
]
# Line ends and NUL would let a value become a second field; the other controls are of no use to anybody.
FieldValue = Annotated[
    str,
    _matching(r"([^\x00-\x20\x7f]([^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?", "a header value on one line"),
    _text(r"[^\x00-\x08\x0a-\x1f\x7f]*"),
]
FieldName = Annotated[
    str, _matching(TOKEN, 'a header name such as "x-tenant"'), AfterValidator(str.lower), _text(TOKEN)
]


def _upgrade(value: object) -> tuple[str, ...] | str:
    """Tokens in lower case, as they are compared (RFC 9110, section 7.8)."""
    if value == "any":
        return "any"
    if not isinstance(value, list | tuple):
        raise ValueError(f'expected an array of tokens such as ["websocket"], or "any", got {shown(value)}')
    for item in value:
        if not isinstance(item, str) or not re.fullmatch(f"{TOKEN}(/{TOKEN})?", item):
            raise ValueError(f'expected a token such as "websocket", got {shown(item)}')
    return tuple(dict.fromkeys(item.lower() for item in value))


Upgrade = Annotated[
    tuple[str, ...] | Literal["any"],
    PlainValidator(_upgrade),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string", "pattern": f"^{TOKEN}(/{TOKEN})?$"}},
                {"const": "any"},
            ],
        }
    ),
]
ErrorStatus = Annotated[
    str, _matching(r"[45](\d\d|xx)", 'a status such as "404", "4xx" or "5xx"'), _text(r"[45](\d\d|xx)")
]
LogTarget = Annotated[
    FilePath,
    _text(r"[\s\S]*[^/]", examples=["stdout", "stderr", "off", "/var/log/gateway/access.log"]),
]


def _error_log(value: str) -> str:
    if value in ("stdout", "off"):
        raise ValueError(f'expected "stderr" or the path of a file, got {shown(value)}')
    return value


def _percentage(value: object) -> float:
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,3}(\.\d{1,3})?%", value, re.ASCII):
        raise ValueError(f'expected a percentage such as "50%", got {shown(value)}')
    share = float(value[:-1]) / 100
    if not 0 < share <= 1:
        raise ValueError(f'expected a percentage above 0 and at most "100%", got {shown(value)}')
    return share


def _of_a_hundred(is_fit: Callable[[float], bool], range: str) -> Callable[[object], float]:
    def read(value: object) -> float:
        number = as_read(value)
        if isinstance(number, bool) or not isinstance(number, int | float) or not is_fit(number):
            raise ValueError(f"expected a number {range}, got {shown(value)}")
        return float(number)

    return read


Percent = Annotated[
    float,
    PlainValidator(_of_a_hundred(lambda number: 0 < number <= 100, "above 0 and at most 100")),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 100, "examples": [100, 0.5]}),
]
PercentOrZero = Annotated[
    float,
    PlainValidator(_of_a_hundred(lambda number: 0 <= number <= 100, "from 0 to 100")),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
]
Percentage = Annotated[
    float,
    PlainValidator(_percentage),
    PlainSerializer(lambda share: f"{share * 100:g}%", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,3}(\.\d{1,3})?%$", "examples": ["20%", "50%"]}),
]


def _status_range(value: str) -> str:
    found = re.fullmatch(r"([1-9]\d\d)(?:-([1-9]\d\d))?", value, re.ASCII)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ValueError(f'expected a status or a range such as "200-399", got {shown(value)}')
    return value


_HASH_KEY = rf"client_ip|path|host|header:{TOKEN}|cookie:{TOKEN}|query:[^\s&=]+"

HashKey = Annotated[
    str,
    _matching(_HASH_KEY, '"client_ip", "path", "host", "header:NAME", "cookie:NAME" or "query:NAME"'),
    _text(f"({_HASH_KEY})"),
]

_ATTRIBUTE = rf"header:{TOKEN}|cookie:{TOKEN}"

Attribute = Annotated[str, _matching(_ATTRIBUTE, '"header:NAME" or "cookie:NAME"'), _text(f"({_ATTRIBUTE})")]

_CREDENTIAL = rf"{_ATTRIBUTE}|query:[^\s&=]+"

CredentialSource = Annotated[
    str, _matching(_CREDENTIAL, '"header:NAME", "cookie:NAME" or "query:NAME"'), _text(f"({_CREDENTIAL})")
]

_RETRY_ON = r"connect|reset|timeout|malformed|429|500|502|503|504"

RetryOn = Annotated[
    str,
    _matching(_RETRY_ON, '"connect", "reset", "timeout", "malformed", "429", "500", "502", "503" or "504"'),
    _text(f"({_RETRY_ON})"),
]


def _hedge_after(value: str) -> str:
    if not re.fullmatch(r"p([1-9]\d?)(\.\d)?", value, re.ASCII):
        try:
            values.parse_duration(value)
        except ValueError:
            raise ValueError(f'expected a percentile such as "p95" or a duration, got {shown(value)}') from None
    return value


HedgeAfter = Annotated[
    str,
    AfterValidator(_hedge_after),
    _text(rf"(p[1-9]\d?(\.\d)?|{values.DURATION})", examples=["p95", "100ms"]),
]


def _secret(value: object) -> values.Secret:
    """What is wrong with one is said without showing it."""
    if not isinstance(value, str):
        raise ValueError('expected a string, { env = "NAME", default = "TEXT" } or { file = "PATH" }')
    if not value:
        raise ValueError("a secret can't be empty")
    return values.Secret(value)


Secret = Annotated[
    str,
    PlainValidator(_secret),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"env": {"type": "string"}, "default": {"type": "string"}},
                    "required": ["env"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {"file": {"type": "string"}},
                    "required": ["file"],
                    "additionalProperties": False,
                },
            ]
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
            _whole(1, 65535)(int(port))
    except ValueError:
        raise ValueError(f'expected an address such as "10.0.0.53" or "10.0.0.53:5353", got {shown(value)}') from None
    return value


IPAddressAndPort = Annotated[
    str,
    AfterValidator(_ip_address_and_port),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.53", "10.0.0.53:5353", "[2001:db8::53]:53"]}),
]

def _port_range(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and re.fullmatch(r"\d{1,5}(-\d{1,5})?", text, re.ASCII):
        first, _, last = text.partition("-")
        if 1 <= int(first) <= int(last or first) <= 65535:
            return text
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
_DNS_NAME = r"[A-Za-z0-9_:]([A-Za-z0-9_.:-]{0,252})"
DnsName = Annotated[str, _matching(_DNS_NAME, 'a name such as "app.internal"'), _text(_DNS_NAME)]
CookieName = Annotated[str, _matching(TOKEN, 'the name of a cookie such as "gw_app"'), _text(TOKEN)]

StatusRange = Annotated[str, AfterValidator(_status_range), _text(r"[1-9]\d\d(-[1-9]\d\d)?", examples=["200-399"])]

ErrorLogTarget = Annotated[
    FilePath,
    AfterValidator(_error_log),
    _text(r"[\s\S]*[^/]", examples=["stderr", "/var/log/gateway/error.log"]),
]


def _socket_path(value: str) -> str:
    if len(value.encode()) > values.SUN_PATH:
        raise ValueError(f"the path of a unix socket has at most {values.SUN_PATH} bytes, got {shown(value)}")
    return value


SocketPath = Annotated[FilePath, AfterValidator(_socket_path), _text(r"[\s\S]*[^/]")]


def _url_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f'expected a path that starts with "/", got {shown(value)}')
    if found := re.search(r"[?#\x00-\x1f\x7f]", value):
        raise ValueError(f"a path is matched without {shown(found[0])} and what follows it, got {shown(value)}")
    return value


def _regex(value: str) -> str:
    if len(value) > _LONGEST_REGEX:
        raise ValueError(f"expected a regular expression of at most {_LONGEST_REGEX} characters, got {len(value)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a pattern that a later Python reads in another way
            re.compile(value)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


UrlPath = Annotated[str, AfterValidator(_url_path), _text(r"/[^?#]*", examples=["/", "/v1"])]
Regex = Annotated[str, AfterValidator(_regex), WithJsonSchema({"type": "string", "maxLength": _LONGEST_REGEX})]


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


def _authority(value: str) -> str:
    host, _, port = value.rpartition(":") if re.search(r":\d+$", value) else (value, "", "")
    try:
        if host.startswith("*") or (port and not 0 < int(port) < 65536):
            raise ValueError
        return _host(host) + (f":{int(port)}" if port else "")
    except ValueError:
        raise ValueError(f'expected a host such as "example.com" or "example.com:8080", got {shown(value)}') from None


def _host_sent(value: str) -> str:
    return value if value in ("preserve", "endpoint") else _authority(value)


HostSent = Annotated[
    str,
    AfterValidator(_host_sent),
    WithJsonSchema({"type": "string", "examples": ["preserve", "endpoint", "app.internal:8080"]}),
]


def _target_path(value: str) -> str:
    if not value.startswith("/") or not re.fullmatch(values.TARGET_PATH, value):
        raise ValueError(f'expected a path in its escaped form such as "/new", got {shown(value)}')
    return value


TargetPath = Annotated[str, AfterValidator(_target_path), _text(values.TARGET_PATH, examples=["/new"])]

# "//host" and "/\\host" are read as a URL of another host.
_LOCATION = re.compile(
    rf"(?:https?://(?P<authority>[^/?#]*)(?:/{values.TARGET_PATH})?|/(?!/){values.TARGET_PATH})"
    rf"(?:\?{values.TARGET_QUERY})?(?:#{values.TARGET_QUERY})?"
)


def _location(value: str) -> str:
    found = _LOCATION.fullmatch(value)
    if found is None:
        raise ValueError(
            f'expected a path such as "/new" or a URL such as "https://example.com/new", got {shown(value)}'
        )
    if found["authority"] is not None:
        _authority(found["authority"])
    return value


Location = Annotated[
    str,
    AfterValidator(_location),
    WithJsonSchema(
        {"type": "string", "pattern": "^(https?://[^/]|/([^/]|$))", "examples": ["/new", "https://example.com/new"]}
    ),
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


Network = Annotated[
    str, AfterValidator(_network), WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "2001:db8::/32"]})
]


def _trusted_proxy(value: str) -> str:
    if value == "unix":
        return value
    try:
        return _network(value)
    except ValueError as error:
        raise ValueError(str(error).replace('"10.0.0.0/8",', '"10.0.0.0/8" or "unix",')) from None


TrustedProxy = Annotated[
    str,
    AfterValidator(_trusted_proxy),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "127.0.0.1", "2001:db8::/32", "unix"]}),
]


def _target_network(value: str) -> str:
    if value == "public":
        return value
    try:
        return _network(value)
    except ValueError as error:
        raise ValueError(str(error).replace('"10.0.0.0/8",', '"10.0.0.0/8" or "public",')) from None


TargetNetwork = Annotated[
    str,
    AfterValidator(_target_network),
    WithJsonSchema({"type": "string", "examples": ["public", "10.0.0.0/8", "2001:db8::/32"]}),
]


def _some(items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not items:
        raise ValueError("expected at least one item, got none")
    return items


# Not pydantic's min_length: that one counts the right items only, and so tells of one mistake twice.
AT_LEAST_ONE = (AfterValidator(_some), Field(json_schema_extra={"minItems": 1}))


def _distinct(table: object) -> object:
    """Field names that differ only in case are one name: the second would silently win."""
    if isinstance(table, dict):
        lowered: dict[str, str] = {}
        for name in table:
            first = lowered.setdefault(str(name).lower(), str(name))
            if first != name:
                raise ValueError(f"{shown(first)} and {shown(name)} are the same header")
    return table


# Whose values are not shown where their names are telling.
GUARDED = AfterValidator(lambda value: values.guarded(value))

Fields = Annotated[dict[FieldName, FieldValue], BeforeValidator(_distinct), GUARDED]


def _no_empty_secret(value: Any) -> Any:
    if isinstance(value, values.Secret) and not value:
        raise ValueError("a secret can't be empty")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _no_empty_secret(item)
    return value


# What is handed on to somebody else's code.
PluginOptions = Annotated[dict[str, Any], AfterValidator(_no_empty_secret), GUARDED]
