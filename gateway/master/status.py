"""What `gateway status` shows, put together from the scoreboard and from what the kernel says of each process."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import psutil

import gateway
from gateway.master.children import Child
from gateway.scoreboard import Cells, Fact, Role, Word


def process(pid: int) -> dict[str, Any]:
    """CPU seconds and memory of a process; zeros when it has just gone. private_bytes: what is not shared (USS)."""
    try:
        one = psutil.Process(pid)
        times = one.cpu_times()
        return {
            "pid": pid,
            "cpu_seconds": round(times.user + times.system, 2),
            "private_bytes": one.memory_full_info().uss,
            "descriptors": one.num_fds(),
            "age_seconds": round(time.time() - one.create_time(), 1),
        }
    except psutil.Error:
        return {"pid": pid, "cpu_seconds": 0.0, "private_bytes": 0, "descriptors": 0, "age_seconds": 0.0}


def child(one: Child, tunnels: Mapping[str, int]) -> dict[str, Any]:
    """tunnels: by listener, the cell that counts its open ones; who has none is not told."""
    cells = one.cells
    return {
        "slot": one.slot,
        "generation": one.generation,
        "state": one.state.name.lower(),
        **process(one.pid),
        "connections": int(cells[Fact.OPEN]),
        "busy": int(cells[Fact.BUSY]),
        "tunnels": {name: int(cells[at]) for name, at in tunnels.items() if cells[at]},
        "requests": one.requests,
        "upstream_connections": int(cells[Fact.UPSTREAM_OPEN]),
        "loop_lag_ms": round(cells[Fact.LAG] / 1000, 1),
        "silent_seconds": round(one.silence(), 1),
    }


def status(
    children: Iterable[Child],
    header: Cells,
    *,
    config: str,
    generation: int,
    wanted: int,
    listeners: dict[str, str],
    tunnels: Mapping[str, int],
    **more: Any,
) -> dict[str, Any]:
    """The answer to `status`. tunnels: as for `child`. more: what the master knows besides."""
    known = sorted(children, key=lambda one: (one.generation, one.slot))
    workers = [child(one, tunnels) for one in known if one.role is Role.WORKER]
    open_tunnels: Counter[str] = Counter()
    for worker in workers:
        open_tunnels.update(worker["tunnels"])
    return {
        "version": gateway.__version__,
        "config": config,
        "generation": generation,
        "workers_wanted": wanted,
        "listeners": listeners,
        "tunnels": dict(open_tunnels),
        **more,
        "reloads": {
            "asked": header[Word.RELOADS],
            "failed": header[Word.RELOADS_FAILED],
            "last_ok": bool(header[Word.RELOAD_OK]),
            "last_time": header[Word.RELOAD_TIME],
        },
        "restarts": {
            "crash": header[Word.RESTARTS_CRASH],
            "hang": header[Word.RESTARTS_HANG],
            "recycled": header[Word.RESTARTS_RECYCLED],
            "boot": header[Word.RESTARTS_BOOT],
        },
        "master": process(os.getpid()),
        "observer": next((child(one, {}) for one in reversed(known) if one.role is Role.OBSERVER), None),
        "workers": workers,
    }
