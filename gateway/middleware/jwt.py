"""The kind `jwt`: requests with a signed token (RFC 7519, used as RFC 6750 and RFC 8725 have it)."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable
from hashlib import sha256
from typing import Annotated, ClassVar, Literal, Self

from pydantic import model_validator

from gateway.config.fields import AT_LEAST_ONE, FilePath, Flag, NonEmpty, Secret, Texts
from gateway.config.http import CredentialSource, FieldValue
from gateway.config.quantities import CountOrZero, Duration, Size
from gateway.config.values import parse_duration, parse_size
from gateway.documents import Wanted
from gateway.errors import StartError
from gateway.middleware.identity import told
from gateway.middleware.identity.challenge import challenge
from gateway.middleware.identity.claims import Claims, Rules, claim, field_text, scopes_of, user_of
from gateway.middleware.identity.credential import Ambiguous, Find, Source, parameters_of, source_of
from gateway.middleware.identity.issuer_keys import Keys, KeysOfDocument, KeysOfFile, keys_of_secret
from gateway.middleware.identity.jose import TokenRefused, claims_of, read
from gateway.middleware.identity.keyset import Algorithm, KeySet
from gateway.middleware.identity.recent import Recent
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.written import OwnName
from gateway.wire import RequestHead

_LONGEST_BELIEVED = 300.0  # seconds until a token is verified again, though it lives longer
_LONGEST_KEPT = 2048  # bytes
_ANYBODY = "*"
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, section 3.3
_LOOPBACK = re.compile(r"http://(localhost|127\.[0-9.]+|\[::1\])(:\d+)?(/.*)?")


class Options(Base):
    kind: Literal["jwt"] = "jwt"
    jwks: NonEmpty | None = None
    """The keys of the issuer, as a JWK Set: a file, which is read again when it changes, or an address such as
    "https://id.example/jwks.json". Exactly one of this and `secret` is given."""
    secret: Secret | None = None
    """The key for HS256, HS384 and HS512, at least as long as the hash."""
    algorithms: Annotated[tuple[Algorithm, ...], *AT_LEAST_ONE]
    """The signatures that are accepted, whatever a token says of itself."""
    issuer: Texts = ()
    """Who may have issued it (`iss`): one name or several. Not looked at when empty."""
    audience: Texts = ()
    """Whom it must be meant for (`aud`): one name or several, of which one is enough; "*" for anybody. When empty a
    token that is meant for somebody is refused."""
    scopes: tuple[NonEmpty, ...] = ()
    """Scopes that it must have (`scope` or `scp`), all of them; otherwise 403."""
    required: tuple[NonEmpty, ...] = ()
    """Claims that it must have besides `exp`."""
    types: tuple[NonEmpty, ...] = ()
    """What `typ` must say, such as "at+jwt"; anything when empty."""
    leeway: Duration = 30.0
    """How far the clocks of issuer and gateway may be apart."""
    max_age: Duration | None = None
    """How old it may be by `iat`; as old as `exp` lets it be when absent."""
    sources: Annotated[tuple[CredentialSource, ...], *AT_LEAST_ONE] = ("header:authorization",)
    """Where it stands in a request: "header:NAME", "cookie:NAME", "query:NAME". "header:authorization" is
    `Authorization: Bearer`. A request with two tokens that differ is refused."""
    optional: Flag = False
    """Whether requests without a token pass. One with a bad token is refused all the same."""
    claims_to_headers: dict[NonEmpty, OwnName] = {}
    """Claims that the application is told in fields, as in { sub = "x-user" }; "a.b" is b inside of a. What a client
    sends under these names is dropped."""
    user_claim: NonEmpty = "sub"
    """The claim that is the user's name in logs and templates."""
    forward: Flag = True
    """Whether the token goes on to the application. One in the query never does, nor does the access log show it: what
    stands in a target is written down in too many places."""
    realm: FieldValue = "api"
    """What clients are told that the token is for."""
    max_token: Size = parse_size("16KiB")
    """Longer ones are refused unread."""
    cache: CountOrZero = 4096
    """How many verified tokens are remembered, in each worker: until they expire, for five minutes at the most, and
    no longer than the key is known that signed them."""
    refresh: Duration = parse_duration("10m")
    """jwks at an address: how often it is fetched. A key that is not known has it fetched sooner."""
    timeout: Duration = parse_duration("10s")
    """jwks at an address: how long a fetch may take."""
    ca: FilePath | None = None
    """jwks at an address: a file with the certificates that are trusted, in PEM; the system's when absent."""

    FILES: ClassVar[tuple[str, ...]] = ("jwks", "ca")

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if (self.jwks is None) == (self.secret is None):
            raise ValueError("expected exactly one of jwks and secret")
        shared = {name for name in self.algorithms if name.startswith("HS")}
        if self.secret is not None and shared != {*self.algorithms}:
            raise ValueError("a secret is for HS256, HS384 and HS512 only; other algorithms need jwks")
        if self.secret is not None:
            keys_of_secret(self.secret, self.algorithms)
        if self.url is not None:
            if shared:
                raise ValueError("the key of HS256, HS384 and HS512 is a secret, and can't be had from an address")
            if self.url.startswith("http://") and not _LOOPBACK.fullmatch(self.url):
                raise ValueError("keys that come by http:// could be anybody's; https:// is needed")
        elif self.ca is not None:
            raise ValueError("ca goes with a jwks at an address")
        for scope in self.scopes:
            if not _SCOPE.fullmatch(scope):
                raise ValueError(f"not a scope: {scope!r}; each is an item of its own, without spaces and quotes")
        if len({*self.claims_to_headers.values()}) < len(self.claims_to_headers):
            raise ValueError("claims_to_headers names a header twice")
        return self

    @property
    def url(self) -> str | None:
        return self.jwks if self.jwks is not None and self.jwks.startswith(("https://", "http://")) else None

    def secret_parameters(self) -> tuple[str, ...]:
        return parameters_of(self.sources)

    def documents(self) -> tuple[Wanted, ...]:
        if self.url is None:
            return ()
        return (Wanted(self.url, refresh=self.refresh, timeout=self.timeout, ca=self.ca, member="keys"),)


