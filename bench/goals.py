"""What the gateway has promised, as a table; ``--check`` holds a report against it. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.figures import Row, row_of
from bench.report import Report
from bench.scenarios import SCENARIOS

# CPU per request: scenario, compared with, at most this many times.
RATIO_GOALS = (
    ("small", "nginx", 2.0),
    ("small", "go", 0.7),
    ("download", "go", 1.0),
    ("upload", "go", 1.0),
)
IDLE_CONNECTION_KIB = 6
FURTHER_WORKER_MIB = 15


@dataclass(frozen=True)
class Verdict:
    """One goal; reached is None where there was nothing to hold it against, a reference not installed for one."""

    goal: str
    reached: float | None
    limit: float

    @property
    def missed(self) -> bool:
        return self.reached is not None and self.reached > self.limit

    def __str__(self) -> str:
        if self.reached is None:
            return f"not measured: {self.goal} (at most {self.limit:g})"
        return f"{'MISSED' if self.missed else 'met'}: {self.goal} {self.reached:.2f} (at most {self.limit:g})"


def verdicts(report: Report) -> Iterator[Verdict]:
    for scenario, reference, limit in RATIO_GOALS:
        row = gateway_row(report, scenario)
        reached = row.ratios.get(reference) if row else None
        yield Verdict(f"{scenario}, CPU per request, times {reference}", reached, limit)
    for scenario in SCENARIOS:
        row = gateway_row(report, scenario)
        yield Verdict(f"{scenario}, errors", row.errors if row else None, 0)
    idle = next((m.bytes_per_connection / 2**10 for m in report.memory if m.peer == "gateway"), None)
    yield Verdict("idle connection, KiB", idle, IDLE_CONNECTION_KIB)
    further = report.workers.bytes_per_worker / 2**20 if report.workers else None
    yield Verdict("further worker, MiB", further, FURTHER_WORKER_MIB)


def passed(report: Report, asked: Iterable[str]) -> bool:
    """No goal missed, and the gateway measured wherever that was asked: one that does not start has not passed."""
    measured = all(gateway_row(report, scenario) for scenario in asked if scenario in SCENARIOS)
    return measured and not any(verdict.missed for verdict in verdicts(report))


def gateway_row(report: Report, scenario: str) -> Row | None:
    return row_of("gateway", report.scenarios.get(scenario, ()))
