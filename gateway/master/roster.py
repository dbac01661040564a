"""The children that are there: made, heard and buried here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gateway.child import hear
from gateway.master.children import Child
from gateway.master.events import Events, Handler
from gateway.master.generation import Generation
from gateway.master.nursery import Nursery
from gateway.master.sockets import Listening
from gateway.scoreboard import Role, State


class Roster:
    """Iterates over them in the order of their birth.

    opened: by key, all sockets the master has open. told: called with a child and what it says of other
    things than itself, descriptors with it.
    inherited: the children of the master before an upgrade, ours from now on.
    """

    def __init__(
        self,
        nursery: Nursery,
        events: Events,
        opened: dict[str, Listening],
        told: Callable[[Child, dict[str, Any], list[int]], None],
        inherited: list[Child],
    ) -> None:
        self._nursery = nursery
        self._events = events
        self._opened = opened
        self._told = told
        self._children = inherited
        for child in inherited:
            events.watch(child.channel, self._hearing(child))

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children)

    def __len__(self) -> int:
        return len(self._children)

    def __contains__(self, child: object) -> bool:
        return child in self._children

    def of(self, generation: Generation) -> list[Child]:
        return [child for child in self._children if child.generation == generation.number]

    def spawn(self, role: Role, slot: int, generation: Generation) -> None:
        """One more. Raises GatewayError and OSError."""
        child = self._nursery.spawn(role, slot, generation, self._opened.values(), self._children)
        self._children.append(child)
        self._events.watch(child.channel, self._hearing(child))

    def bury(self, child: Child) -> State:
        """It has ended: nothing of it is left. Returns the state in which it did."""
        self._hearing(child)()  # its last words
        was = child.state
        child.happened("exit")
        child.holds.clear()
        self._children.remove(child)
        self._events.unwatch(child.channel)
        child.channel.close()
        self._nursery.buried(child)
        return was

    def _hearing(self, child: Child) -> Handler:
        def heard() -> None:
            while True:
                try:
                    message, fds = hear(child.channel)
                except BlockingIOError:
                    return
                if message is None:
                    self._events.unwatch(child.channel)
                    return
                match message["say"]:
                    case "ready":
                        child.happened("ready")
                    case "failed":
                        child.why = message["why"]
                    case "left":
                        child.holds.clear()
                    case _:
                        self._told(child, message, fds)

        return heard
