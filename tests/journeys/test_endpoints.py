"""Endpoints that fail, drain and come back, and what all workers make of it together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.endpoints import condition, row
from tests.support.gateway_process import Start
from tests.support.http import Client, get
from tests.support.metrics import Metrics
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually

TRAFFIC = """
[upstreams.app.outlier]
consecutive_failures = 2
eject_for = "%s"
"""


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Origin()) for _ in range(3)]


def group(origins: list[Origin], more: str = "", workers: int = 2) -> Settings:
    return Settings(tuple(origin.address for origin in origins), workers=workers, more=more)


def test_all_workers_act_on_what_one_has_learned(gateway: Start, origins: list[Origin]) -> None:
    one = gateway(group(origins, TRAFFIC % "1h", workers=3))
    gone = origins[2]
    gone.stop()
    eventually(lambda: get(one.address()).status == 200 and condition(one, gone.address) == "ejected")
    assert row(one, gone.address)["ejections"] == 1
    metrics = Metrics(one.admin)
    assert metrics("gateway_endpoint_ready", endpoint=gone.address) == 0
    assert metrics("gateway_endpoint_ejections_total", endpoint=gone.address) == 1
    gone.start()
    before = gone.requests
    for _ in range(60):
        assert get(one.address()).status == 200
    assert gone.requests == before


def test_draining_an_endpoint(gateway: Start, origins: list[Origin]) -> None:
    one = gateway(group(origins[:2]))
    leaving, staying = origins[:2]
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(one.address())) for _ in range(4)]
        for client in clients:
            client.send("GET", "/held")
        eventually(lambda: leaving.under_way == staying.under_way == 2)
        assert row(one, leaving.address)["in_flight"] == 2
        told = one.cli("endpoint", "drain", "--no-wait", "app", leaving.address)
        assert told.returncode == 0, told.stderr
        before = leaving.requests
        for _ in range(10):
            assert get(one.address()).status == 200
        one.reload()
        for _ in range(10):
            assert get(one.address()).status == 200
        assert leaving.requests == before
        for origin in origins:
            origin.release()
        for client in clients:
            assert client.answer().status == 200
    waited = one.cli("endpoint", "drain", "app", leaving.address)
    assert waited.stdout.splitlines()[-1] == "0 in flight"
    assert one.cli("endpoint", "undrain", "app", leaving.address).returncode == 0
    eventually(lambda: get(one.address()).status == 200 and leaving.requests > before)
    wrong = one.cli("endpoint", "drain", "app", "127.0.0.1:1")
    assert (wrong.returncode, wrong.stderr) == (1, "there is no endpoint 127.0.0.1:1 of upstream app\n")


def test_a_limit_of_requests_holds_over_all_workers(gateway: Start, origins: list[Origin]) -> None:
    settings = group(origins[:2], workers=2)
    limited = f'{{ address = "{origins[0].address}", max_requests = 3 }}'
    one = gateway(str(settings).replace(f'"{origins[0].address}"', limited))
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(one.address())) for _ in range(12)]
        for client in clients:
            client.send("GET", "/held")
        eventually(lambda: origins[0].under_way + origins[1].under_way == 12)
        assert origins[0].under_way == 3
