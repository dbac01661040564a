"""Who must go: children that are overdue, whose event loop stands still, or that are worn out.

It only notes and kills; that a successor comes is the master's doing when it compares wanted with actual.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable, Sequence

from gateway.config.model import Process
from gateway.master.children import Child
from gateway.master.status import process
from gateway.scoreboard import Cells, Role, State, Word

log = logging.getLogger("gateway")

_ABORT_GRACE = 2.0  # seconds between ABRT, on which a hung worker dumps its stacks, and KILL
_AGAIN = 1.0  # seconds until a KILL that did not help is sent once more
_MEMORY_EVERY = 5.0  # seconds between two looks at workers' memory: reading it costs the kernel milliseconds


def is_hung(child: Child, limits: Process) -> bool:
    """Whether it must not get new connections: silent for half the time after which it is killed."""
    return child.silence() > limits.heartbeat_timeout / 2


class Watch:
    def __init__(self, header: Cells) -> None:
        self._header = header
        self._next_memory = 0.0

    def overdue(self, children: Iterable[Child]) -> None:
        """Kill whoever has outlived the time it was given."""
        now = time.monotonic()
        for child in children:
            if child.kill_at and now > child.kill_at:
                child.doomed = child.doomed or "overdue"
                child.kill(signal.SIGKILL)
                child.kill_at = now + _AGAIN

    def heartbeats(self, children: Iterable[Child], limits: Process, generation: int) -> None:
        """Kill whoever stands still, or does not come up in the generation that serves."""
        for child in children:
            if child.state is State.BOOTING:
                if child.generation == generation and child.age > limits.boot_timeout:
                    child.doomed = "hang"
                    child.kill(signal.SIGKILL)
            elif not child.doomed and child.silence() > limits.heartbeat_timeout:
                silence = child.silence()
                log.error("%s: its event loop has stood still for %.1f s; its stacks follow", child.name, silence)
                child.doomed = "hang"
                child.kill(signal.SIGABRT)
                child.kill_at = time.monotonic() + _ABORT_GRACE

    def wear(self, children: Sequence[Child], limits: Process) -> None:
        """Note which of the serving workers is worn out. One at a time is replaced, the successor first."""
        if not (limits.max_requests or limits.max_age or limits.max_memory):
            return
        workers = [child for child in children if child.role is Role.WORKER]
        if any(child.retire or child.state is State.BOOTING for child in workers):
            return
        look_at_memory = limits.max_memory is not None and time.monotonic() >= self._next_memory
        if look_at_memory:
            self._next_memory = time.monotonic() + _MEMORY_EVERY
        for child in workers:
            child.retire = _worn(child, limits, look_at_memory)
            if child.retire:
                log.info("%s is replaced: %s", child.name, child.retire)
                self._header[Word.RESTARTS_RECYCLED] += 1
                return


def _worn(child: Child, limits: Process, look_at_memory: bool) -> str:
    """Why this worker is to be replaced, "" for no reason."""
    if limits.max_requests and child.requests > limits.max_requests * child.wear:
        return f"{child.requests} requests"
    if limits.max_age and child.age > limits.max_age * child.wear:
        return f"age {child.age:.0f} s"
    if look_at_memory and limits.max_memory:
        used = process(child.pid)["private_bytes"]
        if used > limits.max_memory:
            return f"{used >> 20} MiB of memory"
    return ""
