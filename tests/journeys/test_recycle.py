"""Workers that have served long enough are replaced one at a time, the successor first."""

from __future__ import annotations

import pytest

from tests.support.gateway_process import Gateway, Start
from tests.support.load import Load
from tests.support.metrics import Metrics
from tests.support.settings import Settings
from tests.support.waiting import eventually


def recycled(one: Gateway) -> int:
    return int(one.status()["restarts"]["recycled"])


@pytest.mark.parametrize(
    ("workers", "limit", "value"),
    [
        (1, "max_requests", 300),
        (2, "max_requests", 300),
        (1, "max_age", "1s"),
        (2, "max_age", "1s"),
        (1, "max_memory", "1MiB"),
    ],
)
def test_recycling_under_load_loses_nothing(
    gateway: Start, settings: Settings, workers: int, limit: str, value: str | int
) -> None:
    one = gateway(settings.but(workers=workers, process={limit: value}))
    before = one.pids()
    with Load(one.address()) as load:
        seen = Metrics(one.admin)
        eventually(lambda: recycled(one) >= 2 * workers, timeout=40)
        eventually(lambda: not set(one.pids()) & set(before), "everybody of the first is gone", timeout=20)
        load.goes_on()
        Metrics(one.admin).since(seen)
    load.clean()
    now = Metrics(one.admin)
    assert now("gateway_worker_restarts_total", reason="recycled") >= 2 * workers
    assert now("gateway_worker_restarts_total", reason="crash") == 0
    assert "is replaced: " in one.log()


def test_never_fewer_than_wanted_and_one_at_a_time(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2, process={"max_age": "1s"}))
    with Load(one.address(), gets=2, posts=1, fresh=1) as load:
        while recycled(one) < 3:
            everyone = one.all_workers()
            assert len([worker for worker in everyone if worker.state == "ready"]) >= 2
            assert len(everyone) <= 3
    load.clean()


def test_without_a_limit_nobody_is_recycled(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    before = one.pids()
    with Load(one.address()) as load:
        load.goes_on(600)
    load.clean()
    assert (one.pids(), recycled(one)) == (before, 0)
