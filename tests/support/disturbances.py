"""What may happen to a gateway in the middle of anything, and must change nothing of what it knows."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.support.gateway_process import Gateway
from tests.support.waiting import eventually


def _reload(one: Gateway) -> None:
    answer = one.ask(do="reload")
    assert answer["ok"], answer


def _worker_killed(one: Gateway) -> None:
    workers = one.pids()
    os.kill(workers[0], signal.SIGKILL)
    eventually(lambda: len(one.pids()) == len(workers) and workers[0] not in one.pids(), "another worker serves")


def _observer_killed(one: Gateway) -> None:
    observer = one.observer
    os.kill(observer, signal.SIGKILL)
    eventually(lambda: _another_observer(one, observer), "another observer is there")


def _another_observer(one: Gateway, than: int) -> bool:
    there = one.status()["observer"]
    return there is not None and there["pid"] != than and there["state"] == "ready"


def _upgraded(one: Gateway) -> None:
    one.upgrade()


DISTURBANCES: dict[str, Callable[[Gateway], None]] = {
    "reload": _reload,
    "a worker killed": _worker_killed,
    "the observer killed": _observer_killed,
    "upgrade": _upgraded,
}
