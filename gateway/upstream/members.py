"""The endpoints of an upstream as objects. Who stays in the list stays the same object, with its pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.config import upstreams as configured
from gateway.upstream.endpoint import Endpoint


class Members:
    """make: an endpoint with its pool, where there is none of this address yet."""

    def __init__(self, make: Callable[[configured.Endpoint], Endpoint]) -> None:
        self._make = make
        self._known: dict[str, Endpoint] = {}

    def take(self, listed: Iterable[configured.Endpoint]) -> tuple[list[Endpoint], list[Endpoint]]:
        """These are the members from here on: all of them, and those that are backups."""
        now: dict[str, Endpoint] = {}
        backups = []
        for one in listed:
            address = str(one.address)
            while address in now:  # listed twice
                address += " "
            endpoint = self._known.get(address) or self._make(one)
            endpoint.weight = one.weight
            endpoint.max_requests = one.max_requests
            now[address] = endpoint
            if one.backup:
                backups.append(endpoint)
        self._known = now
        return list(now.values()), backups
