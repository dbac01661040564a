"""Looking up endpoints: each upstream at its own time, by this process alone. What comes out goes to the master, which
tells everybody."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Iterable

import msgspec

from gateway.child import batch, tell
from gateway.config.model import Config
from gateway.config.upstreams import Endpoint
from gateway.errors import DiscoveryError
from gateway.findings import MOST, Findings, written
from gateway.observer.looking import Looking
from gateway.upstream.discovery import Discovery, discovery_of

log = logging.getLogger("gateway")

_JITTER = 0.1  # of the time until the next look, less
_BROKEN = 30.0  # seconds until the next look after a mistake of ours
_NAMED = 5  # endpoints in one line of the log
_LONGEST_SENTENCE = 500
_LONGEST = 64 * 1024  # bytes of the list of one upstream


class Lookups(Looking):
    """All of them. `start` once; they end with the process, or by `stop`."""

    def __init__(self, config: Config, findings: Findings, channel: socket.socket) -> None:
        super().__init__(channel)
        self._looked_up = config.upstreams
        # What the master knows: the list, None when there was never one, and what is wrong.
        self._known = {name: (self._before(findings, name), findings.trouble.get(name, "")) for name in self._looked_up}
        self._silent = set(self._looked_up)  # without any outcome yet
        self._cut: dict[str, set[str]] = {}

    def _before(self, findings: Findings, name: str) -> tuple[Endpoint, ...] | None:
        upstream = self._looked_up[name]
        return _sorted(upstream.endpoints) if upstream.discovery is None else findings.found.get(name)

    async def start(self, within: float) -> None:
        """Look everything up once and tell the master, in so many seconds at the most; what takes longer, and all that
        follows, goes on by itself."""
        looks = [self._go_on(name, discovery_of(upstream)) for name, upstream in self._looked_up.items()]
        await self._begin(looks, within)

    def _is_awaited(self) -> bool:
        return bool(self._silent)

    async def _go_on(self, name: str, discovery: Discovery) -> None:
        while True:
            again = await self._look(name, discovery)
            self._silent.discard(name)
            self._looked()
            if again is None:
                return
            await asyncio.sleep(again * random.uniform(1 - _JITTER, 1))

    async def _look(self, name: str, discovery: Discovery) -> float | None:
        """One look; the seconds until the next."""
        endpoints = self._known[name][0]
        try:
            found = await discovery.find()
        except DiscoveryError as error:
            self._outcome(name, endpoints, str(error))
            return error.again
        except Exception:
            log.exception("%s: looking up its endpoints broke", name)
            self._outcome(name, endpoints, "looking up broke; the error log says how")
            return _BROKEN
        self._outcome(name, self._bounded(name, _sorted(found.endpoints)), found.trouble)
        return found.again

    def _outcome(self, name: str, endpoints: tuple[Endpoint, ...] | None, trouble: str) -> None:
        trouble = trouble[:_LONGEST_SENTENCE].encode(errors="backslashreplace").decode()  # it may quote a file
        before, trouble_before = self._known[name]
        if (endpoints, trouble) == (before, trouble_before):
            return
        self._known[name] = (endpoints, trouble)
        if trouble and trouble != trouble_before:
            left = f"its last {len(endpoints)} endpoints stay" if endpoints else "it has no endpoints"
            log.warning("%s: looking up endpoints fails: %s; %s", name, trouble, left)
        if endpoints is not None and endpoints != before:
            log.info("%s: %d endpoints%s", name, len(endpoints), _difference(before or (), endpoints))
        if trouble_before and not trouble:
            log.info("%s: looking up endpoints works again, %d are there", name, len(endpoints or ()))
        self._outbox[name] = {"endpoints": None if endpoints is None else written(endpoints), "trouble": trouble}

    def _bounded(self, name: str, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """As many as are taken; the others are named once."""
        size = taken = 0
        for row in written(endpoints[:MOST]):
            size += len(msgspec.json.encode(row))
            if size > _LONGEST:
                break
            taken += 1
        rest = {str(one.address) for one in endpoints[taken:]}
        if rest != self._cut.get(name, set()):
            self._cut[name] = rest
            if rest:
                log.warning("%s: more than %d endpoints; left out: %s", name, taken, _named(sorted(rest)))
        return endpoints[:taken]

    def _tell(self) -> bool:
        found = batch(self._outbox)
        if not tell(self._channel, {"say": "endpoints", "found": found}):
            return False
        for name in found:
            del self._outbox[name]
        return True


def _sorted(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """In one order, so that another order is no change."""
    return tuple(sorted(endpoints, key=lambda one: (one.backup, str(one.address))))


def _difference(before: Iterable[Endpoint], now: Iterable[Endpoint]) -> str:
    old, new = ({str(one.address): one for one in endpoints} for endpoints in (before, now))
    came, left = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    changed = sorted(address for address in new.keys() & old.keys() if new[address] != old[address])
    parts = [f"{sign} {_named(names)}" for sign, names in (("+", came), ("-", left), ("~", changed)) if names]
    return ": " + "; ".join(parts) if parts else ""


def _named(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
