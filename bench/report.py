"""A comparison as a person and a program read it: text tables and JSON. Pure, but for writing the files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from bench.figures import Memory, Row, Sample, Workers
from bench.scenarios import SCENARIOS

COLUMNS = ("", "req/s", "p50 us", "p99 us", "CPU us/req", "x nginx", "x Go", "errors")


class Run(msgspec.Struct, frozen=True):
    """When, where and of what anything was measured."""

    date: str
    commit: str
    machine: dict[str, str]
    versions: dict[str, str]
    rounds: int
    seconds: float


class Report(Run, frozen=True):
    """All of one comparison; its fields are the JSON file's."""

    scenarios: dict[str, list[Row]]
    memory: list[Memory]
    workers: Workers | None
    notes: list[str]
    samples: list[Sample]


def as_text(report: Report) -> str:
    parts = [heading(report)]
    parts += [f"{SCENARIOS[name].title}\n{scenario_table(table)}" for name, table in report.scenarios.items()]
    if report.memory:
        parts.append(memory_table(report.memory))
    if report.workers:
        parts.append(workers_text(report.workers))
    parts += [f"note: {note}" for note in report.notes]
    return "\n\n".join(parts)


def heading(run: Run) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in run.versions.items())
    runs = f"{run.rounds} rounds of {run.seconds:g} s, turn about; medians"
    return f"{run.date}, commit {run.commit}; {runs}\n{facts}\n{versions}"


def scenario_table(table: Iterable[Row]) -> str:
    lines = [
        (
            row.peer,
            f"{row.requests_per_s:,.0f}",
            f"{row.p50_us:,.0f}",
            f"{row.p99_us:,.0f}",
            f"{row.cpu_us:,.1f}",
            times(row.ratios.get("nginx")),
            times(row.ratios.get("go")),
            str(row.errors),
        )
        for row in table
    ]
    return aligned([COLUMNS, *lines])


def memory_table(memory: Iterable[Memory]) -> str:
    lines = [(m.peer, f"{m.bytes_per_connection / 1024:.1f}", f"{m.process_bytes / 2**20:.1f}") for m in memory]
    return "Idle keep-alive connections\n" + aligned([("", "KiB each", "MiB without"), *lines])


def workers_text(workers: Workers) -> str:
    lines = [(title, f"{size / 2**20:.1f}") for title, size in workers.processes.items()]
    return f"Private memory of each further worker: {workers.bytes_per_worker / 2**20:.1f} MiB\n" + aligned(
        [(f"with {workers.many} workers", "MiB"), *lines]
    )


def times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def save(report: Report, chart: str, folder: Path) -> list[Path]:
    """Write both files and return their paths; a later run of the same day replaces them."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{report.date}-compare"
    json, svg = stem.with_suffix(".json"), stem.with_suffix(".svg")
    json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    svg.write_text(chart)
    return [json, svg]
