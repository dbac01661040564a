"""The kind `api_key`: a long random text that a program shows with each request."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from hashlib import sha256
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, WithJsonSchema, model_validator

from gateway.config.fields import FilePath, Flag, NonEmpty
from gateway.config.http import CookieName, FieldName, FieldValue
from gateway.config.section import Section
from gateway.middleware.identity import told
from gateway.middleware.identity.challenge import challenge
from gateway.middleware.identity.credential import Ambiguous, parameters_of, source_of
from gateway.middleware.identity.htpasswd import lines_of
from gateway.middleware.identity.watched import Watched
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.written import OwnName
from gateway.wire import RequestHead

_LONGEST_FILE = 16 * 1024 * 1024  # bytes; some 200,000 keys
_HASH = re.compile(r"[0-9A-Fa-f]{64}")
_OF_NOTHING = sha256(b"").hexdigest()


def _hash(value: str) -> str:
    """The text that stands there is not repeated: it may be the key itself."""
    if not _HASH.fullmatch(value):
        raise ValueError("expected the SHA-256 of a key as 64 hexadecimal digits (printf %s KEY | sha256sum)")
    if value.lower() == _OF_NOTHING:
        raise ValueError("that is the SHA-256 of no text at all")
    return value.lower()


_Sha256 = Annotated[str, AfterValidator(_hash), WithJsonSchema({"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"})]


class ApiKeyOf(Section):
    """A key that is known. While it is replaced there are two of one name."""

    name: FieldValue
    """Whose it is, as logs and the application are told."""
    sha256: _Sha256
    """The SHA-256 of the key, in hexadecimal digits: whoever reads this file doesn't know the key."""


class Options(Base):
    kind: Literal["api_key"] = "api_key"
    header: FieldName | None = None
    """The field that holds the key. Exactly one of this, `query` and `cookie` is given."""
    query: NonEmpty | None = None
    """The query parameter that holds it. The access log doesn't show it."""
    cookie: CookieName | None = None
    """The cookie that holds it."""
    keys: tuple[ApiKeyOf, ...] = ()
    """The keys that are known."""
    keys_file: FilePath | None = None
    """More of them: a file with a line `name:sha256` for each, which is read again when it changes."""
    name_header: OwnName | None = None
    """The field in which the application is told the name of the key. What a client sends under it is dropped."""
    forward: Flag = False
    """Whether the key goes on to the application."""
    realm: FieldValue = "api"
    """What clients are told that the key is for."""

    FILES: ClassVar[tuple[str, ...]] = ("keys_file",)

    @model_validator(mode="after")
    def _has_one_place_and_keys(self) -> Self:
        if [self.header, self.query, self.cookie].count(None) != 2:
            raise ValueError("expected exactly one of header, query and cookie")
        if not self.keys and self.keys_file is None:
            raise ValueError("expected keys or keys_file")
        if self.name_header is not None and self.name_header == self.header:
            raise ValueError("header and name_header are the same field")
        _named(self.keys)
        return self

    @property
    def source(self) -> str:
        if self.header is not None:
            return f"header:{self.header}"
        return f"cookie:{self.cookie}" if self.cookie is not None else f"query:{self.query}"

    def secret_parameters(self) -> tuple[str, ...]:
        return parameters_of((self.source,))


Names = Mapping[bytes, str]


def _named(keys: tuple[ApiKeyOf, ...]) -> dict[bytes, str]:
    """Names by digest. Raises ValueError."""
    named: dict[bytes, str] = {}
    for key in keys:
        other = named.setdefault(bytes.fromhex(key.sha256), key.name)
        if other != key.name:
            raise ValueError(f'"{other}" and "{key.name}" have the same key')
    return named


class ApiKey(Middleware):
    """Lets only requests pass with a key that is known by its hash. Refuses others with 401 (`api_key_missing`,
    `api_key_unknown`). A key should have 128 random bits or more, as `openssl rand -hex 24` makes them: its hash is a
    fast one. Holds back no body.

    Order: inside `cors` and limits by address; outside of limits by user, caches and whatever else goes by who the
    client is."""

    OPTIONS = Options
    EXAMPLE = (
        '{ kind = "api_key", header = "x-api-key", keys = [{ name = "ci", '
        'sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }] }'
    )

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._own = _named(options.keys)
        self._known: Names = self._own
        self._file: Watched[Names] | None = None
        if options.keys_file is not None:
            self._file = Watched(options.keys_file, self._with_own, _LONGEST_FILE)
            self._known = self._file.value
        self._find, self._take_out = source_of(options.source)
        self._header = options.name_header
        self._takes_out = not options.forward and options.header is None
        # Removed together from what passes; whatever doesn't pass isn't read by anybody.
        names = (options.name_header, None if options.forward else options.header)
        self._names = frozenset(name.encode() for name in names if name is not None)
        self._challenge = challenge("ApiKey", realm=options.realm)

    def _with_own(self, data: bytes) -> Names:
        """All that are known, when the file says this. Raises ValueError with a sentence."""
        known = dict(self._own)
        for number, name, text in lines_of(data):
            try:
                other = known.setdefault(bytes.fromhex(_hash(text)), name)
            except ValueError as error:
                raise ValueError(f'line {number}, key "{name}": {error}') from None
            if other != name:
                raise ValueError(f'line {number}, key "{name}": "{other}" has the same key')
        return known

    async def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = scope["gateway"]
        head: RequestHead = scope["headers"]
        try:
            key = self._find(head)
        except Ambiguous:
            return self._place.refuse(exchange, send, "api_key_unknown", self._challenge)
        if not key:
            return self._place.refuse(exchange, send, "api_key_missing", self._challenge)
        if self._file is not None:
            self._known = self._file.look()
        # How long the look-up takes depends on the digest, and which digest a guess has nobody chooses.
        name = self._known.get(sha256(key).digest())
        if name is None:
            return self._place.refuse(exchange, send, "api_key_unknown", self._challenge)
        exchange.user = name
        if self._names:
            head.drop(self._names)
        if self._takes_out:
            self._take_out(head)
        if self._header is not None:
            head.add(told.line(self._header, name))
        return self._app(scope, receive, send)
