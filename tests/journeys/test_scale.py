"""More workers and fewer, while people are served."""

from __future__ import annotations

import contextlib
import os
import signal

from tests.support.gateway_process import Start
from tests.support.http import Client
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually


def test_up_and_down_under_load_loses_nothing(gateway: Start, settings: Settings, origin: Origin) -> None:
    one = gateway(settings)
    first = one.pids()
    with Load(one.address()) as load:
        for number in range(5):
            for workers in (3, 1):
                if number:
                    assert one.ask(do="scale", workers=workers)["ok"]
                else:
                    assert one.cli("scale", str(workers)).stdout == f"{workers} workers wanted\n"
                served = one.settled(workers)
                assert [worker.slot for worker in served] == list(range(workers))
                load.goes_on(60)
    load.clean()
    assert one.pids() == first  # who needs not go stays
    assert origin.twice() == []


def test_new_workers_get_their_share(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    one.ask(do="scale", workers=3)
    one.settled(3)
    with Load(one.address(), gets=0, posts=0, fresh=4) as load:
        eventually(lambda: all(worker.requests > 5 for worker in one.workers()), "every worker is asked")
    load.clean()


def test_ttin_and_ttou(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    with Load(one.address()) as load:
        one.signal(signal.SIGTTIN)
        one.settled(2)
        one.signal(signal.SIGTTIN)
        one.settled(3)
        one.signal(signal.SIGTTOU)
        one.settled(2)
        one.signal(signal.SIGTTOU)
        one.settled(1)
        one.signal(signal.SIGTTOU)  # never none
        assert one.status()["workers_wanted"] == 1
        one.settled(1)
        one.signal(signal.SIGTTIN)
        one.settled(2)
        one.signal(signal.SIGHUP)  # until the next reload
        one.settled(1)
        load.goes_on()
    load.clean()


def test_connections_without_a_request_are_answered_later(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=3))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(one.address())) for _ in range(60)]
        one.ask(do="scale", workers=1)
        for client in clients[:30]:
            client.send("GET", "/hello")
        assert [client.answer().status for client in clients[:30]] == [200] * 30
        for client in clients[30:]:
            client.send("POST", "/echo", b"late")
        answers = [client.answer() for client in clients[30:]]
        assert [answer.body for answer in answers] == [b"late"] * 30
        assert {answer.closes for answer in answers} == {True, False}
    one.settled(1)


def test_who_waits_in_a_queue_is_answered(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=3))
    leaving = one.pids()[1:]
    with contextlib.ExitStack() as stack:
        for pid in leaving:
            os.kill(pid, signal.SIGSTOP)
        clients = [stack.enter_context(Client(one.address())) for _ in range(60)]
        for client in clients:
            client.send("GET", "/hello")
        one.ask(do="scale", workers=1)
        for pid in leaving:
            os.kill(pid, signal.SIGCONT)
        assert [client.answer().status for client in clients] == [200] * 60
    one.settled(1)


def test_too_many_or_none_is_refused(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    assert one.cli("scale", "0").returncode == 2
    assert not one.ask(do="scale", workers=129)["ok"]
    assert not one.ask(do="scale", workers="two")["ok"]
    assert not one.ask(do="scale", workers=True)["ok"]
    one.settled(1)
