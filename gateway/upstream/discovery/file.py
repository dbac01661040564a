"""A file that lists the endpoints, read again whenever it has changed, in place or by another file of its name."""

from __future__ import annotations

from pathlib import Path

from gateway.config.listed import load_endpoints
from gateway.config.problems import ConfigErrors
from gateway.config.upstreams import Upstream
from gateway.errors import DiscoveryError
from gateway.upstream.discovery.discovery import Discovery, Found

_LOOK = 1.0  # seconds between two looks at the file


class File(Discovery):
    def __init__(self, upstream: Upstream) -> None:
        assert upstream.discovery is not None and upstream.discovery.path is not None
        self._path = Path(upstream.discovery.path)
        self._seen: tuple[int, int, int] | None = None
        self._outcome: Found | str = ""  # or why there is none

    async def find(self) -> Found:
        # Looked at before it is read: what is written meanwhile is seen the next time.
        seen = self._look()
        if seen is None or seen != self._seen:
            self._seen, self._outcome = seen, self._read()
        if isinstance(self._outcome, str):
            raise DiscoveryError(self._outcome, _LOOK)
        return self._outcome

    def _look(self) -> tuple[int, int, int] | None:
        try:
            now = self._path.stat()
        except OSError:
            return None
        return now.st_mtime_ns, now.st_size, now.st_ino

    def _read(self) -> Found | str:
        try:
            return Found(load_endpoints(self._path), _LOOK)
        except ConfigErrors as error:
            first, *others = error.errors
            return f"{first}, and {len(others)} more" if others else str(first)
