"""The PID file, with real processes that hold it, die and race for it."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import StartError
from gateway.master.pidfile import PidFile, PidFileError

# The parallel test runner has a thread, which Python 3.12 warns about; a child here waits for no lock of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "gateway.pid"


class Child:
    """A forked process that does something and then waits to be told to go."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._reading, writing = os.pipe()
        stay, self._leash = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._leash)
            try:
                action()
                os.write(writing, b"done")
            except PidFileError as error:
                os.write(writing, str(error).encode())
            finally:
                os.read(stay, 1)
                os._exit(0)
        os.close(writing)
        os.close(stay)
        self.answer = os.read(self._reading, 4096).decode()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        os.kill(self.pid, number)
        os.waitpid(self.pid, 0)
        os.close(self._reading)
        os.close(self._leash)


def test_the_file_holds_the_pid_and_goes_away(path: Path) -> None:
    pidfile = PidFile(path)
    pidfile.create()
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o700 == 0o700
    assert list(path.parent.iterdir()) == [path]  # nothing half-made is left
    pidfile.remove()
    assert not path.exists()
    pidfile.remove()


def test_a_gateway_that_runs_keeps_its_file(path: Path) -> None:
    other = Child(PidFile(path).create)
    assert other.answer == "done"
    with pytest.raises(PidFileError) as caught:
        PidFile(path).create()
    assert isinstance(caught.value, StartError)
    assert str(caught.value) == f"another gateway is running with PID {other.pid} ({path})"
    assert path.read_text() == f"{other.pid}\n"
    assert list(path.parent.iterdir()) == [path]
    other.end()


def test_a_file_that_a_killed_gateway_left_is_replaced(path: Path) -> None:
    other = Child(PidFile(path).create)
    other.end(signal.SIGKILL)
    assert path.exists()
    pidfile = PidFile(path)
    pidfile.create()
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.remove()


def test_the_pid_of_a_living_stranger_is_a_leftover_too(path: Path) -> None:
    path.parent.mkdir()
    for content in (f"{os.getppid()}\n", "1\n", ""):
        path.write_text(content)
        pidfile = PidFile(path)
        pidfile.create()
        assert path.read_text() == f"{os.getpid()}\n"
        pidfile.remove()


def test_a_worker_that_outlives_its_master_does_not_hold_the_file(path: Path) -> None:
    reading, writing = os.pipe()

    def master_with_a_worker() -> None:
        PidFile(path).create()
        worker = os.fork()
        if worker == 0:
            time.sleep(60)
            os._exit(0)
        os.write(writing, b"%d" % worker)

    master = Child(master_with_a_worker)
    worker = int(os.read(reading, 32))
    try:
        master.end(signal.SIGKILL)
        pidfile = PidFile(path)
        pidfile.create()
        pidfile.remove()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


def test_a_worker_that_leaves_does_not_free_the_file(path: Path) -> None:
    pidfile = PidFile(path)
    pidfile.create()
    Child(lambda: None).end()
    refused = Child(PidFile(path).create)
    assert "another gateway is running" in refused.answer
    refused.end()
    pidfile.remove()


def test_of_many_starts_at_once_one_gets_through(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("1\n")  # a leftover, the harder case
    begin = time.monotonic() + 0.2

    def start() -> None:
        time.sleep(max(0.0, begin - time.monotonic()))
        PidFile(path).create()

    reading, writing = os.pipe()
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                start()
                os.write(writing, b"+%d\n" % os.getpid())
            except PidFileError:
                os.write(writing, b"-\n")
            finally:
                time.sleep(60)
                os._exit(0)
        children.append(child)
    try:
        answers = b""
        while answers.count(b"\n") < len(children):
            answers += os.read(reading, 4096)
        winners = [line[1:] for line in answers.decode().splitlines() if line.startswith("+")]
        assert len(winners) == 1
        assert path.read_text() == f"{winners[0]}\n"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_the_file_of_a_successor_is_not_removed(path: Path) -> None:
    pidfile = PidFile(path)
    pidfile.create()
    path.unlink()
    path.write_text("42\n")
    pidfile.remove()
    assert path.read_text() == "42\n"


def test_what_is_no_pid_file_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious\n")
    with pytest.raises(PidFileError, match=r"gateway\.pid is not a PID file and is left alone"):
        PidFile(path).create()
    assert path.read_text() == "precious\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["directory", "dangling link"])
def test_a_path_that_cannot_be_written(path: Path, kind: str) -> None:
    path.parent.mkdir()
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(PidFileError, match=f"cannot write the PID file {path}: "):
        PidFile(path).create()


def test_a_parent_that_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PidFileError, match=r"cannot write the PID file .*: not a directory"):
        PidFile(tmp_path / "file" / "gateway.pid").create()
