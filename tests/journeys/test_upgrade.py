"""USR2: the installed program takes over under the same process id, and nobody notices."""

from __future__ import annotations

import os
import signal
import socket
import threading
from functools import partial
from pathlib import Path
from queue import Queue
from types import TracebackType

import pytest

from tests.support.gateway_process import Start
from tests.support.http import Client, get
from tests.support.load import Load
from tests.support.metrics import Metrics
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually


@pytest.mark.parametrize("workers", [1, 2])
def test_an_upgrade_under_load_loses_nothing(gateway: Start, origin: Origin, workers: int) -> None:
    settings = Settings(origin.address, workers=workers, process={"pid_file": "gateway.pid"})
    one = gateway(settings)
    address, admin, master = one.address(), one.admin, one.pid
    with Load(address) as load:
        for number in range(1, 3):
            before, seen = one.pids(), Metrics(admin)
            one.upgrade()
            one.settled(workers)
            load.goes_on()
            assert not set(one.pids()) & set(before)
            assert (one.address(), one.admin) == (address, admin)
            assert one.status()["master"]["pid"] == master
            now = Metrics(admin)
            now.since(seen)
            assert now("gateway_config_generation") == number + 1
            assert now("gateway_requests_total", code="2xx") > seen("gateway_requests_total", code="2xx") > 0
        assert one.reload().returncode == 0  # the new program is a master like any other
        one.ask(do="scale", workers=3)
        one.settled(3)
        load.goes_on()
    load.clean()
    assert origin.twice() == []
    assert (one.folder / "gateway.pid").read_text() == f"{master}\n"
    one.stop()
    assert not (one.folder / "gateway.pid").exists()
    assert one.log().count("upgraded in place") == 2


def test_what_is_under_way_and_who_waits_is_answered(gateway: Start, settings: Settings, origin: Origin) -> None:
    one = gateway(settings)
    with Client(one.address()) as busy, Client(one.address()) as idle:
        assert not idle.get().closes
        rest = busy.send_most("/echo", b"under way")
        eventually(lambda: origin.under_way)
        one.upgrade()
        busy.sock.sendall(rest)
        answer = busy.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert idle.get().closes
    one.settled(1)


def test_a_broken_configuration_is_refused(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    before = one.pids()
    with Load(one.address()) as load:
        one.write(settings.but(process={"boot_timeout": "never"}))
        one.signal(signal.SIGUSR2)
        eventually(lambda: "upgrade refused, this program goes on" in one.log())
        assert f"{one.config}:" in one.log() and "boot_timeout" in one.log()
        load.goes_on()
    load.clean()
    assert (one.pids(), one.generation()) == (before, 1)
    one.write(settings)
    one.upgrade()
    assert get(one.address()).status == 200


def test_workers_that_do_not_come_up_leave_the_old_ones_serving(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2))
    before = one.pids()
    with Load(one.address()) as load:
        one.write(settings.but(workers=2, process={"boot_timeout": "1ms"}))
        one.signal(signal.SIGUSR2)
        eventually(lambda: "reload refused, generation 1 goes on: not ready within" in one.log())
        load.goes_on()
        one.settled(2)
        assert (one.pids(), one.generation()) == (before, 1)
        one.write(settings.but(workers=2))
        assert one.reload().returncode == 0
        one.settled(2)
        load.goes_on()
    load.clean()


def test_what_only_the_new_program_can_see_is_refused_like_a_reload(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(workers=2))
    before = one.pids()
    reloads = 0

    def has_refused(times: int) -> bool:
        return bool(one.status()["reloads"]["failed"] == times)

    with Load(one.address()) as load, socket.create_server(("127.0.0.1", 0)) as theirs:
        taken = f"127.0.0.1:{theirs.getsockname()[1]}"
        for wrong, why in (
            (settings.but(listeners={**settings.listeners, "more": taken}), "address already in use"),
            (settings.but(log={"access": "/no/such/folder/a.log"}), "cannot open the log file"),
            (settings.but(process={"control": "elsewhere.sock"}), "process.control cannot change"),
            (settings.but(process={"user": "nobody-has-this-name"}), "process.user: there is no user"),
        ):
            one.write(wrong)
            one.signal(signal.SIGUSR2)
            reloads += 1
            eventually(partial(has_refused, reloads), timeout=60)
            assert f"reload refused, generation 1 goes on: {why}" in one.log().replace(
                f"cannot listen on {taken}: ", ""
            )
            load.goes_on()
            assert (one.pids(), one.generation()) == (before, 1)
        # A worker that dies meanwhile is replaced as the old configuration has it.
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: len(one.pids()) == 2 and before[0] not in one.pids())
        one.write(settings.but(workers=2))
        assert one.reload().stdout == "nothing changed in the configuration\ngeneration 2 serves\n"
        one.settled(2)
        load.goes_on()
    # In flight in the worker that was killed: at the most what every caller had.
    assert len(load.report.failures) <= 10, str(load.report)


