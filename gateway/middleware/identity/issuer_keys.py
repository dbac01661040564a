"""Where the keys of an issuer come from: a secret, a file, or a document that the observer fetches for all workers.

A token that names a key which nobody knows may be of a new key, or of nobody. So one refresh of the document is asked
for, by all who wait together, and no more for some seconds: whoever invents names for keys costs the issuer nothing
and other requests no time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from gateway.config.values import without_credentials
from gateway.documents import Document, Documents
from gateway.middleware.identity.keyset import KeySet, key_set, secret_set
from gateway.middleware.identity.watched import Watched

log = logging.getLogger("gateway.middleware")

_LONGEST_SET = 1024 * 1024  # bytes; a hundred keys with their certificates
_WITHIN = 2.0  # seconds a request waits for a refresh
_PAUSE = 5.0  # seconds after a refresh in which an unknown key doesn't ask for the next
_MOST_WAITING = 100  # requests that wait for a refresh; one more is refused at once

Changed = Callable[[KeySet], None]


class Keys:
    """The keys of a layer. The base is a set that never changes."""

    def __init__(self, keys: KeySet | None) -> None:
        self._keys = keys

    def current(self) -> KeySet | None:
        """The keys to go by; None when there never were any."""
        return self._keys

    async def seek(self) -> None:
        """A key is wanted that isn't there, or there are none yet: have a look for it, if it is time for one. Waits no
        longer than some seconds and raises nothing."""

    def close(self) -> None:
        """Nobody will ask any more."""


def keys_of_secret(secret: str, wanted: Collection[str]) -> Keys:
    """Raises ValueError for a secret that is too short."""
    return Keys(secret_set(secret, wanted))


class KeysOfFile(Keys):
    """A JWK Set in a file."""

    def __init__(self, path: str, wanted: Collection[str], changed: Changed) -> None:
        """Raises StartError when it holds no key that can be used."""

        def read(data: bytes) -> KeySet:
            keys = key_set(data, wanted)
            _tell(path, keys)
            if not keys and not (keys.is_empty and began):
                raise ValueError("it holds no key that can be used")
            return keys

        began = False
        self._file = Watched(path, read, _LONGEST_SET, changed)
        began = True
        super().__init__(self._file.value)

    def current(self) -> KeySet:
        return self._file.look()

    def close(self) -> None:
        self._file.close()


class KeysOfDocument(Keys):
    """A JWK Set at an address. The last one that could be understood is used for as long as there is none newer."""

    def __init__(
        self,
        url: str,
        wanted: Collection[str],
        changed: Changed,
        documents: Documents,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(None)
        self._url = url
        self._shown = without_credentials(url)  # for the log
        self._wanted = wanted
        self._changed = changed
        self._documents = documents
        self._clock = clock
        self._document: Document | None = None  # the one that was looked at last
        self._version: int | None = None
        self._rest = 0.0  # until when no refresh is asked for
        self._asking: asyncio.Task[None] | None = None
        self._waiting = 0

    def current(self) -> KeySet | None:
        document = self._documents.get(self._url)
        if document is not self._document and document is not None:
            self._document = document
            if document.version != self._version:
                self._version = document.version
                self._read(document)
        return self._keys

    def _read(self, document: Document) -> None:
        try:
            keys = self._understood(document.body)
        except ValueError as error:
            kept = "; the keys from before stay in use" if self._keys is not None else ""
            log.error("%s: %s%s", self._shown, error, kept)
            return
        self._keys = keys
        self._changed(keys)

    def _understood(self, body: bytes) -> KeySet:
        if len(body) > _LONGEST_SET:
            raise ValueError(f"has more than {_LONGEST_SET} bytes")
        keys = key_set(body, self._wanted)
        _tell(self._shown, keys)
        if not keys and not keys.is_empty:
            raise ValueError("it holds no key that can be used")
        return keys

    async def seek(self) -> None:
        if self._asking is None:
            if self._clock() < self._rest:
                return
            self._asking = asyncio.get_running_loop().create_task(self._refresh(), name="keys")
        if self._waiting >= _MOST_WAITING:
            return
        self._waiting += 1
        try:
            # Whoever leaves takes the refresh from nobody.
            await asyncio.wait((self._asking,), timeout=_WITHIN)
        finally:
            self._waiting -= 1

    async def _refresh(self) -> None:
        try:
            await self._documents.refresh(self._url, within=_WITHIN)
        finally:
            self._rest = self._clock() + _PAUSE
            self._asking = None

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()


def _tell(where: str, keys: KeySet) -> None:
    for fault in keys.faults:
        log.warning("%s: %s", where, fault)
