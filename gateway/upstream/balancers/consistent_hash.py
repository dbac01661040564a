"""Consistent hashing on a ketama ring, point for point that of nginx's `hash ... consistent`, with bounded loads.

Each endpoint has 160 points for each unit of its weight; a key belongs to the first point at or after its CRC32. The
ring is that of all members, so the same in every worker and after a reload, whoever is ready at the moment: a key whose
endpoint is not goes on to the next that is, and comes back with it; no other key moves. (nginx tries 20 points, then
gives the key to anybody.) In slow start an endpoint has that share of its points.

Bounded loads (Mirrokni, Thorup and Zadimoghaddam, arXiv 1608.01350): who has more than `bound` times its part of the
requests in flight is passed over, for the next with room.

Large weights are halved until the ring has at most 65,536 points, or 160 for each endpoint: one of 160,000 takes some
80 ms to build, when membership changes (readiness changes nothing about it).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain
from zlib import crc32

from gateway.upstream.balancers.balancer import Balancer, Chance, Clock
from gateway.upstream.balancers.round_robin import RoundRobin
from gateway.upstream.endpoint import Endpoint

_POINTS = 160  # for each unit of weight, as nginx and libketama have it
_MOST_POINTS = 1 << 16

# A point is one number, so that one sorted list is the ring. From above: its hash; whose it is, by the CRC32 of the
# name, which is the same in every process; and which of that endpoint's points it is.
_HASH = 52
_OWNER = 20
_OWNERS = (1 << _HASH - _OWNER) - 1
_NUMBERS = (1 << _OWNER) - 1

# The bound takes sums over everybody. In groups up to this size they are new at each pick; in larger ones at every
# second, third ... so that they cost a pick the same.
_SUMMED = 16


def base(name: str) -> int:
    """What an endpoint's points begin with: the CRC32 of HOST \\0 PORT, as Cache::Memcached::Fast has it."""
    host, colon, port = name.rpartition(":")
    if name.startswith("unix:") or not (colon and port.isdecimal()):
        host, port = name.removeprefix("unix:"), ""
    return crc32(f"{host}\0{port}".encode())


def points(name: str, count: int) -> Iterator[int]:
    """An endpoint's points: each the CRC32 of the base and the one before (little-endian)."""
    start = base(name)
    owner = crc32(name.encode()) << _OWNER
    point = 0
    for number in range(count):
        point = crc32(point.to_bytes(4, "little"), start)
        yield point << _HASH | owner | number


class ConsistentHash(Balancer):
    def __init__(
        self, offset: float = 0.0, chance: Chance | None = None, now: Clock | None = None, *, bound: float = 1.25
    ) -> None:
        """bound: how many times its part of the load an endpoint may have, above 1; infinite for no bound."""
        super().__init__(offset, chance, now)
        self._keyless = RoundRobin(offset)
        self._bound = bound
        self._ready: dict[Endpoint, None] = {}
        self._owners: dict[int, Endpoint] = {}
        self._counts: dict[Endpoint, int] = {}  # of points
        self._ring: list[int] = []
        self._load = 0  # of all who are ready
        self._weight = 0.0
        self._fresh = 0  # for so many picks more both sums hold

    def rebuild(self, ready: Sequence[Endpoint], members: Sequence[Endpoint] | None = None) -> None:
        self._keyless.rebuild(ready, members)
        self._ready = dict.fromkeys(ready)
        self._fresh = 0
        self._build(ready if members is None else members)

    def _build(self, members: Sequence[Endpoint]) -> None:
        """The ring anew, or what changed in it."""
        total = _POINTS * sum(endpoint.weight for endpoint in members)
        halvings = 0
        while total >> halvings > max(_MOST_POINTS, _POINTS * len(members)):
            halvings += 1
        counts = {endpoint: max(1, _POINTS * endpoint.weight >> halvings) for endpoint in members}
        if counts == self._counts:
            return
        owners = {crc32(endpoint.name.encode()): endpoint for endpoint in members}
        stay = {owner for owner, endpoint in owners.items() if self._counts.get(endpoint) == counts[endpoint]}
        ring = [point for point in self._ring if point >> _OWNER & _OWNERS in stay] if stay else []
        for owner, endpoint in owners.items():
            if owner not in stay:
                ring += points(endpoint.name, counts[endpoint])
        ring.sort()
        self._ring, self._owners, self._counts = ring, owners, counts

    def order(self, key: bytes) -> Iterator[Endpoint]:
        return self._clockwise(crc32(key)) if key else self._keyless.order(key)

    def _clockwise(self, hash: int) -> Iterator[Endpoint]:
        """From the key's place on: who has room, then who has none."""
        self._fresh -= 1
        ring, owners, counts, ready = self._ring, self._owners, self._counts, self._ready  # a rebuild makes new ones
        start = bisect_left(ring, hash << _HASH)
        seen: set[Endpoint] = set()
        if start < len(ring):  # the usual case, without ado
            endpoint = owners[ring[start] >> _OWNER & _OWNERS]
            if endpoint in ready and endpoint.share >= 1.0 and self._has_room(endpoint):
                seen.add(endpoint)
                yield endpoint
        full: list[Endpoint] = []
        for at in chain(range(start, len(ring)), range(start)):
            point = ring[at]
            endpoint = owners[point >> _OWNER & _OWNERS]
            if endpoint in seen or endpoint not in ready:
                continue
            if endpoint.share < 1.0 and point & _NUMBERS >= endpoint.share * counts[endpoint]:
                continue
            seen.add(endpoint)
            if self._has_room(endpoint):
                yield endpoint
            else:
                full.append(endpoint)
            if len(seen) == len(ready):
                break
        yield from full
        yield from (endpoint for endpoint in ready if endpoint not in seen)

    def _has_room(self, endpoint: Endpoint) -> bool:
        """Whether with one request more it has at most ceil(bound * its part of all that are in flight, this included).

        Over those who are ready, so that somebody always has.
        """
        load = endpoint.load()
        if not load:
            return True
        if self._fresh < 0:
            self._fresh = len(self._ready) // _SUMMED
            self._load = sum(one.load() for one in self._ready)
            self._weight = sum(one.weight * one.share for one in self._ready)
        return load < self._bound * (self._load + 1) * endpoint.weight * endpoint.share / self._weight

    def observe(self, endpoint: Endpoint, seconds: float, failed: bool) -> None:
        self._keyless.observe(endpoint, seconds, failed)
