"""What comes of the samples of ``bench streams``, and that its ends do what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.ends import Seen, bulk
from bench.process import answering, next_line
from bench.streams import Sample, StreamReport, as_text, echoes, rows, save, verdicts


def samples(measure: str, gateway: tuple[float, float], errors: int = 0) -> list[Sample]:
    """Two rounds, the second on a machine that is half as fast."""
    made = []
    for round_, slower in ((1, 1), (2, 2)):
        for peer, (rate, cost) in {"gateway": gateway, "haproxy": (10.0, 100.0)}.items():
            made.append(Sample(round_, measure, peer, rate / slower, cost * slower, errors))
    return made


def report(bulk_rate: float = 9.0, cost: float = 150.0, errors: int = 0) -> StreamReport:
    found = {
        "bulk": samples("bulk", (bulk_rate, 80.0)),
        "connections": samples("connections", (10.0, cost), errors),
        "tunnels": [],
    }
    return StreamReport(
        date="2026-11-21",
        commit="abc1234",
        machine={"cpu": "one"},
        versions={"haproxy": "2.6"},
        rounds=2,
        seconds=4.0,
        measures={name: rows(some) for name, some in found.items()},
        notes=["nginx is left out: it has no module"],
        samples=[one for some in found.values() for one in some],
    )


def test_ratios_are_taken_within_a_round() -> None:
    first, second = report().measures["connections"]
    assert (first.peer, first.cost_ratio) == ("haproxy", 1.0)
    assert (second.peer, second.cost, second.cost_ratio, second.rate_ratio) == ("gateway", 225.0, 1.5, 1.0)


@pytest.mark.parametrize(
    ("made", "met"),
    [
        (report(), [True, True, True, True, None]),
        (report(bulk_rate=7.0), [False, True, True, True, None]),
        (report(cost=201.0), [True, False, True, True, None]),
        (report(errors=1), [True, True, True, False, None]),
    ],
)
def test_the_goals(made: StreamReport, met: list[bool | None]) -> None:
    assert [one for _, one in verdicts(made)] == met


def test_what_people_read(tmp_path: Path) -> None:
    text = as_text(report(cost=300.0))
    assert "MISSED: connections, CPU us/conn, times haproxy: 3.00 (at most 2)" in text
    assert "not measured: tunnels" in text and "note: nginx is left out" in text
    paths = save(report(), tmp_path)
    assert [path.name for path in paths] == ["2026-11-21-streams.md", "2026-11-21-streams.json"]
    assert "CPU s/GB" in paths[0].read_text()


def test_both_ends(tmp_path: Path) -> None:
    """The load straight at the origin: each of its commands."""
    log = tmp_path / "log"
    with answering((sys.executable, "-m", "bench.ends", "origin"), log) as origin:
        port = int(next_line(origin, log))
        assert echoes(port) == ""
        with answering((sys.executable, "-m", "bench.ends", "load", str(port)), log) as load:
            for command in ("bulk 2 0.1", "connections 3 0.1", "hold 60"):
                assert load.stdin is not None
                load.stdin.write(f"{command}\n")
                load.stdin.flush()
                answer = next_line(load, log)
                assert '"errors":0' in answer and '"count":0' not in answer
    assert bulk(port, 2, 1.0).errors == 2
    assert Seen(1, 1.0).errors == 0
