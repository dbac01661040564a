"""The kind `basic_auth`: a user name and a password (RFC 7617)."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable
from typing import ClassVar, Literal

from gateway.config.fields import FilePath, Flag
from gateway.config.http import FieldValue
from gateway.config.quantities import Count, Duration
from gateway.config.values import parse_duration
from gateway.errors import Refused
from gateway.middleware.identity import told
from gateway.middleware.identity.challenge import challenge
from gateway.middleware.identity.credential import names_scheme
from gateway.middleware.identity.verifier import Verifier, has_controls
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.written import OwnName
from gateway.wire import RequestHead

_LONGEST = 1024  # characters of credentials; what people type has less than 100


class Options(Base):
    kind: Literal["basic_auth"] = "basic_auth"
    htpasswd: FilePath
    """The users: a file with a line `name:hash` for each, as `htpasswd -B` writes it; read again when it changes. The
    hashes are bcrypt or, with the extra "argon2", Argon2id."""
    realm: FieldValue = "restricted"
    """What browsers tell people that the password is for."""
    user_header: OwnName | None = None
    """The field in which the application is told the user's name. What a client sends under it is dropped."""
    forward: Flag = False
    """Whether the password goes on to the application."""
    remember: Duration = parse_duration("1m")
    """How long a password that was right is known without being hashed again. A change of the file ends it sooner."""
    checks: Count = 2
    """How many passwords are hashed at the same time, in each worker: each takes a CPU for tens of milliseconds. Of
    several layers the largest number is that of all together, and they take turns."""
    waiting: Count = 64
    """How many more may wait for that, in each worker; further ones are refused with 503."""

    FILES: ClassVar[tuple[str, ...]] = ("htpasswd",)


class BasicAuth(Middleware):
    """Lets only requests pass with the name and the password of a user. Refuses others with 401 (`credentials_missing`,
    `credentials_wrong`), which has browsers ask for them, and with 503 (`auth_busy`) when too many passwords wait to be
    checked. That happens in threads, so that nobody else waits for it. It takes as long for users who don't exist. A
    password that was right is known for a minute, as a code that is of no use to anybody else. Holds back no body.

    Order: inside `rate_limit` by address, which is what makes guessing slow, and inside `cors`; outside of caches and
    whatever else goes by who the client is. Only where clients come by TLS: the password is in each request."""

    OPTIONS = Options
    EXAMPLE = '{ kind = "basic_auth", htpasswd = "conf/htpasswd", realm = "staff" }'

    def __init__(self, app: App, options: Options, place: Place) -> None:
        super().__init__(app, options, place)
        self._place = place
        self._users = Verifier(
            options.htpasswd, remember=options.remember, checks=options.checks, waiting=options.waiting
        )
        self._challenge = challenge("Basic", realm=options.realm, charset="UTF-8")
        self._header = options.user_header
        # Removed together from what passes; whatever doesn't pass isn't read by anybody.
        names = [] if options.forward else ["authorization"]
        self._names = frozenset(name.encode() for name in (*names, options.user_header) if name is not None)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine of its own for a password that is known."""
        head: RequestHead = scope["headers"]
        given = head.value(b"authorization")
        if given is None or given[:6].lower() != b"basic ":
            are_there = given is not None and names_scheme(given, b"basic")
            reason = "credentials_wrong" if are_there else "credentials_missing"
            return self._place.refuse(scope["gateway"], send, reason, self._challenge)
        code = self._users.code(given)
        user = self._users.known(code)
        if user:
            self._admit(scope, head, user)
            return self._app(scope, receive, send)
        if user == "":
            return self._place.refuse(scope["gateway"], send, "credentials_wrong", self._challenge)
        return self._check(scope, receive, send, given, code)

    def _admit(self, scope: Scope, head: RequestHead, user: str) -> None:
        scope["gateway"].user = user
        if self._names:
            head.drop(self._names)
        if self._header is not None:
            head.add(told.line(self._header, user))

    async def _check(self, scope: Scope, receive: Receive, send: Send, given: bytes, code: bytes) -> None:
        credentials = _read(given)
        try:
            is_right = credentials is not None and await self._users.check(code, *credentials)
        except Refused as busy:
            await self._place.refuse(scope["gateway"], send, busy.reason)
            return
        if credentials is None or not is_right:
            await self._place.refuse(scope["gateway"], send, "credentials_wrong", self._challenge)
            return
        self._admit(scope, scope["headers"], credentials[0])
        await self._app(scope, receive, send)

    async def close(self) -> None:
        self._users.close()


def _read(given: bytes) -> tuple[str, bytes] | None:
    """Name and password (RFC 7617, section 2); None for what can't be such."""
    coded = given[6:].strip(b" ")
    if len(coded) > _LONGEST:
        return None
    try:
        user, colon, password = b64decode(coded, validate=True).partition(b":")
        name = user.decode()
    except ValueError:
        return None
    if not colon or not name or has_controls(user) or has_controls(password):
        return None
    return name, password
