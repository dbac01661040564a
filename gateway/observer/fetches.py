"""Fetching documents: each at its own time, by this process alone. What comes out goes to the master, which tells
everybody."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import socket
import time
from collections.abc import Callable
from dataclasses import replace

import msgspec

from gateway.child import tell
from gateway.config.values import without_credentials
from gateway.documents import LONGEST, Documents, Look, Wanted, close, said
from gateway.errors import UpstreamError
from gateway.observer.looking import Looking
from gateway.upstream.clients import Answer, Clients, lines_of

log = logging.getLogger("gateway")

_JITTER = 0.1  # of the time until the next look, less
# Seconds until the next look after one that failed, doubled each time; the most when there is nothing yet, for nobody
# is served until then, and when there is.
_AGAIN = 1.0
_MOST_WITHOUT, _MOST_WITH = 5.0, 30.0
# A server may ask for more looks, but for no more than so many times as many.
_MOST_OFTEN = 10
_LONGEST_SENTENCE = 300
_MAX_AGE = re.compile(rb'(?:\A|[,\s])max-age\s*=\s*"?(\d{1,9})', re.IGNORECASE)


class Fetches(Looking):
    """All of them. `start` once; they end with the process, or by `stop`."""

    def __init__(self, documents: Documents, clients: Clients, channel: socket.socket) -> None:
        """Raises StartError when a file of certificates can't be read."""
        super().__init__(channel)
        self._documents = documents
        self._fetches = {one.url: _Fetch(one, documents, clients, self._outcome) for one in documents.wanted.values()}

    async def start(self, within: float) -> None:
        """Fetch what was never fetched and tell the master, in so many seconds at the most; what takes longer, and all
        that follows, goes on by itself."""
        await self._begin([one.go_on() for one in self._fetches.values()], within)

    def _is_awaited(self) -> bool:
        return any(one.is_awaited for one in self._fetches.values())

    def asked(self, url: str) -> None:
        """A worker lacks something in a document: look now, unless workers had us look a moment ago."""
        one = self._fetches.get(url)
        if one is not None:
            one.hurry()

    def _outcome(self, url: str, look: Look, body: bytes | None) -> None:
        self._documents.take(url, look, body)
        self._outbox[url] = self._outbox.pop(url, False) or body is not None  # whether the body is another
        self._looked()

    def _tell(self) -> bool:
        url, is_new = next(iter(self._outbox.items()))
        known = self._documents.get(url)
        body = known.body if known is not None and is_new else None
        message, fds = said(url, self._documents.look(url), body)
        is_told = tell(self._channel, {"say": "document", **message}, fds)
        close(fds)
        if is_told:
            del self._outbox[url]
        return is_told


def again(failures: int, is_known: bool, refresh: float) -> float:
    """Seconds until the next look after so many in a row that failed, 0 when those were another process'."""
    if not failures:
        return 0.0
    return min(_AGAIN * (1 << min(failures - 1, 10)), _MOST_WITH if is_known else _MOST_WITHOUT, refresh)


