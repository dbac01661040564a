"""Which fields a layer may write under a name that a configuration gives: one table for all kinds that do. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from gateway.config.http import FieldName
from gateway.wire import HOP_BY_HOP

# What frames a message, or ends at this hop: nobody else's to write, in either direction.
_FRAMING = HOP_BY_HOP | {b"content-length"}
# Host is the upstream's to say (`host`), the others are rules of HTTP.
_OF_REQUESTS = frozenset((b"host", b"via", b"expect", b"max-forwards"))
_OF_RESPONSES = frozenset((b"date", b"via"))
# What means something to everybody, so that a layer can't make it mean what it wants to tell: it would take the place
# of the message's own, or be another layer's credential.
_MEANT = (
    _FRAMING
    | _OF_REQUESTS
    | _OF_RESPONSES
    | frozenset(
        (
            b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"accept-ranges", b"age", b"allow",
            b"authentication-info", b"authorization", b"cache-control", b"cookie", b"etag", b"expires", b"forwarded",
            b"last-modified", b"link", b"location", b"origin", b"pragma", b"range", b"referer", b"retry-after",
            b"server", b"set-cookie", b"strict-transport-security", b"traceparent", b"tracestate", b"user-agent",
            b"vary", b"www-authenticate", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip",
        )
    )
)  # fmt: skip
_MEANT_PREFIXES = ("access-control-", "content-", "if-", "proxy-", "sec-")


def _edited(name: str) -> str:
    if name.lower().encode() in _FRAMING:
        raise ValueError(f"{name} belongs to the connection and is always written anew")
    return name


def in_request(name: str) -> str:
    """Raises ValueError for a field of requests that no layer may write."""
    if name.lower().encode() in _OF_REQUESTS:
        raise ValueError(f"{name} is written by the gateway itself")
    return _edited(name)


def in_response(name: str) -> str:
    """Raises ValueError for a field of responses that no layer may write."""
    if name.lower().encode() in _OF_RESPONSES:
        raise ValueError(f"{name} is written by the gateway itself")
    return _edited(name)


def passed_on(name: str) -> str:
    """The same for a field that the application is to get, and that a client's must not be taken for. Such a one with
    a "_" would be another one to whoever reads it as CGI does."""
    if "_" in name:
        raise ValueError(f'"{name}" has a "_", and such fields of a request are dropped')
    return in_request(name)


def _own(name: str) -> str:
    if name.lower().encode() in _MEANT or name.lower().startswith(_MEANT_PREFIXES):
        raise ValueError(f'"{name}" means something else to everybody; a field of its own is needed, such as "x-user"')
    return passed_on(name)


# A field that a configuration edits as it likes; the direction is yet to be looked at.
EditedName = Annotated[FieldName, AfterValidator(_edited)]
# A field that holds what a layer has to tell, and nothing else.
OwnName = Annotated[FieldName, AfterValidator(_own)]
