"""What a proxy costs, seen from outside: CPU time and memory of its whole process tree.

Master, helpers and workers count together: a user pays for all of them.
"""

import time
from collections.abc import Mapping

import psutil

from bench.process import tree


def cpu_clock(pid: int) -> int:
    """Nanoseconds of CPU time, user and system, of a process: all its threads, also those that have ended.

    The kernel's per-process clock (its number is made as in ``clock_getcpuclockid(3)``). ``/proc/PID/stat``
    counts in ticks of 10 ms and ``/proc/PID/schedstat`` only the first thread.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def cpu_by_process(pid: int) -> dict[int, int]:
    """The CPU clock of every process of a tree."""
    clocks = {}
    for member in tree(pid):
        try:
            clocks[member.pid] = cpu_clock(member.pid)
        except OSError:  # gone since it was listed
            continue
    return clocks


def cpu_spent(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """Nanoseconds between two readings; a process that came in between counts from its birth."""
    return sum(clock - before.get(pid, 0) for pid, clock in after.items())


def private_memory(pid: int) -> dict[str, int]:
    """Bytes that each process of a tree shares with nobody (USS), by "pid title"."""
    memory = {}
    for member in tree(pid):
        try:
            title = " ".join(member.cmdline())
            memory[f"{member.pid} {title}"] = int(member.memory_full_info().uss)
        except psutil.Error:
            continue
    return memory