class _Fetch:
    """One document's."""

    def __init__(
        self,
        one: Wanted,
        documents: Documents,
        clients: Clients,
        outcome: Callable[[str, Look, bytes | None], None],
    ) -> None:
        self._wanted = one
        self._shown = without_credentials(one.url)  # for the log
        self._server = clients.server(one.url, ca=one.ca)
        self._outcome = outcome
        self._failures = 0
        self._hurry = asyncio.Event()
        self._is_looking = False
        self.look = documents.look(one.url)
        known = documents.get(one.url)
        self._body = known.body if known is not None else None
        self.is_awaited = known is None  # nobody has it, and we have not looked

    def hurry(self) -> None:
        if not self._is_looking and not self._was_asked(time.monotonic()):
            self._hurry.set()

    def _was_asked(self, now: float) -> bool:
        """Whether workers had us look a moment ago."""
        return self.look.asked > 0 and now - self.look.asked < self._wanted.min_refresh

    async def go_on(self) -> None:
        while True:
            await self._pause()
            asked = self._hurry.is_set()
            self._is_looking = True
            await self._look(asked)
            self._is_looking = self.is_awaited = False
            self._hurry.clear()

    async def _pause(self) -> None:
        """Until the next look, or until somebody needs it."""
        seconds = self._next()
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            pass

    def _next(self) -> float:
        look = self.look
        if not look.looked:
            return 0.0
        if self._failures or look.trouble:
            seconds = again(self._failures, self._body is not None, self._wanted.refresh)
        else:
            seconds = min(look.lifetime, self._wanted.refresh)
        return look.looked + seconds * random.uniform(1 - _JITTER, 1) - time.monotonic()

    async def _look(self, asked: bool) -> None:
        """One look, and what comes of it."""
        url, before = self._wanted.url, self.look
        body, look, trouble = None, before, ""
        try:
            answer = await self._ask(before)
            look = self._judged(answer, before)
            if answer.status == 200 and answer.body != self._body:
                body = answer.body
        except UpstreamError as error:
            trouble = str(error).removeprefix(f"{error.endpoint}: ")
        except ValueError as error:
            trouble = str(error)
        except Exception:
            log.exception("%s: fetching it broke", self._shown)
            trouble = "fetching broke; the error log says how"
        now = time.monotonic()
        self._failures = self._failures + 1 if trouble else 0
        self.look = replace(
            look,
            version=before.version + (body is not None),
            looked=now,
            asked=now if asked else before.asked,
            trouble=trouble[:_LONGEST_SENTENCE].encode(errors="backslashreplace").decode(),
        )
        if body is not None:
            self._body = body
        self._say(before, body)
        self._outcome(url, self.look, body)

    async def _ask(self, before: Look) -> Answer:
        fields = [(b"accept", b"application/json, */*;q=0.5"), (b"user-agent", b"gateway")]
        if before.etag and self._body is not None:
            fields.append((b"if-none-match", before.etag.encode("latin-1")))
        return await self._server.ask(lines=lines_of(fields), within=self._wanted.timeout, most=LONGEST)

    def _judged(self, answer: Answer, before: Look) -> Look:
        """What a good answer says. Raises ValueError for any other."""
        if answer.status == 304 and self._body is not None:
            etag = before.etag
        elif answer.status == 200:
            etag = (answer.value(b"etag") or b"").decode("latin-1")
            self._check(answer.body)
        else:
            location = answer.value(b"location")
            where = f", to {location.decode('latin-1')}, where nobody goes" if location is not None else ""
            raise ValueError(f"answered {answer.status}{where}")
        return replace(before, fetched=time.time(), lifetime=self._lifetime(answer), etag=etag)

    def _lifetime(self, answer: Answer) -> float:
        """Seconds until the next look: `refresh`, or sooner where the server says so."""
        refresh = self._wanted.refresh
        said = _MAX_AGE.search(answer.value(b"cache-control") or b"")
        if said is None:
            return refresh
        return min(refresh, max(float(said[1]), refresh / _MOST_OFTEN))

    def _check(self, body: bytes) -> None:
        if not self._wanted.member:
            return
        try:
            read = msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise ValueError("what came is not JSON") from None
        if not isinstance(read, dict) or self._wanted.member not in read:
            raise ValueError(f'what came is not a JSON object with "{self._wanted.member}"')

    def _say(self, before: Look, body: bytes | None) -> None:
        """Once when it changes, once when trouble begins, once when it is over."""
        url, look = self._shown, self.look
        if look.trouble and not before.trouble:
            left = "the last one stays in use" if self._body is not None else "there is none to use"
            log.warning("%s: fetching fails: %s; %s", url, look.trouble, left)
        elif before.trouble and not look.trouble:
            log.info("%s: fetching works again", url)
        if body is not None:
            log.info("%s: fetched, %d bytes%s", url, len(body), "" if before.version == 0 else ", others than before")
