"""Which accept queues still have somebody to accept from them: where new connections are sent, and what may close.

A socket is closed only when no child holds it any more, so no connection that waits is lost. One for datagrams is
closed only when no child is left that was born with it: who drains answers by it, and its place in the kernel's group
is taken for as long. Decides from what is given to it; keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.config.model import Process
from gateway.master.children import Child
from gateway.master.generation import Generation
from gateway.master.sockets import Listening
from gateway.master.watch import is_hung
from gateway.scoreboard import Role, State


def let_go(child: Child, generation: Generation) -> None:
    """A child is ready: its slot listens, and it may accept."""
    if child.role is Role.OBSERVER:
        if generation.admin is not None:
            generation.admin.listen(child.slot)
    else:
        for listening in generation.listening.values():
            listening.listen(child.slot)
    child.go()


def orphans(child: Child, current: Generation, goes: bool) -> set[str]:
    """The sockets (by key) whose queue no other process will accept from once this child has left. goes: its slot does,
    too."""
    return child.holds - {one.key for one in current.listening.values() if one.shared or not goes}


def close_unheld(opened: dict[str, Listening], children: Iterable[Child], keep: set[str]) -> None:
    """Close the sockets that nobody accepts from any more, but for those to keep."""
    held = {known_by for child in children for known_by in _held(child, opened)}
    for known_by in opened.keys() - held - keep:
        opened.pop(known_by).close()


def close_slots(opened: dict[str, Listening], children: Iterable[Child], wanted: int) -> None:
    """Close the sockets of slots beyond the wanted number, once nobody holds them."""
    held = {(known_by, child.slot) for child in children for known_by in _held(child, opened)}
    for known_by, listening in opened.items():
        for slot in listening.slots:
            if slot >= wanted and (known_by, slot) not in held:
                listening.close_slot(slot)


def _held(child: Child, opened: dict[str, Listening]) -> set[str]:
    """The sockets (by key) that this child still needs."""
    return child.holds | {name for name in child.names if name in opened and opened[name].takes_datagrams}


def steer(current: Generation, children: Sequence[Child], limits: Process) -> None:
    """What is new goes to the slots where somebody accepts: not to one that is leaving, dead or hung."""
    slots = {
        child.slot
        for child in children
        if child.role is Role.WORKER
        and child.serving
        and child.state is State.READY
        and not child.doomed
        and not is_hung(child, limits)
    }
    for listening in current.listening.values():
        listening.steer(slots)
