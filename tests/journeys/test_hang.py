"""A worker whose event loop stands still is noticed, spared and replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from tests.support.gateway_process import Start
from tests.support.http import Client, Cut, get
from tests.support.settings import Settings
from tests.support.waiting import eventually, within

TIMEOUT = 3.0  # of the heartbeat; after half of it nobody new is sent to a worker
STILL = {"heartbeat_timeout": f"{TIMEOUT:g}s"}
# Backtracks for longer than anybody's patience when a path is all "a".
ENDLESS = "[[routes]]\nname = 'endless'\npath = { regex = '/(a+)+b' }\nrespond = {}\n"


def test_a_stopped_worker_is_spared_and_replaced(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2, process=STILL))
    victim, other = one.pids()
    os.kill(victim, signal.SIGSTOP)
    stopped = time.monotonic()
    eventually(lambda: one.status()["workers"][0]["silent_seconds"] > TIMEOUT / 2 + 0.3)
    asked = 0
    while time.monotonic() - stopped < TIMEOUT:
        with within(2.0, "a request while one of two workers stands still"):
            assert get(one.address()).status == 200
        asked += 1
    assert asked > 10
    eventually(lambda: victim not in one.pids())
    assert one.settled(2)[1].pid == other
    assert one.status()["restarts"] == {"crash": 0, "hang": 1, "recycled": 0, "boot": 0}
    assert f"worker 0 [generation 1, pid {victim}]: its event loop has stood still for 3." in one.log()


def test_who_waited_for_it_is_answered_by_the_successor(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(process=STILL))
    os.kill(one.pids()[0], signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(one.address())) for _ in range(20)]
        for client in clients:
            client.send("GET", "/hello")
        assert [client.answer().status for client in clients] == [200] * 20


def test_a_loop_that_is_kept_busy_leaves_its_stacks_behind(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2, process=STILL, more=ENDLESS))
    before = one.pids()
    with Client(one.address()) as guilty:
        guilty.send("GET", "/" + "a" * 60)
        guilty.sock.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            try:
                guilty.answer()
            except Cut:
                pass
    eventually(lambda: one.status()["restarts"]["hang"] == 1)
    served = one.settled(2)
    assert len({worker.pid for worker in served} & set(before)) == 1
    log = one.log()
    stacks = log.partition("its stacks follow")[2]
    assert "most recent call first" in stacks
    assert "routes.py" in stacks
    assert get(one.address()).status == 200
