"""The comparison: every peer under every scenario, turn about, round after round."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Memory, Sample, Workers, by_scenario
from bench.generator import LoadFailed
from bench.machine import commit, libraries, machine, today
from bench.measure import Job, MeasureFailed, measure
from bench.memory import further_workers, idle_connections
from bench.peers import PEERS
from bench.peers.peer import Missing
from bench.process import StartFailed, raise_file_limit
from bench.report import Report
from bench.scenarios import SCENARIOS
from bench.serving import site

IDLE = "idle"  # beside the scenarios of SCENARIOS: it measures memory, once
GATEWAY = "gateway"
SPARE_FILES = 200  # descriptors a proxy needs beside a connection on each side


@dataclass(frozen=True)
class Plan:
    """What to run."""

    peers: Sequence[str]
    scenarios: Sequence[str]  # of SCENARIOS, and IDLE
    rounds: int
    seconds: float
    warm_up: float


@dataclass
class Findings:
    """What the run has found so far."""

    samples: list[Sample] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    workers: Workers | None = None
    notes: list[str] = field(default_factory=list)


def compare(plan: Plan, tell: Callable[[str], None]) -> Report:
    """Run the plan and tell how it goes; what can't be measured is told, noted in the report and left out."""
    found = Findings()

    def note(text: str) -> None:
        found.notes.append(text)
        tell(text)

    where, file_limit = machine(), raise_file_limit()
    versions = find(plan.peers, note)
    scenarios = affordable([name for name in plan.scenarios if name != IDLE], file_limit, note)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as scratch, site(file_limit, Path(scratch)) as at:
        for job in turn_about(plan, scenarios, list(versions)):
            with noted(str(job), note):
                sample = measure(job, at.room(f"{job.round}-{job.scenario}-{job.peer}"))
                found.samples.append(sample)
                tell(f"{job}: {sample.cpu_us:.1f} us CPU, {sample.requests_per_s:.0f} requests/s")
        for peer in versions if IDLE in plan.scenarios else ():
            with noted(f"{IDLE}, {peer}", note):
                found.memory.append(idle_connections(peer, at.room(f"{IDLE}-{peer}")))
                tell(f"{IDLE}, {peer}: {found.memory[-1].bytes_per_connection:.0f} bytes")
        if IDLE in plan.scenarios and GATEWAY in versions:
            with noted("workers", note):
                found.workers = further_workers(at.room("workers"))
    return Report(
        date=today(),
        commit=commit(),
        machine=where,
        versions={**versions, **libraries()},
        rounds=plan.rounds,
        seconds=plan.seconds,
        scenarios=by_scenario(found.samples),
        memory=sorted(found.memory, key=lambda m: m.bytes_per_connection),
        workers=found.workers,
        notes=found.notes,
        samples=found.samples,
    )


def turn_about(plan: Plan, scenarios: Iterable[str], peers: Sequence[str]) -> Iterator[Job]:
    """Within a round all peers follow each other under one scenario: they share the machine's good and bad times."""
    for round_, scenario, peer in itertools.product(range(1, plan.rounds + 1), scenarios, peers):
        yield Job(round_, scenario, peer, plan.seconds, plan.warm_up)


@contextlib.contextmanager
def noted(what: str, note: Callable[[str], None]) -> Iterator[None]:
    """One measure that fails does not end the run."""
    try:
        yield
    except (StartFailed, LoadFailed, MeasureFailed) as error:
        note(f"{what}: {error}")


def find(names: Iterable[str], note: Callable[[str], None]) -> dict[str, str]:
    """The versions of the peers that are here."""
    versions = {}
    for name in names:
        try:
            versions[name] = PEERS[name].find()
        except Missing as why:
            note(f"{name} is left out: {why}")
    return versions


def affordable(names: Iterable[str], file_limit: int, note: Callable[[str], None]) -> list[str]:
    """The scenarios whose connections a proxy can hold on both sides (the load generator can be split, it can't)."""
    fit = []
    for name in names:
        needed = 2 * SCENARIOS[name].connections + SPARE_FILES
        if needed <= file_limit:
            fit.append(name)
        else:
            note(f"{name} is left out: it needs {needed} open files in one process, the hard limit is {file_limit}")
    return fit