def test_more_mistakes_than_a_pipe_holds_are_refused(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    unknown = "a_key_nobody_knows_" + "x" * 100
    one.write(settings.but(more="".join(f'[[routes]]\nname = "r{number}"\n{unknown} = 1\n' for number in range(1000))))
    one.signal(signal.SIGUSR2)
    eventually(lambda: "upgrade refused, this program goes on" in one.log())
    one.write(settings)
    assert one.reload().returncode == 0


def test_one_asked_for_during_a_reload_comes_after_it(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    one.signal(signal.SIGHUP)
    # A boot may be too short to be seen; then the reload is over, and what follows must hold all the same.
    eventually(lambda: one.generation() == 2 or any(worker.state == "booting" for worker in one.all_workers()))
    one.signal(signal.SIGUSR2)
    eventually(lambda: one.generation() == 3)
    assert "upgraded in place; generation 2 goes on" in one.log()


def test_commands_meanwhile_wait_or_are_told(gateway: Start, settings: Settings) -> None:
    """From USR2 until the new program serves, whoever asks gets an answer."""
    one = gateway(settings)
    one.signal(signal.SIGUSR2)
    asked = 0
    while one.generation() == 1:
        asked += 1
    assert asked > 0
    one.signal(signal.SIGUSR2)
    eventually(lambda: one.log().count("the installed program reads the configuration") == 2)
    answer = one.ask(do="reload")
    assert answer["ok"] or "upgrade" in answer["error"]
    eventually(lambda: one.generation() >= 3)


class Manager:
    """A service manager that takes every message at once: the kernel keeps ten of them, and says no to the others."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._said: Queue[str] = Queue()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        while (data := self._socket.recv(4096)) != b"enough":
            self._said.put(data.decode())

    def told(self, what: str) -> str:
        """The next message with these words in it."""
        while what not in (said := self._said.get(timeout=60)):
            pass
        return said

    def __enter__(self) -> Manager:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            ours.sendto(b"enough", self._socket.getsockname())
        self._thread.join(15)
        self._socket.close()


def test_the_service_manager_is_told_by_the_new_program_too(gateway: Start, settings: Settings, tmp_path: Path) -> None:
    with Manager(tmp_path / "notify") as manager:
        told = manager.told
        one = gateway(settings, env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"})
        assert "STATUS=generation 1, 1 workers" in told("READY=1")
        one.upgrade()
        assert "STATUS=generation 2, 1 workers" in told("READY=1")
        told("WATCHDOG=1")
        one.signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in told("RELOADING=1")
        assert "STATUS=generation 3, 1 workers" in told("READY=1")
        one.stop()
        told("STOPPING=1")


def test_a_configuration_with_secrets_is_handed_on(gateway: Start, settings: Settings) -> None:
    """Also to the worker that takes a dead one's place before the new program's own generation serves."""
    layer = '[[middleware]]\nkind = "jwt"\nsecret = "{}"\nalgorithms = ["HS256"]\noptional = true\n'.format("s" * 40)
    sticky = 'sticky = { cookie = "c", secret = "hush-1234567890-hush" }\n'
    text = str(settings.but(more=layer)).replace("[upstreams.app]\n", "[upstreams.app]\n" + sticky)
    one = gateway(text)
    for number in range(1, 3):
        one.upgrade()
        one.settled(1)
        assert get(one.address()).status == 200
        assert one.log().count("upgraded in place") == number
    assert one.reload().stdout == "nothing changed in the configuration\ngeneration 4 serves\n"
    assert "hush" not in one.log() and "ssss" not in one.log()
