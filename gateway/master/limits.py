"""What this machine allows: processors, descriptors, queue lengths.

Knows affinity, cgroups, rlimits and sysctls. Never knows the configuration: `warnings` takes plain numbers, and where
the kernel keeps its files is an argument.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
SELF_CGROUP = Path("/proc/self/cgroup")
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")

# What a worker has open besides connections: logs, scoreboard, pipes, the event loop's own, a resolver, plug-ins.
_HOUSEHOLD = 64
# What the master keeps per worker besides its sockets: both ways of the pipe, a process handle, one to spare.
_PER_WORKER = 4


def cpus(*, allowed: int | None = None, cgroups: Path = CGROUPS, self_cgroup: Path = SELF_CGROUP) -> int:
    """How many CPUs this process may really use: affinity and the tightest cgroup quota above us, at least 1.

    allowed: how many the affinity mask has, if not that of this process.
    """
    if allowed is None:
        allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *_quotas(cgroups, self_cgroup)]))


def _quotas(cgroups: Path, self_cgroup: Path) -> Iterator[int]:
    for line in _read(self_cgroup).splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            # Version 2; next to version 1 (hybrid) it is mounted one level down.
            for mount in (cgroups, cgroups / "unified"):
                for folder in _upwards(mount, path):
                    yield from _quota(_read(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for mount in (cgroups / controllers, cgroups / "cpu"):
                for folder in _upwards(mount, path):
                    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
                    yield from _quota(f"{quota} {period}")


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it, up to the mount; inside a container only the last may exist."""
    parts = [part for part in path.split("/") if part not in ("", "..")]  # a namespace can make it begin with /..
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _quota(text: str) -> Iterator[int]:
    """Whole CPUs out of "quota period"; nothing for "max" or -1, which mean no limit, and for what is no number."""
    parts = text.split()
    if len(parts) == 2 and all(part.isdigit() for part in parts) and int(parts[1]):
        yield math.ceil(int(parts[0]) / int(parts[1]))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def pin(slot: int) -> int:
    """Keep this process on one CPU of those it may use, each slot on another while they last. Returns the CPU."""
    allowed = sorted(os.sched_getaffinity(0))
    cpu = allowed[slot % len(allowed)]
    os.sched_setaffinity(0, {cpu})
    return cpu


def raise_nofile() -> int:
    """Raise the limit of open descriptors as far as it goes without privilege. Returns what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft
    return hard


def nofile() -> int:
    """How many descriptors this process, and each of its children, may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def somaxconn(path: Path = SOMAXCONN) -> int:
    """The longest accept queue the kernel grants in this network namespace."""
    text = _read(path).strip()
    return int(text) if text.isdigit() else 4096  # the default since Linux 5.4


def warnings(
    *,
    nofile: int,
    workers: int,
    connections_per_worker: int,
    upstream_connections_per_worker: int,
    backlogs: Mapping[str, int],
    somaxconn: int,
) -> list[str]:
    """What the configuration promises and this machine can't hold, one sentence each.

    backlogs: by the listener's name.
    """
    found = []
    need = connections_per_worker + upstream_connections_per_worker + len(backlogs) + _HOUSEHOLD
    if need > nofile:
        found.append(
            f"a worker may open {nofile} descriptors (RLIMIT_NOFILE), but {connections_per_worker} connections and"
            f" {upstream_connections_per_worker} to upstreams need {need}: raise LimitNOFILE or lower max_connections"
        )
    need = workers * (len(backlogs) + _PER_WORKER) + _HOUSEHOLD
    if need > nofile:
        found.append(
            f"the master may open {nofile} descriptors (RLIMIT_NOFILE), but {workers} workers with"
            f" {len(backlogs)} listeners need {need}: raise LimitNOFILE"
        )
    found += [
        f"listener {name}: the backlog of {backlog} is cut to {somaxconn} by net.core.somaxconn"
        for name, backlog in backlogs.items()
        if backlog > somaxconn
    ]
    return found