class _Verified:
    """A token that was found good. until: seconds since 1970; identity: the key that signed it; lines: what the
    application is told."""

    __slots__ = ("claims", "identity", "lines", "until", "user")

    def __init__(self, claims: Claims, user: str, lines: bytes, until: float, identity: bytes) -> None:
        self.claims = claims
        self.user = user
        self.lines = lines
        self.until = until
        self.identity = identity


class Jwt(Middleware):
    """Lets only requests pass that bear a token which the issuer signed, which has not expired and which is meant for
    this place. Refuses others with 401 (`token_missing`, `token_invalid`, `token_expired`) or 403 (`scope_missing`),
    and all with 503 (`keys_unavailable`) as long as it has never had any keys. A token that was found good is
    remembered for up to five minutes. A request waits up to two seconds when the key of its token is not known and the
    issuer is asked for it. Holds back no body.

    Order: inside `cors`, so that a browser may read why it was refused and preflights need no token, and inside limits
    by address; outside of limits by user, caches and whatever else goes by who the client is."""

    OPTIONS = Options
    EXAMPLE = (
        '{ kind = "jwt", jwks = "https://id.example/jwks.json", algorithms = ["RS256", "ES256", "EdDSA"], '
        'issuer = "https://id.example", audience = "api", claims_to_headers = { sub = "x-user" } }'
    )

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._algorithms = frozenset(options.algorithms)
        self._types = frozenset(kind.lower().removeprefix("application/") for kind in options.types)
        self._rules = Rules(
            issuers=frozenset(options.issuer) or None,
            audiences=frozenset(options.audience) or None,
            any_audience=_ANYBODY in options.audience,
            required=options.required,
            leeway=options.leeway,
            max_age=options.max_age,
        )
        self._scopes = frozenset(options.scopes)
        self._longest = options.max_token
        self._told = tuple(options.claims_to_headers.items())
        self._names = frozenset(name.encode() for name in options.claims_to_headers.values())
        self._user_claim = options.user_claim
        self._optional = options.optional
        sources = [source_of(text) for text in options.sources]
        self._find = sources[0].find if len(sources) == 1 else _any_of(sources)
        # A target ends up in logs, also the application's.
        given = zip(options.sources, sources, strict=True)
        self._drops = tuple(one.take_out for text, one in given if not options.forward or parameters_of((text,)))
        self._missing = challenge("Bearer", realm=options.realm)
        self._realm = options.realm
        self._recent: Recent[_Verified] | None = Recent(options.cache) if options.cache else None
        self._keys = self._keys_of(options)

    def _keys_of(self, options: Options) -> Keys:
        if options.secret is not None:
            return keys_of_secret(options.secret, options.algorithms)
        if options.url is not None:
            return KeysOfDocument(options.url, options.algorithms, self._changed, self._place.documents)
        if options.jwks is None:
            raise StartError("expected exactly one of jwks and secret")
        return KeysOfFile(options.jwks, options.algorithms, self._changed)

    def _changed(self, keys: KeySet) -> None:
        """What a key signed that is gone must not be believed any longer."""
        if self._recent is not None:
            self._recent.keep(lambda one: one.identity in keys.identities)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine of its own where nothing is to be verified."""
        head: RequestHead = scope["headers"]
        if self._names:
            head.drop(self._names)
        try:
            token = self._find(head)
        except Ambiguous:
            return self._refuse(scope, send, TokenRefused("The request has more than one token"))
        if token is None:
            if self._optional:
                return self._app(scope, receive, send)
            return self._place.refuse(scope["gateway"], send, "token_missing", self._missing)
        keys = self._keys.current()  # before what is remembered: a change makes it forget
        if self._recent is not None and keys is not None:
            found = self._recent.get(_short(token))
            if found is not None and found.until > time.time():
                self._admit(scope, head, found)
                return self._app(scope, receive, send)
        return self._verify(scope, receive, send, token)

    def _admit(self, scope: Scope, head: RequestHead, found: _Verified) -> None:
        exchange = scope["gateway"]
        exchange.verified = found.claims
        exchange.user = found.user
        if found.lines:
            head.add(found.lines)
        for take_out in self._drops:
            take_out(head)

    async def _verify(self, scope: Scope, receive: Receive, send: Send, token: bytes) -> None:
        try:
            found = await self._verified(token)
        except TokenRefused as refused:
            await self._refuse(scope, send, refused)
            return
        if found is None:
            await self._place.refuse(scope["gateway"], send, "keys_unavailable")
            return
        if self._recent is not None:
            self._recent.put(_short(token), found)
        self._admit(scope, scope["headers"], found)
        await self._app(scope, receive, send)

    async def _verified(self, token: bytes) -> _Verified | None:
        """None while there are no keys. Raises TokenRefused."""
        if len(token) > self._longest:
            raise TokenRefused("The token is too long")
        parts = read(token)
        if parts.alg not in self._algorithms:
            raise TokenRefused("The algorithm of the token is not accepted")
        if self._types and parts.kind not in self._types:
            raise TokenRefused("The token is of another type")
        keys = self._keys.current()
        fitting = keys.fitting(parts.alg, parts.kid) if keys is not None else []
        if not fitting and (keys is None or (parts.kid is not None and parts.kid not in keys)):
            await self._keys.seek()
            keys = self._keys.current()
            if keys is None:
                return None
            fitting = keys.fitting(parts.alg, parts.kid)
        for key in fitting:
            if key.verifies(parts.alg, parts.signed, parts.signature):
                return self._read(claims_of(parts.payload), key.identity)
        raise TokenRefused("The signature of the token can not be verified")

    def _read(self, claims: Claims, identity: bytes) -> _Verified:
        now = time.time()
        until = min(self._rules.check(claims, now), now + _LONGEST_BELIEVED)
        if self._scopes and not self._scopes <= scopes_of(claims):
            raise TokenRefused("The token lacks a scope", "scope_missing")
        lines = b""
        for path, name in self._told:
            value = field_text(claim(claims, path))
            if value is not None:
                lines += told.line(name, value)
        return _Verified(claims, user_of(claims, self._user_claim), lines, until, identity)

    def _refuse(self, scope: Scope, send: Send, refused: TokenRefused) -> Awaitable[None]:
        """RFC 6750, section 3."""
        if refused.reason == "scope_missing":
            scopes = " ".join(sorted(self._scopes))
            fields = challenge("Bearer", realm=self._realm, error="insufficient_scope", scope=scopes)
        else:
            fields = challenge("Bearer", realm=self._realm, error="invalid_token", error_description=refused.said)
        return self._place.refuse(scope["gateway"], send, refused.reason, fields)

    async def close(self) -> None:
        self._keys.close()


def _short(token: bytes) -> bytes:
    """What a token is remembered by: itself, for SHA-256 takes a microsecond and more, unless it is so long that many
    of them would fill the memory. No token begins as the digests do."""
    return token if len(token) <= _LONGEST_KEPT else b"\0" + sha256(token).digest()


def _any_of(sources: list[Source]) -> Find:
    def find(head: RequestHead) -> bytes | None:
        found = [token for one in sources if (token := one.find(head)) is not None]
        if any(token != found[0] for token in found):
            raise Ambiguous
        return found[0] if found else None

    return find
