"""What each signal to the master does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import sys
import termios
import time

import pytest

from tests.support import access_log
from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client, get
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually, steadily, within


def slow(one: Gateway, origin: Origin, milliseconds: int, stack: contextlib.ExitStack) -> Client:
    """A client whose request is under way at the origin."""
    client = stack.enter_context(Client(one.address()))
    before = origin.under_way
    client.send("GET", f"/slow?ms={milliseconds}")
    eventually(lambda: origin.under_way > before)
    return client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT], ids=lambda number: number.name)
def test_the_first_finishes_what_is_under_way(
    gateway: Start, settings: Settings, origin: Origin, number: signal.Signals
) -> None:
    one = gateway(settings.but(workers=2))
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(Client(one.address()))
        assert not idle.get().closes
        busy = slow(one, origin, 1500, stack)
        one.signal(number)
        answer = busy.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert busy.ended() and idle.ended()
    with within(5, "the end, long before the drain timeout"):
        assert one.ended() == 0
    one.gone()
    one.blameless()
    assert not (one.folder / "control.sock").exists()


def test_nobody_is_cut_by_a_stop_under_load(gateway: Start, settings: Settings) -> None:
    """Whoever is connected gets an answer; afterwards connections are refused and nothing else."""
    one = gateway(settings.but(workers=2))
    with Load(one.address(), fresh=4) as load:
        assert one.cli("stop").returncode == 0
        assert one.ended() == 0
    failures = load.stop().failures
    assert all(failure.port == 0 and "Refused" in failure.reason for failure in failures), str(load.report)


def test_one_that_goes_to_the_whole_group_counts_once(gateway: Start, settings: Settings, origin: Origin) -> None:
    """As Ctrl-C on a terminal does."""
    one = gateway(settings.but(workers=2))
    with contextlib.ExitStack() as stack:
        busy = slow(one, origin, 700, stack)
        os.killpg(one.pid, signal.SIGINT)
        assert busy.answer().status == 200
    assert one.ended() == 0
    assert "again" not in one.log()


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.03])
def test_a_stop_in_the_middle_of_a_reload(gateway: Start, settings: Settings, pause: float) -> None:
    one = gateway(settings.but(workers=2))
    with Client(one.address()) as idle:
        assert idle.get().status == 200
        one.signal(signal.SIGHUP)
        time.sleep(pause)
        one.signal(signal.SIGTERM)
        with within(5, "a stop, whatever drains"):
            assert one.ended() == 0
    one.gone()
    one.blameless()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT], ids=lambda number: number.name)
def test_the_second_ends_at_once(gateway: Start, settings: Settings, origin: Origin, number: signal.Signals) -> None:
    one = gateway(settings.but(workers=2))
    with contextlib.ExitStack() as stack:
        slow(one, origin, 20_000, stack)
        one.signal(number)
        eventually(lambda: "info master stopping" in one.log())
        one.signal(number)
        with within(2, "the second signal"):
            assert one.ended() == 0
    one.gone()


def test_the_drain_has_an_end(gateway: Start, settings: Settings, origin: Origin) -> None:
    one = gateway(settings.but(process={"drain_timeout": "1s"}))
    with contextlib.ExitStack() as stack:
        cut = slow(one, origin, 20_000, stack)
        one.signal(signal.SIGTERM)
        with within(4, "a stop with a drain timeout of one second"):
            assert one.ended() == 0
        answer = cut.answer()
        assert (answer.status, answer.closes) == (503, True) and "drain_timeout" in answer.fields["proxy-status"]
    one.gone()


def test_usr1_reopens_the_logs_and_no_line_is_lost(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2))
    log, rotated = one.folder / "access.log", []
    with Load(one.address()) as load:
        for number in range(3):
            old = log.rename(one.folder / f"access.log.{number}")
            rotated.append(old)
            if number:
                one.signal(signal.SIGUSR1)
            else:
                assert one.cli("reopen").returncode == 0
            eventually(log.exists, "a new file")
            load.goes_on()
            eventually(lambda: log.stat().st_size > 0, "lines in the new file")
    load.clean()
    one.stop()
    lines = access_log.lines(*rotated, log)
    assert len(lines) == load.report.requests
    assert {line["status"] for line in lines} == {200}
    assert {line["reason"] for line in lines} == {""}


def test_usr1_reopens_the_error_log(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(log={"error": "error.log"}))
    log = one.folder / "error.log"
    old = log.rename(one.folder / "error.log.1")
    one.signal(signal.SIGUSR1)
    eventually(log.exists)
    eventually(lambda: "log files reopened" in log.read_text())
    assert "generation 1 serves" in old.read_text()
    assert one.log() == ""


def test_winch_stops_the_workers_and_keeps_the_sockets(gateway: Start, settings: Settings, origin: Origin) -> None:
    one = gateway(settings.but(workers=2))
    address, master = one.address(), one.pid
    with contextlib.ExitStack() as stack:
        busy = slow(one, origin, 300, stack)
        one.signal(signal.SIGWINCH)
        assert busy.answer().closes
        one.settled_without_workers()
        clients = [stack.enter_context(Client(address)) for _ in range(10)]
        for client in clients:
            client.send("GET", "/hello")
        with pytest.raises(TimeoutError):
            clients[0].sock.settimeout(0.3)
            clients[0].answer()
        clients[0].sock.settimeout(15)
        assert get(one.admin, "/ready").status == 503
        one.signal(signal.SIGHUP)
        assert [client.answer().status for client in clients] == [200] * 10
    one.settled(2)
    assert (one.address(), one.pid) == (address, master)
    assert get(one.admin, "/ready").status == 200


def test_winch_and_hup_under_load_lose_nothing(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2))
    with Load(one.address()) as load:
        for _ in range(3):
            one.signal(signal.SIGWINCH)
            one.settled_without_workers()
            one.signal(signal.SIGHUP)
            one.settled(2)
            load.goes_on()
    load.clean()


def test_a_worker_that_is_told_to_go_is_replaced(gateway: Start, settings: Settings) -> None:
    """TERM to a worker itself: what it has is answered, and who comes meanwhile is answered by the successor."""
    one = gateway(settings)
    with Load(one.address()) as load:
        worker = one.pids()[0]
        os.kill(worker, signal.SIGTERM)
        eventually(lambda: one.pids() not in ([], [worker]))
        load.goes_on()
    load.clean()


def test_a_terminal_that_changes_its_size_stops_nothing(gateway: Start, settings: Settings) -> None:
    """The kernel sends WINCH to whatever runs in the foreground of a terminal."""
    ours, theirs = os.openpty()
    try:
        on_a_terminal = "import fcntl, os, sys, termios; fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0); "
        run = (sys.executable, "-c", on_a_terminal + "os.execv(sys.argv[2], sys.argv[2:])", str(theirs))
        one = gateway(settings, before=run, pass_fds=(theirs,))
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        assert one.reload().returncode == 0  # signals are taken up in the order in which they came
        before = one.settled(1)
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 88, 0, 0))
        steadily(lambda: one.workers() and one.pids() == [before[0].pid], 0.5)
        assert "stopping the workers" not in one.log()
        one.stop()
    finally:
        os.close(theirs)
        os.close(ours)
