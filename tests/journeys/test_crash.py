"""A process that dies by force takes with it what it was doing, and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import psutil
import pytest

from tests.support.gateway_process import Start
from tests.support.http import Client, get
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually


def peers(pid: int) -> set[int]:
    """The ports from which clients are connected to this process."""
    found = psutil.Process(pid).net_connections("tcp")
    return {one.raddr.port for one in found if one.raddr and one.status == psutil.CONN_ESTABLISHED}


@pytest.mark.parametrize("workers", [1, 2])
def test_only_what_the_dead_worker_had_is_lost(
    gateway: Start, settings: Settings, origin: Origin, workers: int
) -> None:
    one = gateway(settings.but(workers=workers))
    with Load(one.address(), fresh=4) as load:
        for death in range(1, 4):
            load.goes_on(100)
            victim = one.workers()[-1]
            earlier = len(load.report.failures)
            os.kill(victim.pid, signal.SIGSTOP)  # so that what it has does not change while we look
            had = peers(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)
            eventually(lambda died=victim.pid: died not in one.pids())  # type: ignore[misc]
            successor = one.settled(workers)[-1]
            assert (successor.slot, successor.generation) == (victim.slot, victim.generation)
            load.goes_on(100)
            lost = load.report.failures[earlier:]
            assert {failure.port for failure in lost} <= had, load.report
            assert one.status()["restarts"]["crash"] == death
        report = load.stop()
    assert len(report.failures) <= 3 * 12  # at most one for each caller and death
    assert f"worker {victim.slot} [generation 1, pid {victim.pid}] is gone: it ended with signal SIGKILL" in one.log()
    assert origin.twice() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_who_waited_in_the_queue_is_answered_by_the_successor(gateway: Start, settings: Settings, workers: int) -> None:
    one = gateway(settings.but(workers=workers))
    victims = one.pids()
    with contextlib.ExitStack() as stack:
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)
        clients = [stack.enter_context(Client(one.address())) for _ in range(30)]
        for client in clients[:15]:
            client.send("GET", "/hello")
        for client in clients[15:20]:
            client.send("POST", "/echo", b"x" * 30_000)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert [client.answer().status for client in clients[:20]] == [200] * 20
        assert [client.get().status for client in clients[20:]] == [200] * 10
    one.settled(workers)


def test_one_that_always_dies_young_is_given_more_and_more_time(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    pauses = []
    for _ in range(5):
        pid = one.pids()[0]
        os.kill(pid, signal.SIGKILL)
        died = time.monotonic()
        eventually(lambda died=pid: one.pids() not in ([], [died]))  # type: ignore[misc]
        pauses.append(time.monotonic() - died)
        assert get(one.address()).status == 200
    assert pauses[3] > 0.6 and pauses[4] > 1.2, pauses  # 0.1 s doubled, give or take a fifth
    assert one.reload().returncode == 0
    os.kill(one.pids()[0], signal.SIGKILL)  # a reload forgives
    died = time.monotonic()
    one.settled(1)
    assert time.monotonic() - died < pauses[4]


def test_when_the_master_is_killed_the_workers_finish_and_go(
    gateway: Start, settings: Settings, origin: Origin
) -> None:
    one = gateway(settings.but(workers=2))
    one.status()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(one.address())) for _ in range(10)]
        rest = [client.send_most("/echo", b"under way") for client in clients]
        eventually(lambda: origin.under_way == 10)
        one.signal(signal.SIGKILL)
        assert one.ended() == -signal.SIGKILL
        for client, last in zip(clients, rest, strict=True):
            client.sock.sendall(last)
        assert [client.answer().status for client in clients] == [200] * 10
    one.gone()
    one.blameless()


def test_a_killed_gateway_leaves_nothing_in_the_way(gateway: Start, settings: Settings) -> None:
    """The files it left are replaced and its port is free."""
    settings = settings.but(process={"pid_file": "gateway.pid"})
    one = gateway(settings)
    address = one.address()
    assert get(address).status == 200
    one.signal(signal.SIGKILL)
    one.gone()
    assert one.ended() == -signal.SIGKILL
    assert (one.folder / "control.sock").exists() and (one.folder / "gateway.pid").exists()
    two = gateway(settings.but(listeners={"web": address}), folder=one.folder)
    assert get(two.address()).status == 200
    assert (two.folder / "gateway.pid").read_text() == f"{two.pid}\n"
    two.stop()
    assert not (two.folder / "control.sock").exists() and not (two.folder / "gateway.pid").exists()
