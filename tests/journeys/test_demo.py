"""`gateway demo`, as a newcomer meets it: it starts, the lines it prints work, Ctrl-C leaves nothing behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import eventually


class Demo:
    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "gateway", "demo", "--workers", "2"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder, start_new_session=True
        )
        self.said = ""
        self._ear = threading.Thread(target=self._listen, daemon=True)
        self._ear.start()
        eventually(lambda: "Ctrl-C stops everything." in self.said, timeout=30)
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.said += line

    def get(self, path: str) -> str:
        [address] = set(re.findall(r"http://[0-9.:]+(?=/hello)", self.said))
        with urllib.request.urlopen(address + path, timeout=10) as response:
            return str(response.read().decode())

    def leave(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(20)
        self._ear.join(5)
        return code


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    one = Demo(tmp_path)
    try:
        yield one
    finally:
        one.leave()


def test_what_it_says_works_and_ctrl_c_leaves_nothing(demo: Demo) -> None:
    answers = [demo.get("/hello") for _ in range(8)]
    assert {answer.split()[1] for answer in answers} == {"one", "two"}
    assert all("got GET /hello from 127.0.0.1" in answer for answer in answers)

    [config] = re.findall(r"configuration: (\S+)", demo.said)
    for command in ("status", "reload"):
        done = subprocess.run([sys.executable, "-m", "gateway", command, "-c", config], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    status = subprocess.run(
        [sys.executable, "-m", "gateway", "status", "--json", "-c", config], capture_output=True, text=True
    )
    victim = re.findall(r'"state": "ready",\s+"pid": (\d+)', status.stdout)[-1]
    psutil.Process(int(victim)).kill()
    assert demo.get("/still-there").startswith("application ")

    family = demo.family + psutil.Process(demo.process.pid).children(recursive=True)
    assert demo.leave() == 0
    eventually(lambda: not any(_runs(one) for one in family), timeout=10)
    assert not Path(config).exists()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
