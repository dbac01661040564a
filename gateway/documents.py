"""Documents that are fetched from a URL, once for all workers: keys that tokens are checked with, and the like.

The observer fetches, the master keeps, every child is told (`Documents.told`) or inherits. What was fetched last stays
usable for as long as nothing better comes, whatever happens to the server, the observer or the configuration.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from gateway.errors import StartError

LONGEST = 256 * 1024  # bytes of a document; a set of a hundred keys has some 40 KiB
# What is looked at in vain and asked for by workers: so often at the most, all of them together.
MIN_REFRESH = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A document that a configuration needs.

    refresh: seconds between two looks; the server may ask for more of them (Cache-Control: max-age), not for fewer.
    timeout: seconds for one. ca: a file with the certificates that are trusted, None for the system's. member: a name
    that must be in it, for it is a JSON object then; what is none, such as a page that says sorry, is not taken.
    min_refresh: seconds between two looks that workers ask for.
    """

    url: str
    refresh: float = 300.0
    timeout: float = 10.0
    ca: str | None = None
    member: str = ""
    min_refresh: float = MIN_REFRESH


class Wanting(Protocol):
    """A configuration."""

    def documents(self) -> Iterable[Wanted]: ...


def wanted(config: Wanting) -> dict[str, Wanted]:
    """The documents of a configuration by URL; where several layers want the same, as often as one of them does.

    Raises StartError when they don't agree on whom to trust.
    """
    found: dict[str, Wanted] = {}
    for one in config.documents():
        known = found.get(one.url)
        if known is None:
            found[one.url] = one
            continue
        if (known.ca, known.member) != (one.ca, one.member):
            raise StartError(f"{one.url} is wanted twice, with different ca")
        found[one.url] = replace(
            known,
            refresh=min(known.refresh, one.refresh),
            timeout=max(known.timeout, one.timeout),
            min_refresh=min(known.min_refresh, one.min_refresh),
        )
    return found


@dataclass(frozen=True, slots=True)
class Look:
    """What came of the last look at a document, as it is told around; the body goes by a descriptor.

    looked, asked: when the last look was over, and the last one that workers had asked for: monotonic seconds, 0 for
    never. fetched: when the server last confirmed it, in unix seconds. lifetime: seconds for which it needs no look.
    trouble: why the last look failed, "" when it did not.
    """

    version: int = 0  # rises with each change of the body
    looked: float = 0.0
    asked: float = 0.0
    fetched: float = 0.0
    lifetime: float = 0.0
    etag: str = ""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One that was fetched. Its version rises when its body changes, and only then."""

    url: str
    body: bytes = field(repr=False)
    look: Look

    @property
    def version(self) -> int:
        return self.look.version

    @property
    def fetched(self) -> float:
        """When the server last confirmed it, in unix seconds."""
        return self.look.fetched

    @property
    def trouble(self) -> str:
        """Why it can't be fetched anew just now, "" when it can."""
        return self.look.trouble


