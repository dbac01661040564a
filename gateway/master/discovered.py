"""What the observers have found: kept for those who come, told to those who are here.

Only the master places series. So an endpoint that was found gets its cells here, and the lists that children are told
say where these are, for each child has a plan of its own since it was forked. An endpoint that has been gone for long,
found or listed, gives its cells back when nobody can write into them any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.child import batch, is_read, tell
from gateway.config.model import Config
from gateway.config.upstreams import Endpoint
from gateway.errors import StartError
from gateway.findings import read, written
from gateway.master.children import Child
from gateway.master.generation import Generation
from gateway.metrics.plan import FLIGHT, UPSTREAM_OPEN, Plan
from gateway.scoreboard import Condition, Mark, Scoreboard, Word
from gateway.truth import Truth, now_ms

log = logging.getLogger("gateway")

_GONE = 600.0  # seconds after which an endpoint that is nobody's gives its cells back
_SWEEP = 5.0  # seconds between two looks for such
_MOST_FORGOTTEN = 200  # endpoints named as gone in one message

Key = tuple[str, str]  # upstream and address


@dataclass(slots=True)
class _Owed:
    """What a child was not told yet."""

    names: dict[str, None] = field(default_factory=dict)  # upstreams, in the order in which they changed
    gone: dict[Key, None] = field(default_factory=dict)


class Discovered:
    def __init__(self, board: Scoreboard, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self._board = board
        self._truth = Truth(board)
        self._plan = plan
        self._clock = clock
        # The endpoints that have cells, also from a program before this one, and since when they have been nobody's.
        self.placed: dict[Key, float | None] = dict.fromkeys(plan.endpoints())
        self._left_out: dict[tuple[int, str], tuple[Endpoint, ...]] = {}  # by generation: lists that found no room
        self._owed: dict[Child, _Owed] = {}
        self._next_sweep = 0.0

    def check(self, config: Config) -> None:
        """Raises StartError when there is no room for what a configuration lists: strangers must not be taken for one
        another."""
        if not self._plan.has_room(config):
            raise StartError(
                "the scoreboard has no room for the endpoints of this configuration beside those that have been here"
                f" of late: one that is gone makes room after {_GONE / 60:g} minutes"
            )

    def begin(self, old: Generation | None, new: Generation) -> None:
        """A new generation gets its cells, and takes over what is looked up as before."""
        self._plan.cover(new.config)
        for key in self._plan.endpoints():
            self.placed.setdefault(key, None)
        if old is None:
            return
        kept = old.findings.kept(old.config, new.config)
        for name, found in kept.found.items():
            kept.found[name] = self._admitted(new, name, found)
        new.findings = kept

    def heard(self, generation: Generation, children: Iterable[Child], message: dict[str, Any]) -> None:
        """An observer's word about its own generation."""
        known = generation.findings
        for name, part in message["found"].items():
            upstream = generation.config.upstreams.get(name)
            if upstream is None or upstream.discovery is None:
                continue
            known.trouble.pop(name, None)
            if part["trouble"]:
                known.trouble[name] = part["trouble"]
            if part["endpoints"] is not None:
                self._take(generation, name, read(part["endpoints"]))
            self._owe(generation, children, name)

    def _take(self, generation: Generation, name: str, listed: tuple[Endpoint, ...]) -> None:
        before = generation.findings.found.get(name)
        found = self._admitted(generation, name, listed)
        generation.findings.found[name] = found
        if before is not None:  # at the very first there is nobody beside whom to start slowly
            stayed = {str(one.address) for one in before}
            self._start_slowly([(name, str(one.address)) for one in found if str(one.address) not in stayed])

    def _admitted(self, generation: Generation, name: str, listed: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Those for whom there are cells."""
        upstream = generation.config.upstreams[name]
        admitted = []
        for one in listed:
            key = (name, str(one.address))
            if self._plan.admit(name, upstream, key[1]):
                self.placed[key] = None
                for owed in self._owed.values():
                    owed.gone.pop(key, None)
                admitted.append(one)
        where = (generation.number, name)
        if len(admitted) == len(listed):
            self._left_out.pop(where, None)
        else:
            if where not in self._left_out:
                rest = len(listed) - len(admitted)
                log.error("%s: the scoreboard is full: %d of %d endpoints are left out", name, rest, len(listed))
            self._left_out[where] = listed
        return tuple(admitted)

    def _start_slowly(self, keys: list[Key]) -> None:
        """Newcomers count as up since now, which is what slow start goes by."""
        with self._truth.changing():
            for key in keys:
                record = self._truth.record(self._plan.blocks["endpoint"][key])
                if record[Mark.CONDITION] == Condition.UP:
                    record[Mark.SINCE] = now_ms()
            self._truth.changed()

    # Telling the children.

    def _owe(self, generation: Generation, children: Iterable[Child], name: str) -> None:
        for child in children:
            if child.generation == generation.number:
                self._owed.setdefault(child, _Owed()).names[name] = None

    def owes(self, generation: Generation | None = None) -> bool:
        """Whether anybody, or a child of this generation, was not told everything yet."""
        return any(generation is None or child.generation == generation.number for child in self._owed)

    def turn(self, current: Generation | None, starting: Generation | None, children: Collection[Child]) -> None:
        """On each turn of the loop: tell who is ready to hear, and see whose cells come free."""
        generations = {one.number: one for one in (current, starting) if one is not None}
        for child in [child for child in self._owed if child not in children or child.generation not in generations]:
            del self._owed[child]
        for child, owed in list(self._owed.items()):
            if is_read(child.channel):
                self._tell(child, owed, generations[child.generation])
                if not (owed.names or owed.gone):
                    del self._owed[child]
        now = self._clock()
        if now >= self._next_sweep and self.placed:
            self._next_sweep = now + _SWEEP
            self._sweep(now, list(generations.values()), children)

    def _tell(self, child: Child, owed: _Owed, generation: Generation) -> None:
        found = batch({name: self._part(generation, name) for name in owed.names})
        gone = list(owed.gone)[:_MOST_FORGOTTEN]
        if tell(child.channel, {"do": "endpoints", "found": found, "gone": gone}):
            for name in found:
                del owed.names[name]
            for key in gone:
                del owed.gone[key]

    def _part(self, generation: Generation, name: str) -> dict[str, Any]:
        found = generation.findings.found.get(name)
        return {
            "endpoints": None if found is None else written(found),
            "places": [self._plan.places(name, str(one.address)) for one in found or ()],
            "trouble": generation.findings.trouble.get(name, ""),
        }

    # Endpoints that are gone.

    def _sweep(self, now: float, generations: list[Generation], children: Collection[Child]) -> None:
        """Take back the cells of endpoints that nobody has, or had a moment ago."""
        here = {
            (name, str(one.address))
            for generation in generations
            for name, upstream in generation.config.upstreams.items()
            for one in generation.findings.members(name, upstream)
        }
        numbers = {generation.number for generation in generations}
        # One that drains was not told that an endpoint is gone, and may ask it still.
        is_settled = not self._owed and all(child.generation in numbers for child in children)
        over = []
        for key, since in self.placed.items():
            if key in here:
                self.placed[key] = None
            elif since is None:
                self.placed[key] = now
            elif now - since >= _GONE and is_settled and not self._is_used(key):
                over.append(key)
        for key in over:
            self._give_back(key)
            for child in children:
                self._owed.setdefault(child, _Owed()).gone[key] = None
        if over:
            for number, name in list(self._left_out):
                for generation in generations:
                    if generation.number == number and name in generation.config.upstreams:
                        self._take(generation, name, self._left_out[number, name])
                        self._owe(generation, children, name)
        for where in [where for where in self._left_out if where[0] not in numbers]:
            del self._left_out[where]

    def _is_used(self, key: Key) -> bool:
        """Whether anything is under way to an endpoint, or a connection open."""
        places = self._plan.places(*key)
        gauges = [places[kind] + at for kind, at in (("flight", FLIGHT), ("upstream", UPSTREAM_OPEN)) if kind in places]
        return any(self._truth.over_all_workers(gauge) for gauge in gauges)

    def _give_back(self, key: Key) -> None:
        del self.placed[key]
        cells = self._plan.give_back(*key)
        with self._truth.changing():
            for number in range(self._board.header[Word.SEATS_USED]):
                seat = self._board.seat(number)
                for cell in cells:
                    seat[cell] = 0
            self._truth.changed()
