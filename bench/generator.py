"""The load generator as the bench sees it: one or more ``bench.load`` processes that act as one."""

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.histogram import Histogram
from bench.load import Tally
from bench.process import answering, next_line
from bench.serving import Site

SPARE_FILES = 64  # descriptors a generator needs beside its connections


class LoadFailed(Exception):
    """The proxy did not answer as it should before a measure could begin."""


class Generator:
    """Connections that are open and have each been answered once."""

    def __init__(self, processes: list[subprocess.Popen[str]], log: Path) -> None:
        self.processes = processes
        self.log = log

    def run(self, seconds: float) -> Tally:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"run {seconds}\n")
            process.stdin.flush()
        return self.hear()

    def hear(self) -> Tally:
        return together([msgspec.json.decode(next_line(p, self.log), type=Tally) for p in self.processes])


def together(tallies: list[Tally]) -> Tally:
    """What several processes saw in the same run."""
    latencies = Histogram()
    errors: Counter[str] = Counter()
    for tally in tallies:
        latencies.merge(Histogram(tally.latencies))
        errors.update(tally.errors)
    return Tally(sum(t.requests for t in tallies), max(t.seconds for t in tallies), latencies.counts, dict(errors))


def shares(connections: int, file_limit: int) -> list[int]:
    """How many connections each process gets: one process as long as its file descriptors suffice."""
    most = max(1, file_limit - SPARE_FILES)
    processes = -(-connections // most)
    return [connections // processes + (n < connections % processes) for n in range(processes)]


@contextlib.contextmanager
def generator(port: int, scenario: str, connections: int, at: Site) -> Iterator[Generator]:
    """Open all connections; raises LoadFailed when one of them is not answered rightly."""
    log = at.folder / "load.log"
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(answering((sys.executable, "-m", "bench.load", str(port), scenario, str(share)), log))
            for share in shares(connections, at.file_limit)
        ]
        load = Generator(processes, log)
        opened = load.hear()
        if opened.errors:
            raise LoadFailed(f"opening {connections} connections: {describe(opened.errors)}")
        yield load


def describe(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} x {why}" for why, count in sorted(errors.items())) or "none"