class Documents:
    """Those that one process knows."""

    def __init__(self, wanted: Mapping[str, Wanted] | None = None) -> None:
        self.wanted: Mapping[str, Wanted] = wanted or {}
        # The master's ear: told by a URL that somebody needs it anew. False when nobody listens.
        self.ask: Callable[[str], bool] = lambda url: False
        self._known: dict[str, Document] = {}
        self._looks: dict[str, Look] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    def get(self, url: str) -> Document | None:
        """What is known of it; None while it was never fetched. Costs a look into a table."""
        return self._known.get(url)

    def trouble(self, url: str) -> str:
        """Why it can't be fetched, "" when the last look succeeded."""
        look = self._looks.get(url)
        return "nobody has looked yet" if look is None else look.trouble

    def look(self, url: str) -> Look:
        return self._looks.get(url, _NEVER)

    async def refresh(self, url: str, within: float) -> bool:
        """Have it fetched anew, for what is known doesn't hold what is needed. Returns when that is over, whatever came
        of it, or after so many seconds. False, and at once, when workers asked for it a moment ago already: who lacks
        something in vain must not make us ask for it all the time."""
        one = self.wanted.get(url)
        if one is None:
            return False
        asked = self.look(url).asked
        waiting = self._waiting.get(url)
        if waiting is None:
            if (asked and time.monotonic() - asked < one.min_refresh) or not self.ask(url):
                return False
            waiting = self._waiting[url] = []
        future = asyncio.get_running_loop().create_future()
        waiting.append(future)
        try:
            async with asyncio.timeout(within):
                await future
        except TimeoutError:
            return False
        finally:
            waiting.remove(future)
            if not waiting and self._waiting.get(url) is waiting:
                del self._waiting[url]
        return True

    # What the others say.

    def take(self, url: str, look: Look, body: bytes | None) -> None:
        """There was a look. body: None when it is still the same, or when there is none."""
        self._looks[url] = look
        if body is not None:
            self._known[url] = Document(url, body, look)
        elif url in self._known:
            self._known[url] = replace(self._known[url], look=look)

    def told(self, message: Mapping[str, Any], fds: Iterable[int]) -> None:
        """Take in what the master says of a document."""
        url, look, body = heard(message, fds)
        self.take(url, look, body)
        for future in self._waiting.pop(url, ()):
            if not future.done():
                future.set_result(None)

    def is_same(self, url: str, others: Documents) -> bool:
        """Whether a document comes to us and to others from the same place, and is judged in the same way."""
        ours, theirs = self.wanted.get(url), others.wanted.get(url)
        return ours is not None and theirs is not None and (ours.ca, ours.member) == (theirs.ca, theirs.member)

    def kept(self, wanted: Mapping[str, Wanted]) -> Documents:
        """What of it is still true when these are wanted."""
        kept = Documents(wanted)
        for url, look in self._looks.items():
            if kept.is_same(url, self):
                known = self._known.get(url)
                kept.take(url, look, known.body if known is not None else None)
        return kept

    def rows(self) -> list[dict[str, Any]]:
        """For people: how fetching fares."""
        now = time.time()
        return [
            {
                "url": url,
                "bytes": len(known.body) if known is not None else 0,
                "age_seconds": round(max(0.0, now - known.fetched), 1) if known is not None else None,
                "trouble": self.trouble(url),
            }
            for url, known in ((url, self._known.get(url)) for url in self.wanted)
        ]

    def dump(self) -> list[dict[str, Any]]:
        """For the program that follows in an upgrade; `load` reads it."""
        return [
            {
                "wanted": asdict(self.wanted[url]),
                "look": asdict(look),
                "body": self._known[url].body.decode("latin-1") if url in self._known else None,
            }
            for url, look in self._looks.items()
            if url in self.wanted
        ]

    @classmethod
    def load(cls, rows: Iterable[Mapping[str, Any]]) -> Documents:
        """What we don't understand is fetched anew."""
        found = []
        for row in rows:
            try:
                body = row["body"]
                found.append((Wanted(**row["wanted"]), Look(**row["look"]), body and body.encode("latin-1")))
            except (KeyError, TypeError, ValueError):
                continue
        documents = cls({one.url: one for one, _, _ in found})
        for one, look, body in found:
            documents.take(one.url, look, body)
        return documents


_NEVER = Look()


# Between processes: a message, and a descriptor of memory for a body, which may be larger than a message.


def said(url: str, look: Look, body: bytes | None) -> tuple[dict[str, Any], list[int]]:
    """A message about a document, and the descriptors that go with it, which the caller closes."""
    fds = []
    if body is not None:
        fd = os.memfd_create("gateway-document", os.MFD_CLOEXEC)
        fds.append(fd)
        view = memoryview(body)
        while view:
            view = view[os.write(fd, view) :]
    return {"url": url, "look": asdict(look)}, fds


def close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def heard(message: Mapping[str, Any], fds: Iterable[int]) -> tuple[str, Look, bytes | None]:
    """What a message says; its descriptors are closed."""
    body = None
    for fd in fds:
        with os.fdopen(fd, "rb") as memory:
            memory.seek(0)
            body = memory.read(LONGEST)
    return message["url"], Look(**message["look"]), body
