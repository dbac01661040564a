"""The honest client of the slow attacks: what it counts, and how that is told."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from bench.process import free_port
from bench.serving import site
from bench.slow import ATTACKS, GOAL_MS, QUIET, Seen, as_text, attack, honest, verdict


def test_the_honest_client_counts_what_it_gets(tmp_path: Path) -> None:
    seen = Seen("origin", QUIET)
    with site(4096, tmp_path) as at, honest(at.origin, seen):
        time.sleep(0.5)
    assert seen.latencies.total > 10
    assert seen.failures.total() == 0
    assert seen.slowest / 1000 >= seen.p99_ms > 0


def test_and_what_it_does_not_get() -> None:
    seen = Seen("nobody", QUIET)
    with honest(free_port(), seen):
        time.sleep(0.1)
    assert seen.latencies.total == 0
    assert seen.failures["ConnectionRefusedError"] >= 5
    assert not seen.good


def phase(peer: str, micros: int, failures: int = 0) -> Seen:
    seen = Seen(peer, QUIET)
    seen.latencies.add(micros)
    if failures:
        seen.failures["TimeoutError"] = failures
    return seen


def test_how_it_is_told() -> None:
    good, late, lost = phase("gateway", 1000), phase("gateway", int(GOAL_MS * 1000) + 5000), phase("nginx", 1000, 2)
    assert (good.good, late.good, lost.good) == (True, False, False)
    lines = as_text([good, late, lost]).splitlines()
    assert lines[1].split()[-5:] == ["1", "1.0", "1.0", "0.0", "0"]
    assert lines[2].endswith("p99 is not below 200 ms")
    assert lines[3].split()[-2:] == ["2", "TimeoutError"]
    assert verdict([good, lost]).endswith("yes")  # it is about the gateway
    assert verdict([good, late]).endswith("NO")


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attacks_are_commands(name: str) -> None:
    command = attack(name, 8080, 1000, 25)
    assert command[0] == shutil.which("slowhttptest")
    assert command[command.index("-c") + 1] == "1000"
    assert command[-1].startswith("http://127.0.0.1:8080/")
