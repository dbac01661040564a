"""What is counted over all workers, with real ones: exact, kept over reloads, crashes and upgrades, and blocked by
nobody who dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway_process import Gateway, Start
from tests.support.hammer import by_processes
from tests.support.http import Client, get
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually

_SECONDS = 10.0
# By path: requests per second, and burst. Together far less than four processes ask for on a busy machine; and should
# that keep all of them from asking for two seconds, no account is full by then, of which nobody could tell.
_RATES = {"/20": (20, 40), "/60": (60, 120), "/150": (150, 300)}


def _limited(path: str, layer: str, rest: str = "respond = { status = 200 }") -> str:
    name = path.strip("/")
    return f'[[routes]]\nname = "r{name}"\npath = "{path}"\nmiddleware = [{layer}]\n{rest}\n'


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_what_is_admitted_is_rate_times_time_and_burst(gateway: Start, settings: Settings, workers: int) -> None:
    layers = [
        _limited(path, f'{{ kind = "rate_limit", rate = "{rate}/s", burst = {burst} }}')
        for path, (rate, burst) in _RATES.items()
    ]
    one = gateway(settings.but(workers=workers, more="\n".join(layers)))
    counts = by_processes(4, one.address(), _SECONDS, [*_RATES])
    # The kernel gave out 16 connections: most workers had their part in it.
    assert len([worker for worker in one.workers() if worker.requests]) > workers // 2
    for path, (rate, burst) in _RATES.items():
        admitted = sum(count.admitted.get(path, 0) for count in counts)
        # As the gateway saw it: it cannot have begun before the first was sent nor ended after the last was answered.
        # And when it refused one less than one was left, so all that had come by then was used, but for what came while
        # the account was full: in the first moment, until everybody asked.
        longest = max(count.last_heard for count in counts) - min(count.first_sent for count in counts)
        shortest = max(count.refused[path] for count in counts) - max(count.first_heard[path] for count in counts)
        assert 0.99 * (burst + rate * shortest) <= admitted <= burst + rate * longest
        assert shortest > 0.9 * longest, "the machine was too busy to ask for more than was to be had"


def test_what_was_used_up_stays_so(gateway: Start, settings: Settings) -> None:
    """Over a reload, a crash and an upgrade, and over a limit that has become another one."""
    hourly = settings.but(workers=2, more=_limited("/a", '{ kind = "rate_limit", rate = "1/h", burst = 6 }'))
    one = gateway(hourly)
    address = one.address()

    def left() -> str:
        answer = get(address, "/a")
        assert answer.status == 200
        return answer.fields["ratelimit"].partition(";")[2].partition(";")[0]

    assert [left(), left()] == ["r=5", "r=4"]
    assert one.reload().returncode == 0
    one.settled(2)
    assert left() == "r=3"
    for pid in one.pids():
        os.kill(pid, signal.SIGKILL)
    one.settled(2)
    assert left() == "r=2"
    one.upgrade()
    one.settled(2)
    assert left() == "r=1"
    one.write(hourly.but(more=_limited("/a", '{ kind = "rate_limit", rate = "1/h", burst = 5 }')))
    assert one.reload().returncode == 0
    one.settled(2)
    assert get(address, "/a").status == 429


# The lock.


def _ledger_of(pid: int) -> str:
    """The ledger as a file that others can open."""
    folder = Path(f"/proc/{pid}/fd")
    return next(str(fd) for fd in folder.iterdir() if "gateway-ledger" in str(fd.readlink()))


_LOCKER = """
import fcntl, signal, sys
file = open(sys.argv[1], "r+b", buffering=0)
fcntl.lockf(file, fcntl.LOCK_EX, 1 << 20)  # of every account
print("held", flush=True)
signal.pause()
"""
_ONE = '{ kind = "rate_limit", key = "route", rate = "100000/s" }'


def test_who_stands_still_with_the_lock_blocks_nobody(gateway: Start, settings: Settings) -> None:
    """A process that holds the lock of every account, as a worker does for one, and neither goes on nor dies; then it
    is killed."""
    layer = '{ kind = "rate_limit", key = "route", rate = "1/h", burst = 6 }'
    one = gateway(settings.but(workers=2, more=_limited("/a", layer)))
    pids = one.pids()
    with Client(one.address()) as client:
        assert client.get("/a").status == 200
        process = subprocess.Popen(
            [sys.executable, "-c", _LOCKER, _ledger_of(pids[0])], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            assert [client.get("/a").status for _ in range(7)] == [200] * 5 + [429] * 2
        finally:
            process.kill()
            process.communicate()
        assert client.get("/a").status == 429
    assert one.pids() == pids


_FLOCK = "hhqqi"  # struct flock: type, whence, start, length, pid


def _holder(fd: int) -> int:
    """Who has a lock on an account, 0 for nobody."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1 << 20, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


