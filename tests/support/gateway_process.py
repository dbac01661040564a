"""A real gateway: the installed program with its own master, workers and observer, seen from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gateway.master.control import ControlError, ask
from tests.support.settings import Settings
from tests.support.waiting import eventually

_COMMAND = (sys.executable, "-m", "gateway")
_UP = 60.0  # seconds for a start or an end on a busy machine


@dataclass(frozen=True, slots=True)
class Worker:
    slot: int
    pid: int
    generation: int
    state: str
    connections: int
    requests: int


class Gateway:
    """before: a command that the gateway's own is appended to. A process it has ever shown is remembered."""

    def __init__(
        self,
        folder: Path,
        config: Settings | str,
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        before: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "gateway.toml"
        self.control = str(folder / "control.sock")
        self.write(config)
        self._known: set[psutil.Process] = set()
        with (folder / "stderr.txt").open("ab") as stderr, (folder / "stdout.txt").open("ab") as stdout:
            self._process = subprocess.Popen(
                [*before, *_COMMAND, "run", "-c", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **(env or {})},
                pass_fds=tuple(pass_fds),
                start_new_session=True,  # so that a signal to its whole group is none to ours
            )

    def write(self, config: Settings | str) -> None:
        """Another configuration, for the next reload."""
        self.config.write_text(str(config))

    # What it says of itself.

    def ask(self, **question: Any) -> dict[str, Any]:
        """Straight at the control socket. Raises ControlError."""
        return ask(self.control, question, timeout=30)

    def status(self) -> dict[str, Any]:
        answer = self.ask(do="status")
        for one in [answer["master"], answer["observer"], *answer["workers"]]:
            if one is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._known.add(psutil.Process(one["pid"]))
        return answer

    def address(self, listener: str = "web") -> str:
        """Where a listener really is: a port that the kernel chose is a number."""
        return str(self.status()["listeners"][listener])

    @property
    def admin(self) -> str:
        return str(self.status()["admin"])

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def observer(self) -> int:
        return int(self.status()["observer"]["pid"])

    def generation(self) -> int:
        return int(self.status()["generation"])

    def all_workers(self) -> list[Worker]:
        """Also those that leave."""
        return [Worker(**{key: one[key] for key in Worker.__slots__}) for one in self.status()["workers"]]

    def workers(self) -> list[Worker]:
        """Those that serve, by slot."""
        answer = self.all_workers()
        newest = max((worker.generation for worker in answer if worker.state == "ready"), default=0)
        serving = [worker for worker in answer if worker.state == "ready" and worker.generation == newest]
        return sorted(serving, key=lambda worker: worker.slot)

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.workers()]

    def log(self) -> str:
        return (self.folder / "stderr.txt").read_text()

    # What is done to it.

    def up(self) -> Gateway:
        """Wait until it serves."""

        def serves() -> bool:
            if self._process.poll() is not None:
                raise AssertionError(f"the gateway ended with {self._process.returncode}: {self.log()}")
            with contextlib.suppress(ControlError):
                return int(self.status()["generation"]) > 0
            return False

        eventually(serves, f"the gateway is up; {self.folder}", _UP)
        return self

    def settled(self, workers: int) -> list[Worker]:
        """Wait until this many workers serve and nobody else is there."""

        def alone() -> list[Worker]:
            serving = self.workers()
            return serving if len(serving) == workers == len(self.all_workers()) else []

        return eventually(alone, f"{workers} workers and no others", _UP)

    def settled_without_workers(self) -> None:
        eventually(lambda: not self.all_workers(), "no workers", _UP)

    def cli(self, *arguments: str, terminal: bool = False) -> subprocess.CompletedProcess[str]:
        """The real command line, pointed at this gateway. terminal: it believes that a person reads along."""
        command = [*_COMMAND, *arguments, "-c", str(self.config)]
        if terminal:
            return _on_a_terminal(command)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self.cli("reload")

    def upgrade(self) -> None:
        """USR2, and wait until the new program's generation serves."""
        before = self.generation()
        self.signal(signal.SIGUSR2)
        eventually(lambda: self.generation() > before, "the new program serves", _UP)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    # Its end.

    def ended(self, timeout: float = _UP) -> int:
        """Wait for the master's end; its exit status."""
        return self._process.wait(timeout)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def gone(self, timeout: float = _UP) -> None:
        """Wait until none of its processes is left."""
        eventually(lambda: not self._left(), f"every process is gone; left: {self._left()}", timeout)

    def stop(self) -> None:
        """End it gracefully and look after whether all was well to the end."""
        self._remember()
        self.signal(signal.SIGTERM)
        assert self.ended() == 0, self.log()
        assert not self._left(), "processes outlived the master"
        self.blameless()

    def blameless(self) -> None:
        """Raises AssertionError when the log tells of a mistake in the program."""
        for text in ("Traceback", "made a mistake", "the application failed", "Warning:"):
            assert text not in self.log(), self.log()

    def kill(self) -> None:
        """Whatever has become of it: nothing is left."""
        self._remember()
        if self.runs:
            self._process.kill()
        self._process.wait()
        for process in self._left():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(self._known, 5)

    def _remember(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._known.update(psutil.Process(self.pid).children(recursive=True))

    def _left(self) -> list[psutil.Process]:
        return [one for one in self._known if _runs(one)]


Start = Callable[..., Gateway]  # the fixture `gateway` of the journeys


def _on_a_terminal(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with os.fdopen(theirs, "wb", buffering=0) as screen:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=screen, stderr=screen)
        said = bytearray()
        with contextlib.suppress(OSError):  # EIO: the last one who could write has gone
            while data := terminal.read(65536):
                said += data
    return subprocess.CompletedProcess(command, process.wait(60), said.decode().replace("\r\n", "\n"), "")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
