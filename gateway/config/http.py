"""Fields that say something in the words of HTTP: methods, statuses, header fields, paths and locations."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, PlainValidator, WithJsonSchema

from gateway.config import values
from gateway.config.addresses import authority
from gateway.config.environment import as_read
from gateway.config.fields import GUARDED, matching, text
from gateway.config.quantities import integer, whole
from gateway.config.values import shown

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, section 5.6.2

Method = Annotated[
    str,
    matching(r"(?![^A-Z]*[a-z])" + TOKEN, 'a method in upper case such as "GET"'),
    text(r"[!#$%&'*+.^_`|~0-9A-Z-]+", examples=["GET", "POST"]),
]
FieldName = Annotated[str, matching(TOKEN, 'a header name such as "x-tenant"'), AfterValidator(str.lower), text(TOKEN)]
# Line ends and NUL would let a value become a second field; the other controls are of no use to anybody.
FieldValue = Annotated[
    str,
    matching(r"([^\x00-\x20\x7f]([^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?", "a header value on one line"),
    text(r"[^\x00-\x08\x0a-\x1f\x7f]*"),
]


def _distinct(table: object) -> object:
    """Field names that differ only in case are one name: the second would silently win."""
    if isinstance(table, dict):
        lowered: dict[str, str] = {}
        for name in table:
            first = lowered.setdefault(str(name).lower(), str(name))
            if first != name:
                raise ValueError(f"{shown(first)} and {shown(name)} are the same header")
    return table


Fields = Annotated[dict[FieldName, FieldValue], BeforeValidator(_distinct), GUARDED]
CookieName = Annotated[str, matching(TOKEN, 'the name of a cookie such as "gw_app"'), text(TOKEN)]

_HASH_KEY = rf"client_ip|path|host|header:{TOKEN}|cookie:{TOKEN}|query:[^\s&=]+"
HashKey = Annotated[
    str,
    matching(_HASH_KEY, '"client_ip", "path", "host", "header:NAME", "cookie:NAME" or "query:NAME"'),
    text(f"({_HASH_KEY})"),
]

_ATTRIBUTE = rf"header:{TOKEN}|cookie:{TOKEN}"
Attribute = Annotated[str, matching(_ATTRIBUTE, '"header:NAME" or "cookie:NAME"'), text(f"({_ATTRIBUTE})")]

_CREDENTIAL = rf"{_ATTRIBUTE}|query:[^\s&=]+"
CredentialSource = Annotated[
    str, matching(_CREDENTIAL, '"header:NAME", "cookie:NAME" or "query:NAME"'), text(f"({_CREDENTIAL})")
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

Status = Annotated[int, PlainValidator(whole(200, 599)), integer(200, 599)]
ErrorStatus = Annotated[
    str, matching(r"[45](\d\d|xx)", 'a status such as "404", "4xx" or "5xx"'), text(r"[45](\d\d|xx)")
]


def _status_range(value: str) -> str:
    found = re.fullmatch(r"([1-9]\d\d)(?:-([1-9]\d\d))?", value, re.ASCII)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ValueError(f'expected a status or a range such as "200-399", got {shown(value)}')
    return value


StatusRange = Annotated[str, AfterValidator(_status_range), text(r"[1-9]\d\d(-[1-9]\d\d)?", examples=["200-399"])]

_REDIRECTS = (301, 302, 303, 307, 308)


def _redirect_status(value: object) -> int:
    number = as_read(value)
    if isinstance(number, bool) or number not in _REDIRECTS:
        raise ValueError(f"expected {', '.join(map(str, _REDIRECTS[:-1]))} or {_REDIRECTS[-1]}, got {shown(value)}")
    return int(number)


RedirectStatus = Annotated[int, PlainValidator(_redirect_status), WithJsonSchema({"enum": [*_REDIRECTS]})]

_RETRY_ON = r"connect|reset|timeout|malformed|429|500|502|503|504"
RetryOn = Annotated[
    str,
    matching(_RETRY_ON, '"connect", "reset", "timeout", "malformed", "429", "500", "502", "503" or "504"'),
    text(f"({_RETRY_ON})"),
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


def _url_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f'expected a path that starts with "/", got {shown(value)}')
    if found := re.search(r"[?#\x00-\x1f\x7f]", value):
        raise ValueError(f"a path is matched without {shown(found[0])} and what follows it, got {shown(value)}")
    return value


UrlPath = Annotated[str, AfterValidator(_url_path), text(r"/[^?#]*", examples=["/", "/v1"])]


def _target_path(value: str) -> str:
    if not value.startswith("/") or not re.fullmatch(values.TARGET_PATH, value):
        raise ValueError(f'expected a path in its escaped form such as "/new", got {shown(value)}')
    return value


TargetPath = Annotated[str, AfterValidator(_target_path), text(values.TARGET_PATH, examples=["/new"])]

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
        authority(found["authority"])
    return value


Location = Annotated[
    str,
    AfterValidator(_location),
    WithJsonSchema(
        {"type": "string", "pattern": "^(https?://[^/]|/([^/]|$))", "examples": ["/new", "https://example.com/new"]}
    ),
]