@contextlib.contextmanager
def _busy(one: Gateway, clients: int) -> Iterator[threading.Event]:
    """Requests without a pause until it is left; connections that are cut are made anew."""
    ending = threading.Event()

    def ask() -> None:
        while not ending.is_set():
            with contextlib.suppress(Exception), Client(address) as client:
                while not ending.is_set():
                    client.get("/a")

    address = one.address()
    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield ending
    finally:
        ending.set()
        for thread in threads:
            thread.join(20)


def test_a_worker_that_is_killed_in_the_critical_section_blocks_nobody(gateway: Start, settings: Settings) -> None:
    """A real one: stopped again and again until it stands there, and killed."""
    one = gateway(settings.but(workers=2, more=_limited("/a", _ONE), process={"heartbeat_timeout": "60s"}))
    victim, other = one.pids()
    fd = os.open(_ledger_of(victim), os.O_RDWR)
    try:
        with _busy(one, 12):  # so that the kernel gives some of them to each
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                os.kill(victim, signal.SIGSTOP)
                time.sleep(0.0005)  # until it really stands
                if _holder(fd) == victim:
                    break
                os.kill(victim, signal.SIGCONT)
                time.sleep(0.001)
            else:
                raise AssertionError("it was never found there")
            assert _holder(fd) == victim
            served = _requests(one, other)
            eventually(lambda: _requests(one, other) > served + 100, "nobody waits for it")
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: _holder(fd) != victim, "the kernel drops the lock")
    finally:
        os.close(fd)
    one.settled(2)
    assert other in one.pids() and victim not in one.pids()
    assert [get(one.address(), "/a").status for _ in range(8)] == [200] * 8


def _requests(one: Gateway, pid: int) -> int:
    return next(worker.requests for worker in one.all_workers() if worker.pid == pid)


# Holds.


def _held(settings: Settings, most: int) -> Settings:
    layer = f'{{ kind = "concurrency_limit", key = "route", max = {most} }}'
    # Long enough for a busy machine: who is cut at the end of a drain holds nothing any more.
    patient = {"drain_timeout": "60s"}
    return settings.but(workers=2, process=patient, more=_limited("/held", layer, 'upstream = "app"'))


def _holding(one: Gateway, origin: Origin, stack: contextlib.ExitStack, many: int) -> list[Client]:
    """Clients whose requests are under way, as many as may be: one more is refused."""
    address = one.address()
    clients = [stack.enter_context(Client(address)) for _ in range(many)]
    for client in clients:
        client.send("GET", "/held")
    eventually(lambda: origin.under_way == many)
    assert get(address, "/held").status == 429
    return clients


def _is_cut(client: Client) -> bool:
    client.sock.setblocking(False)  # nobody reads from it any more
    try:
        return client.sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_a_killed_worker_holds_nothing_and_the_others_hold_what_they_have(
    gateway: Start, settings: Settings, origin: Origin
) -> None:
    one = gateway(_held(settings, 12))
    with contextlib.ExitStack() as stack:
        clients = _holding(one, origin, stack, 12)
        eventually(lambda: all(worker.connections for worker in one.workers()), "both have some")
        os.kill(one.pids()[0], signal.SIGKILL)
        one.settled(2)
        freed = sum(map(_is_cut, clients))
        assert 0 < freed < 12
        for _ in range(freed):
            stack.enter_context(Client(one.address())).send("GET", "/held")
        eventually(lambda: origin.requests == 12 + freed, "as many as the dead one had")
        assert get(one.address(), "/held").status == 429
        origin.release()
        eventually(lambda: get(one.address(), "/held").status == 200)


def test_a_reload_keeps_count(gateway: Start, settings: Settings, origin: Origin) -> None:
    one = gateway(_held(settings, 3))
    with contextlib.ExitStack() as stack:
        clients = _holding(one, origin, stack, 3)
        assert one.reload().returncode == 0
        assert len(one.workers()) == 2 and get(one.address(), "/held").status == 429
        one.upgrade()
        assert get(one.address(), "/held").status == 429
        origin.release()
        assert [client.answer().status for client in clients] == [200] * 3
    eventually(lambda: get(one.address(), "/held").status == 200)
