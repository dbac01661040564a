"""What relaying costs: bulk, new connections and open tunnels through the gateway's TCP listener, HAProxy and nginx;
datagrams through its UDP listener and nginx.

Each measure is an entry of `MEASURES`: a function of a running proxy and a load.
"""

import contextlib
import itertools
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from bench.cost import cpu_by_process, cpu_spent, private_memory
from bench.ends import ECHO, Seen
from bench.machine import commit, libraries, machine, today
from bench.measure import MeasureFailed
from bench.peers.peer import Missing
from bench.peers.streams import STREAM_PEERS
from bench.process import StartFailed, answering, next_line, raise_file_limit
from bench.report import Run, aligned, heading, times
from bench.serving import Site, serving

REFERENCE = "haproxy"
BULK_CONNECTIONS = 4
AT_ONCE = 20
SENDERS = 100
WARM_TUNNELS, OPEN_TUNNELS = 100, 5000


class Sample(msgspec.Struct, frozen=True):
    """One peer in one measure of one round. rate: of what is measured, in a second; cost: what one of it costs the
    proxy's processes together; the units are the measure's."""

    round: int
    measure: str
    peer: str
    rate: float
    cost: float
    errors: int


class Row(msgspec.Struct, frozen=True):
    """Medians over the rounds; ratios to the reference are taken within each round."""

    peer: str
    rate: float
    cost: float
    rate_ratio: float | None
    cost_ratio: float | None
    errors: int


class StreamReport(Run, frozen=True):
    measures: dict[str, list[Row]]
    notes: list[str]
    samples: list[Sample]


@dataclass(frozen=True)
class Plan:
    peers: Sequence[str] = tuple(STREAM_PEERS)
    rounds: int = 5
    seconds: float = 4.0
    tunnels: int = OPEN_TUNNELS


@dataclass(frozen=True)
class Running:
    """A proxy that serves, and the load in front of it."""

    pid: int
    plan: Plan
    ask: Callable[[str], Seen]

    def counted(self, command: str) -> tuple[Seen, float]:
        """What came of a command, and the seconds of CPU that the proxy had meanwhile."""
        before = cpu_by_process(self.pid)
        seen = self.ask(command)
        after = cpu_by_process(self.pid)
        if before.keys() - after.keys():
            raise MeasureFailed("one of its processes ended during the run, and its CPU time with it")
        if not seen.count:
            raise MeasureFailed(f"nothing came through: {seen.errors} errors")
        return seen, cpu_spent(before, after) / 1e9


Figures = tuple[float, float, int]  # rate, cost, errors


def bulk(proxy: Running) -> Figures:
    proxy.ask(f"bulk {BULK_CONNECTIONS} {proxy.plan.seconds / 4}")
    seen, cpu = proxy.counted(f"bulk {BULK_CONNECTIONS} {proxy.plan.seconds}")
    return seen.count / seen.seconds / 1e9, cpu / seen.count * 1e9, seen.errors


def connections(proxy: Running) -> Figures:
    proxy.ask(f"connections {AT_ONCE} {proxy.plan.seconds / 4}")
    seen, cpu = proxy.counted(f"connections {AT_ONCE} {proxy.plan.seconds}")
    return seen.count / seen.seconds, cpu / seen.count * 1e6, seen.errors


def tunnels(proxy: Running) -> Figures:
    warm = proxy.ask(f"hold {WARM_TUNNELS}")
    before = sum(private_memory(proxy.pid).values())
    seen = proxy.ask(f"hold {proxy.plan.tunnels}")
    after = sum(private_memory(proxy.pid).values())
    return seen.count / seen.seconds, (after - before) / 1024 / max(1, seen.count), seen.errors + warm.errors


def datagrams(proxy: Running) -> Figures:
    proxy.ask(f"datagrams {SENDERS} {proxy.plan.seconds / 4}")
    seen, cpu = proxy.counted(f"datagrams {SENDERS} {proxy.plan.seconds}")
    return seen.count / seen.seconds, cpu / seen.count * 1e6, seen.errors


@dataclass(frozen=True)
class Measure:
    """title: for people; rate, cost: what the columns say. reference: what the others are compared with; without: peers
    that know no such thing."""

    title: str
    rate: str
    cost: str
    run: Callable[[Running], Figures]
    reference: str = REFERENCE
    without: tuple[str, ...] = ()


MEASURES = {
    "bulk": Measure(f"Bulk, {BULK_CONNECTIONS} connections", "GB/s", "CPU s/GB", bulk),
    "connections": Measure(f"New connections, {AT_ONCE} at once", "conn/s", "CPU us/conn", connections),
    "datagrams": Measure(
        f"Datagrams there and back, {SENDERS} clients", "in a second", "CPU us each", datagrams, "nginx", ("haproxy",)
    ),
    "tunnels": Measure("Open tunnels, each used once", "opened/s", "KiB each", tunnels),
}


