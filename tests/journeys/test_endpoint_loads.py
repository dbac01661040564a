"""What is in flight at each endpoint, counted at the endpoints, when requests come through two workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client
from tests.support.load import SLOW, Load
from tests.support.metrics import Metrics
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Origin()) for _ in range(3)]


def served(gateway: Start, endpoints: str, balance: str) -> Gateway:
    """endpoints: as TOML."""
    settings = str(Settings("ENDPOINTS", workers=2, upstream={"balance": balance}))
    return gateway(settings.replace('["ENDPOINTS"]', endpoints))


@contextmanager
def clients_of_both(one: Gateway, count: int) -> Iterator[list[Client]]:
    """Connections that two workers have accepted."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(one.address())) for _ in range(count)]
        for client in clients:
            assert client.get().status == 200
        eventually(lambda: sum(worker.connections for worker in one.workers()) == count)
        assert all(worker.connections for worker in one.workers())
        yield clients


@pytest.mark.parametrize("weights", [(1, 1, 1), (3, 2, 1)], ids=str)
def test_the_fewest_requests_over_all_workers(gateway: Start, origins: list[Origin], weights: tuple[int, ...]) -> None:
    """Requests are held at the endpoints, one more at a time: each goes to where there is the least to do by weight, so
    the numbers differ by one at the most (of equal weights), whichever worker decides."""
    endpoints = ", ".join(
        f'{{ address = "{origin.address}", weight = {weight} }}'
        for origin, weight in zip(origins, weights, strict=True)
    )
    one = served(gateway, f"[{endpoints}]", "least_requests")
    with clients_of_both(one, 24) as clients:
        for number, client in enumerate(clients, 1):
            client.send("GET", "/held")
            eventually(lambda: sum(origin.under_way for origin in origins) == number)  # noqa: B023  at once
            held = [origin.under_way / weight for origin, weight in zip(origins, weights, strict=True)]
            before = [(origin.under_way - 1) / weight for origin, weight in zip(origins, weights, strict=True)]
            assert max(before) <= min(held), [origin.under_way for origin in origins]
        total = sum(weights)
        assert [origin.under_way for origin in origins] == [24 * weight // total for weight in weights]
        for origin in origins:
            origin.release()
        for client in clients:
            assert client.answer().status == 200


def test_a_limit_is_never_exceeded(gateway: Start, origins: list[Origin]) -> None:
    """`max_requests = 3` while forty callers ask without a pause, and there is always somebody who would take more."""
    limited, *others = origins
    endpoints = ", ".join(
        [f'{{ address = "{limited.address}", max_requests = 3 }}', *[f'"{origin.address}"' for origin in others]]
    )
    one = served(gateway, f"[{endpoints}]", "round_robin")
    with Load(one.address(), gets=40, posts=0, fresh=4, pause=0.0, pages=SLOW) as load:
        load.goes_on(1000)
        assert all(worker.requests for worker in one.workers())
    load.clean()
    assert limited.most == 3
    assert max(origin.most for origin in others) > 3


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_no_more_keeps_nobody_waiting(
    gateway: Start, origins: list[Origin], what: signal.Signals
) -> None:
    """One of its requests is the first that waits, and those of another worker go on all the same."""
    upstream = {"max_requests": 1, "queue": {}}
    settings = str(Settings(origins[0].address, workers=2, upstream=upstream))
    one = gateway(settings.replace("queue = {}", 'queue = { size = 10, timeout = "30s" }'))
    with clients_of_both(one, 12) as clients, ExitStack() as stack:
        before = {worker.pid: worker.requests for worker in one.workers()}
        its: dict[int, list[Client]] = {pid: [] for pid in before}
        for client in clients:
            assert client.get().status == 200
            [pid] = eventually(lambda: [row.pid for row in one.workers() if row.requests > before[row.pid]])
            before[pid] += 1
            its[pid].append(client)
        ill, well = sorted(its, key=lambda pid: len(its[pid]))
        holder, waiter = its[well][:2]
        holder.send("GET", "/held")
        eventually(lambda: origins[0].under_way == 1)
        for waiting, client in enumerate((its[ill][0], waiter), 1):
            client.send("GET", "/hello")
            eventually(lambda: Metrics(one.admin)("gateway_upstream_requests_waiting", upstream="app") == waiting)  # noqa: B023
        os.kill(ill, what)
        if what is signal.SIGSTOP:
            stack.callback(os.kill, ill, signal.SIGCONT)
        origins[0].release()
        assert holder.answer().status == 200
        assert waiter.answer().status == 200
