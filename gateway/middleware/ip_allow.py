"""Who may come in, by address."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import TypeAdapter, ValidationError, model_validator

from gateway.config.addresses import TrustedProxy
from gateway.config.fields import FilePath
from gateway.errors import Absent, StartError
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.ranges import Ranges

_MOST_BYTES = 64 * 1024 * 1024  # of a file: some three million networks


class Options(Base):
    kind: Literal["ip_allow"] = "ip_allow"
    """Lets clients in by their address."""
    allow: tuple[TrustedProxy, ...] = ()
    """Networks or addresses that are let in, and "unix" for whoever connects by a unix socket. Everybody is whom
    nothing denies, when neither this nor `allow_file` is given."""
    deny: tuple[TrustedProxy, ...] = ()
    """Networks or addresses that are not let in, also where `allow` covers them."""
    allow_file: FilePath | None = None
    """A file with more of `allow`: one network on each line, "#" begins a comment. It is read at a start and at each
    reload. A relative path starts at the directory of the configuration file. A file that holds nothing lets nobody
    in."""
    deny_file: FilePath | None = None
    """The same for `deny`."""

    FILES: ClassVar[tuple[str, ...]] = ("allow_file", "deny_file")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.allow or self.deny or self.allow_file or self.deny_file):
            raise ValueError("expected one of allow, deny, allow_file and deny_file")
        return self


class IpAllow(Middleware):
    """Lets a client in or answers 403 (`address_denied`), by the address that the listener believes: with
    `trusted_proxies` that of the client behind the proxy. What is denied is denied whatever allows it. IPv4 addresses
    in IPv6 form are read as IPv4. It never looks at a body.

    Order: before everything that costs something, such as authentication, and inside whatever should see refusals too,
    such as CORS and compression."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "ip_allow", allow = ["10.0.0.0/8", "::1"], deny = ["10.6.0.0/16"] }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._denied = Ranges([*options.deny, *_listed("deny_file", options.deny_file)])
        self._allowed: Ranges | None = None
        if options.allow or options.allow_file:
            self._allowed = Ranges([*options.allow, *_listed("allow_file", options.allow_file)])

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Any = scope["gateway"]
        client = exchange.client
        if self._denied.covers(client) or not (self._allowed is None or self._allowed.covers(client)):
            return self._place.refuse(exchange, send, "address_denied")
        return self._app(scope, receive, send)


_ONE: TypeAdapter[str] = TypeAdapter(TrustedProxy)


def _listed(key: str, path: str | None) -> Iterable[str]:
    """The networks in a file. Raises StartError."""
    if path is None:
        return
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        text = data.decode()
    except FileNotFoundError:
        raise Absent(f"{key}: {path}: there is no such file") from None
    except OSError as error:
        raise StartError(f"{key}: {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"{key}: {path} is not UTF-8") from None
    if len(data) > _MOST_BYTES:
        raise StartError(f"{key}: {path} is larger than 64 MiB")
    for number, line in enumerate(text.split("\n"), 1):
        network = line.partition("#")[0].strip()
        if not network:
            continue
        try:
            yield _ONE.validate_python(network)
        except ValidationError as error:
            what = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise StartError(f"{key}: {path}:{number}: {what}") from None