def streams(plan: Plan, tell: Callable[[str], None]) -> StreamReport:
    """Run the plan and tell how it goes; what can't be measured is told, noted and left out."""
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        tell(text)

    where, file_limit = machine(), raise_file_limit()
    versions = {}
    for name in plan.peers:
        try:
            versions[name] = STREAM_PEERS[name].find()
        except Missing as why:
            note(f"{name} is left out: {why}")
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as scratch, _origin(file_limit, Path(scratch)) as at:
        for round_, name, peer in itertools.product(range(1, plan.rounds + 1), MEASURES, versions):
            if name == "tunnels" and round_ > 1:
                continue  # memory is the same each time
            if peer in MEASURES[name].without:
                continue
            what = f"round {round_}, {name}, {peer}"
            try:
                with _running(peer, at.room(f"{round_}-{name}-{peer}"), plan) as proxy:
                    rate, cost, errors = MEASURES[name].run(proxy)
            except (StartFailed, MeasureFailed) as error:
                note(f"{what}: {error}")
                continue
            samples.append(Sample(round_, name, peer, rate, cost, errors))
            tell(f"{what}: {cost:.3g} {MEASURES[name].cost}, {rate:.3g} {MEASURES[name].rate}")
    return StreamReport(
        date=today(),
        commit=commit(),
        machine=where,
        versions={**versions, **libraries()},
        rounds=plan.rounds,
        seconds=plan.seconds,
        measures={
            name: rows([one for one in samples if one.measure == name], measure.reference)
            for name, measure in MEASURES.items()
        },
        notes=notes,
        samples=samples,
    )


@contextlib.contextmanager
def _origin(file_limit: int, folder: Path) -> Iterator[Site]:
    log = folder / "origin.log"
    with answering((sys.executable, "-m", "bench.ends", "origin"), log) as child:
        yield Site(int(next_line(child, log)), file_limit, folder)


@contextlib.contextmanager
def _running(peer: str, at: Site, plan: Plan) -> Iterator[Running]:
    """Raises StartFailed."""
    with contextlib.ExitStack() as stack:
        port, pid = stack.enter_context(serving(STREAM_PEERS[peer], at, echoes))
        log = at.folder / "load.log"
        load = stack.enter_context(answering((sys.executable, "-m", "bench.ends", "load", str(port)), log))

        def ask(command: str) -> Seen:
            assert load.stdin is not None
            load.stdin.write(f"{command}\n")
            load.stdin.flush()
            return msgspec.json.decode(next_line(load, log), type=Seen)

        yield Running(pid, plan, ask)


def echoes(port: int) -> str:
    """Have a byte echoed through a proxy; what else came, "" if it was that byte. Raises OSError."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(ECHO)
        heard = sock.recv(1)
        return "" if heard == ECHO else f"heard {heard!r}"


# From samples to words. Pure.


def rows(samples: Sequence[Sample], reference: str = REFERENCE) -> list[Row]:
    """The table of one measure, cheapest first."""
    base = {one.round: one for one in samples if one.peer == reference}
    table = []
    for peer in dict.fromkeys(one.peer for one in samples):
        own = [one for one in samples if one.peer == peer]
        both = [(one, base[one.round]) for one in own if one.round in base]
        table.append(
            Row(
                peer,
                median(one.rate for one in own),
                median(one.cost for one in own),
                median(one.rate / other.rate for one, other in both) if both else None,
                median(one.cost / other.cost for one, other in both if other.cost) if both else None,
                sum(one.errors for one in own),
            )
        )
    return sorted(table, key=lambda row: row.cost)


# What the gateway has promised: at least this part of HAProxy's throughput, at most so many times its CPU.
LEAST_RATE = {"bulk": 0.8}
MOST_COST = {"connections": 2.0}


def verdicts(report: StreamReport) -> list[tuple[str, bool | None]]:
    """Each goal, and whether it is met; None: there was nothing to hold it against."""
    found: list[tuple[str, bool | None]] = []
    for name, least in LEAST_RATE.items():
        reached = _of_gateway(report.measures.get(name, ()), "rate_ratio")
        said = f"{name}, {MEASURES[name].rate}, times {REFERENCE}: {times(reached)} (at least {least:g})"
        found.append((said, None if reached is None else reached >= least))
    for name, most in MOST_COST.items():
        reached = _of_gateway(report.measures.get(name, ()), "cost_ratio")
        said = f"{name}, {MEASURES[name].cost}, times {REFERENCE}: {times(reached)} (at most {most:g})"
        found.append((said, None if reached is None else reached <= most))
    for name, table in report.measures.items():
        errors = [row.errors for row in table if row.peer == "gateway"]
        found.append((f"{name}, errors: {sum(errors)}", not sum(errors) if errors else None))
    return found


def _of_gateway(table: Iterable[Row], key: str) -> float | None:
    return next((getattr(row, key) for row in table if row.peer == "gateway"), None)


def as_text(report: StreamReport) -> str:
    parts = [heading(report)]
    for name, table in report.measures.items():
        measure = MEASURES[name]
        head = ("", measure.rate, f"x {measure.reference}", measure.cost, f"x {measure.reference}", "errors")
        lines = []
        for row in table:
            rate, cost = f"{row.rate:,.4g}", f"{row.cost:,.3g}"
            lines.append((row.peer, rate, times(row.rate_ratio), cost, times(row.cost_ratio), str(row.errors)))
        parts.append(f"{measure.title}\n{aligned([head, *lines])}")
    parts += [f"note: {text}" for text in report.notes]
    words = {True: "met", False: "MISSED", None: "not measured"}
    parts.append("\n".join(f"{words[met]}: {said}" for said, met in verdicts(report)))
    return "\n\n".join(parts)


def save(report: StreamReport, folder: Path) -> list[Path]:
    """Write the table and all samples; a later run of the same day replaces them."""
    folder.mkdir(parents=True, exist_ok=True)
    text, json = folder / f"{report.date}-streams.md", folder / f"{report.date}-streams.json"
    text.write_text(f"# What relaying costs\n\n```\n{as_text(report)}\n```\n")
    json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return [text, json]
