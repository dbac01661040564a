"""The kind `basic_auth`: a user name and a password (RFC 7617)."""

from __future__ import annotations

import asyncio
import os
import time
from base64 import b64decode
from collections.abc import Awaitable, Mapping
from hashlib import blake2b
from typing import ClassVar, Literal, NamedTuple

from gateway.config.fields import Count, Duration, FieldValue, FilePath, Flag
from gateway.config.values import parse_duration
from gateway.middleware.identity import told
from gateway.middleware.identity.challenge import challenge
from gateway.middleware.identity.credential import names_scheme
from gateway.middleware.identity.hashing import HASHING
from gateway.middleware.identity.htpasswd import users_of
from gateway.middleware.identity.passwords import Hash
from gateway.middleware.identity.recent import Recent
from gateway.middleware.identity.watched import Watched
from gateway.middleware.middleware import App, Middleware, Place, Receive, Scope, Send
from gateway.middleware.middleware import Options as Base
from gateway.middleware.written import OwnName
from gateway.wire import RequestHead

_LONGEST_FILE = 4 * 1024 * 1024  # bytes; some 50,000 users
_LONGEST = 1024  # characters of credentials; what people type has less than 100
_MOST_REMEMBERED = 4096  # credentials, right ones; and as many wrong ones
_WRONG_FOR = 5.0  # seconds: a client that goes on asking with a wrong password costs a hash in this time


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


class _Users(NamedTuple):
    """known: by name. hashes: of all, in a row."""

    known: Mapping[str, Hash]
    hashes: tuple[Hash, ...]

    @classmethod
    def of(cls, data: bytes) -> _Users:
        known = users_of(data)
        return cls(known, tuple(known.values()))


class _Known:
    """Credentials that were right. until: monotonic seconds; hash: what they matched."""

    __slots__ = ("hash", "lines", "until", "user")

    def __init__(self, user: str, lines: bytes, until: float, hash: str) -> None:
        self.user = user
        self.lines = lines
        self.until = until
        self.hash = hash


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
        self._file = Watched(options.htpasswd, _Users.of, _LONGEST_FILE, self._changed)
        self._challenge = challenge("Basic", realm=options.realm, charset="UTF-8")
        self._header = options.user_header
        # Removed together from what passes; whatever doesn't pass isn't read by anybody.
        names = [] if options.forward else ["authorization"]
        self._names = frozenset(name.encode() for name in (*names, options.user_header) if name is not None)
        self._remember = options.remember
        self._at_once = options.checks
        HASHING.allow(options.checks)
        self._room = options.checks + options.waiting
        self._key = os.urandom(32)  # so that what is remembered can't be tried against a list of passwords
        self._right: Recent[_Known] = Recent(_MOST_REMEMBERED)
        self._wrong: Recent[float] = Recent(_MOST_REMEMBERED)
        self._checks: dict[bytes, asyncio.Task[_Known | None]] = {}
        self._turns: asyncio.Semaphore | None = None

    def _changed(self, users: _Users) -> None:
        known = users.known
        self._wrong.clear()
        self._right.keep(lambda one: one.user in known and known[one.user].text == one.hash)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine of its own for a password that is known."""
        head: RequestHead = scope["headers"]
        given = head.value(b"authorization")
        if given is None or given[:6].lower() != b"basic ":
            are_there = given is not None and names_scheme(given, b"basic")
            reason = "credentials_wrong" if are_there else "credentials_missing"
            return self._place.refuse(scope["gateway"], send, reason, self._challenge)
        users = self._file.look()  # before what is remembered: a change makes it forget
        digest = self._code(given)
        known = self._right.get(digest)
        if known is not None and known.until > time.monotonic():
            self._admit(scope, head, known)
            return self._app(scope, receive, send)
        wrong = self._wrong.get(digest)
        if wrong is not None and wrong > time.monotonic():
            return self._place.refuse(scope["gateway"], send, "credentials_wrong", self._challenge)
        return self._check(scope, receive, send, given, digest, users)

    def _admit(self, scope: Scope, head: RequestHead, known: _Known) -> None:
        scope["gateway"].user = known.user
        if self._names:
            head.drop(self._names)
        if known.lines:
            head.add(known.lines)

    async def _check(
        self, scope: Scope, receive: Receive, send: Send, given: bytes, digest: bytes, users: _Users
    ) -> None:
        check = self._checks.get(digest)
        if check is None:
            credentials = _read(given)
            if credentials is None:
                await self._place.refuse(scope["gateway"], send, "credentials_wrong", self._challenge)
                return
            if len(self._checks) >= self._room:
                await self._place.refuse(scope["gateway"], send, "auth_busy")
                return
            check = asyncio.get_running_loop().create_task(self._matched(*credentials, digest, users), name="password")
            self._checks[digest] = check
            check.add_done_callback(lambda _: self._checks.pop(digest, None))
        # A page has its browser ask for ten things at once: one check is enough, whoever of them goes away meanwhile.
        await asyncio.wait((check,))
        known = None if check.cancelled() else check.result()
        if known is None:
            await self._place.refuse(scope["gateway"], send, "credentials_wrong", self._challenge)
            return
        self._admit(scope, scope["headers"], known)
        await self._app(scope, receive, send)

    async def _matched(self, user: str, password: bytes, digest: bytes, users: _Users) -> _Known | None:
        """Whether that is the user's password, which is then remembered, and so is that it isn't."""
        hashed = users.known.get(user)
        if self._turns is None:
            self._turns = asyncio.Semaphore(self._at_once)
        async with self._turns:
            same = await HASHING.matches(hashed or self._somebody(user, users), password)
        now = time.monotonic()
        if hashed is None or not same:
            if users is self._file.value:
                self._wrong.put(digest, now + _WRONG_FOR)
            return None
        lines = b"" if self._header is None else told.line(self._header, user)
        known = _Known(user, lines, now + self._remember, hashed.text)
        current = self._file.value.known.get(user)
        if current is None or current.text != hashed.text:
            return None  # the file has changed meanwhile
        self._right.put(digest, known)
        return known

    def _code(self, text: bytes) -> bytes:
        """A message authentication code (RFC 7693, section 2.9): a third of the time that HMAC takes."""
        return blake2b(text, key=self._key, digest_size=32).digest()

    def _somebody(self, user: str, users: _Users) -> Hash:
        """Whose hash is computed for a user who doesn't exist: always the same one's for the same name, and nobody can
        tell whose. So an unknown name takes as long as a known one, also when their hashes cost differently."""
        number = int.from_bytes(self._code(user.encode())[:8])
        return users.hashes[number % len(users.hashes)]

    async def close(self) -> None:
        self._file.close()
        for check in [*self._checks.values()]:
            check.cancel()


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
    if not colon or not name or _has_controls(user) or _has_controls(password):
        return None
    return name, password


def _has_controls(text: bytes) -> bool:
    return any(byte < 32 or byte == 127 for byte in text)
