"""Settings of the process: what a reload can't move, and CPU pinning."""

from __future__ import annotations

import os

import psutil
import pytest

from tests.support.gateway_process import Start
from tests.support.settings import Settings


@pytest.mark.parametrize("key", ["control", "pid_file"])
def test_what_people_find_us_by_can_not_move_in_a_reload(gateway: Start, settings: Settings, key: str) -> None:
    one = gateway(settings)
    before = one.pids()
    one.write(settings.but(process={key: "elsewhere"}))
    result = one.cli("reload", "--control", str(one.control))
    assert result.returncode == 1
    assert f"process.{key} cannot change in a reload" in result.stderr
    assert one.pids() == before
    one.write(settings)
    assert one.reload().returncode == 0


def test_workers_are_pinned_when_asked(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2, process={"cpu_affinity": "auto"}))
    allowed = sorted(os.sched_getaffinity(0))
    for worker in one.workers():
        assert psutil.Process(worker.pid).cpu_affinity() == [allowed[worker.slot % len(allowed)]]
    assert sorted(psutil.Process(one.pid).cpu_affinity()) == allowed
