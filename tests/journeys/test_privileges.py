"""Started as root with a user of its own for the workers: they have no rights and miss none."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import stat
from pathlib import Path

import psutil
import pytest

from tests.support import access_log
from tests.support.gateway_process import Gateway, Start
from tests.support.http import get
from tests.support.load import Load
from tests.support.settings import Settings
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")

NOBODY = pwd.getpwnam("nobody")
GROUP = grp.getgrgid(NOBODY.pw_gid).gr_name


def credentials(pid: int) -> tuple[set[int], set[int], str]:
    """Real, effective and saved ids; the further groups."""
    process = psutil.Process(pid)
    text = Path(f"/proc/{pid}/status").read_text()
    groups = next(line for line in text.splitlines() if line.startswith("Groups:"))
    return set(process.uids()), set(process.gids()), groups.partition(":")[2].strip()


def powerless(one: Gateway) -> None:
    for pid in (*one.pids(), one.observer):
        uids, gids, groups = credentials(pid)
        assert (uids, gids) == ({NOBODY.pw_uid}, {NOBODY.pw_gid})
        assert set(groups.split()) <= {str(NOBODY.pw_gid)}
        text = Path(f"/proc/{pid}/status").read_text()
        effective = next(line.split()[1] for line in text.splitlines() if line.startswith("CapEff:"))
        assert int(effective, 16) == 0
    assert credentials(one.pid)[0] == {0}


def test_only_the_master_is_root(gateway: Start, settings: Settings) -> None:
    settings = settings.but(workers=2, process={"user": "nobody"})
    one = gateway(settings)
    powerless(one)
    assert stat.S_IMODE(Path(one.control).stat().st_mode) == 0o600
    with Load(one.address()) as load:
        assert one.reload().returncode == 0
        one.settled(2)
        powerless(one)
        one.ask(do="scale", workers=3)
        one.settled(3)
        os.kill(one.pids()[0], signal.SIGKILL)
        one.settled(3)
        powerless(one)
        load.goes_on()
        failures = load.stop().failures
    assert len(failures) <= 10
    assert get(one.admin, "/metrics").status == 200
    assert len(one.status()["workers"]) == 3


def test_logs_that_only_root_may_write_are_written_and_reopened(gateway: Start, settings: Settings) -> None:
    log = {"access": "access.log", "error": "error.log"}
    one = gateway(settings.but(workers=2, process={"user": "nobody", "group": GROUP}, log=log))
    powerless(one)
    one.folder.chmod(0o700)
    access, error = one.folder / "access.log", one.folder / "error.log"
    with Load(one.address()) as load:
        old = access.rename(one.folder / "access.log.1")
        error.rename(one.folder / "error.log.1")
        assert one.cli("reopen").returncode == 0
        load.goes_on()
        eventually(lambda: access.stat().st_size > 0)
    load.clean()
    one.stop()
    lines = access_log.lines(old, access)
    assert len(lines) == load.report.requests
    for file in (access, error):
        assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (0, 0o640)
    assert "log files reopened" in error.read_text()
    assert "Traceback" not in error.read_text()


def test_an_upgrade_under_load_goes_the_same_way(gateway: Start, settings: Settings) -> None:
    one = gateway(settings.but(process={"user": "nobody"}))
    with Load(one.address()) as load:
        one.upgrade()
        one.settled(1)
        powerless(one)
        load.goes_on()
    load.clean()
