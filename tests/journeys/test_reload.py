"""A reload takes effect as a whole or not at all, and costs no request."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client, get
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually

HEALTH = '[[routes]]\nname = "health"\npath = { exact = "/healthz" }\nrespond = { body = "%s" }\n'


@pytest.mark.parametrize(("workers", "reloads"), [(1, 20), (2, 50)])
def test_reloads_under_load_lose_nothing(gateway: Start, origin: Origin, workers: int, reloads: int) -> None:
    settings = Settings(origin.address, workers=workers)
    one = gateway(settings)
    with Load(one.address()) as load:
        for number in range(1, reloads + 1):
            one.write(settings.but(more=HEALTH % number))
            if number % 10:
                answer = one.ask(do="reload")
                assert answer["ok"] and answer["generation"] == number + 1
            else:
                assert one.reload().returncode == 0
            assert get(one.address(), "/healthz").body == b"%d" % number
            load.goes_on(20)
    load.clean()
    assert origin.twice() == []
    one.settled(workers)
    assert one.status()["reloads"]["failed"] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_scaling_in_the_file_under_load_loses_nothing(gateway: Start, settings: Settings, workers: int) -> None:
    one = gateway(settings.but(workers=workers))
    with Load(one.address()) as load:
        for count in (3, 1, 2, workers):
            one.write(settings.but(workers=count))
            assert one.reload().returncode == 0
            one.settled(count)
            load.goes_on(50)
    load.clean()


def unchanged(one: Gateway, load: Load, before: list[int], generation: int) -> None:
    load.goes_on(50)
    load.clean()
    one.settled(len(before))
    assert one.pids() == before
    assert one.generation() == generation


def test_a_broken_file_changes_nothing(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    before = one.pids()
    with Load(one.address()) as load:
        one.write(settings.but(process={"workers": "many", "drain_timeout": "soon"}))
        refused = one.reload()
        assert refused.returncode == 1
        assert refused.stdout == ""
        line = one.config.read_text().splitlines().index('workers = "many"') + 1
        assert f"{one.config}:{line}:" in refused.stderr
        assert "process.drain_timeout" in refused.stderr
        one.write("this is [not TOML")
        refused = one.cli("reload", "--control", one.control)
        assert refused.returncode == 1
        assert f"{one.config}:1:" in refused.stderr
        assert "Traceback" not in refused.stderr
        unchanged(one, load, before, 1)
    status = one.status()
    assert status["reloads"]["failed"] == 2
    assert not status["reloads"]["last_ok"]
    one.write(settings)
    assert one.reload().returncode == 0
    assert one.status()["reloads"]["last_ok"]


def test_an_address_in_use_changes_nothing(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    before = one.pids()
    with socket.create_server(("127.0.0.1", 0)) as theirs, Load(one.address()) as load:
        taken = f"127.0.0.1:{theirs.getsockname()[1]}"
        one.write(settings.but(listeners=settings.listeners | {"new": "127.0.0.1:0", "taken": taken}))
        refused = one.reload()
        assert (refused.returncode, refused.stderr) == (1, f"cannot listen on {taken}: address already in use\n")
        unchanged(one, load, before, 1)
        assert list(one.status()["listeners"]) == ["web"]


def test_endpoints_for_which_there_is_no_room_change_nothing(gateway: Start, settings: Settings) -> None:
    """Strangers must not share what is known of one of them."""
    one = gateway(settings)
    before = one.pids()
    with Load(one.address()) as load:
        one.write(settings.but(origin=tuple(f"127.0.0.1:{port}" for port in range(1, 2000))))
        refused = one.reload()
        assert refused.returncode == 1
        assert "the scoreboard has no room for the endpoints of this configuration" in refused.stderr
        unchanged(one, load, before, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_do_not_come_up_change_nothing(gateway: Start, settings: Settings, workers: int) -> None:
    settings = settings.but(workers=workers)
    one = gateway(settings)
    before = one.pids()
    with Load(one.address()) as load:
        listeners = settings.listeners | {"new": ":0"}
        one.write(settings.but(workers=3, process={"boot_timeout": "1ms"}, listeners=listeners))
        refused = one.reload()
        assert refused.returncode == 1
        assert refused.stderr.startswith("not ready within 0.001 s: ")
        unchanged(one, load, before, 1)
    one.write(settings)
    assert one.reload().returncode == 0


def test_a_reload_says_what_changed(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    assert one.reload().stdout == "nothing changed in the configuration\ngeneration 2 serves\n"
    one.write(settings.but(more=HEALTH % "ok", process={"drain_timeout": "5s"}))
    said = one.reload().stdout.splitlines()
    assert said == ["~ process.drain_timeout: 10s -> 5s", "+ routes.health", "generation 3 serves"]
    one.write(settings)
    assert "- routes.health" in one.reload().stdout.splitlines()


def test_a_reload_that_moves_the_logs(gateway: Start, settings: Settings, origin: Origin) -> None:
    """Whoever drains writes to the end where he always wrote, also when the logs are reopened meanwhile."""
    settings = settings.but(process={"drain_timeout": "60s"})  # commands take their time on a busy machine
    one = gateway(settings.but(log={"access": "access.log", "error": "error.log"}))
    with Client(one.address()) as client:
        rest = client.send_most("/echo", b"late")
        eventually(lambda: origin.under_way)
        one.write(settings.but(log={"access": "off", "error": "error.log"}))
        assert one.reload().returncode == 0
        assert one.cli("reopen").returncode == 0
        client.sock.sendall(rest)
        assert client.answer().body == b"late"
    one.settled(1)
    assert "/echo" in (one.folder / "access.log").read_text()
    assert "/echo" not in (one.folder / "error.log").read_text()


def test_another_spelling_of_an_address_is_the_same_address(gateway: Start, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    one = gateway(settings.but(listeners={"web": f"127.0.0.1:{port}"}))
    with Load(one.address()) as load:
        for spelled in (f"localhost:{port}", f"127.0.0.1:{port}"):
            one.write(settings.but(listeners={"web": spelled}))
            assert one.reload().returncode == 0
            load.goes_on()
    load.clean()


def test_hup_does_the_same(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    before = one.pids()
    one.write(settings.but(more=HEALTH % "ok"))
    one.signal(signal.SIGHUP)
    eventually(lambda: one.generation() == 2)
    one.settled(1)
    assert one.pids() != before
    assert get(one.address(), "/healthz").body == b"ok"
    assert "generation 2 serves; + routes.health" in one.log()
    one.write("nonsense")
    one.signal(signal.SIGHUP)
    eventually(lambda: f"reload refused, generation 2 goes on: {one.config}:1:" in one.log())
    assert get(one.address(), "/healthz").body == b"ok"


def test_many_hups_at_once(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    with Load(one.address()) as load:
        for _ in range(10):
            one.signal(signal.SIGHUP)
        eventually(lambda: one.generation() > 1)
        one.settled(1)
        load.goes_on()
    load.clean()
    assert one.status()["reloads"]["failed"] == 0


def test_two_reloads_at_once_both_get_an_answer(gateway: Start, settings: Settings) -> None:
    one = gateway(settings)
    command = [sys.executable, "-m", "gateway", "reload", "-c", str(one.config)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=30)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all("serves" in text for text in said), said
