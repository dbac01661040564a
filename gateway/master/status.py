"""What `gateway status` shows, put together from the scoreboard and from what the kernel says of each process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
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


def child(one: Child) -> dict[str, Any]:
    cells = one.cells
    return {
        "slot": one.slot,
        "generation": one.generation,
        "state": one.state.name.lower(),
        **process(one.pid),
        "connections": int(cells[Fact.OPEN]),
        "busy": int(cells[Fact.BUSY]),
        "tunnels": int(cells[Fact.TUNNELS]),
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
    **more: Any,
) -> dict[str, Any]:
    """The answer to `status`. more: what the master knows besides."""
    known = sorted(children, key=lambda one: (one.generation, one.slot))
    return {
        "version": gateway.__version__,
        "config": config,
        "generation": generation,
        "workers_wanted": wanted,
        "listeners": listeners,
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
        "observer": next((child(one) for one in reversed(known) if one.role is Role.OBSERVER), None),
        "workers": [child(one) for one in known if one.role is Role.WORKER],
    }
