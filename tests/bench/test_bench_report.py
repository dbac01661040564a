"""What a comparison looks like, from a canned one."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest

from bench.chart import axis_end, chart
from bench.figures import Memory, Row, Workers
from bench.goals import passed, verdicts
from bench.report import Report, as_text, save


def row(peer: str, cpu_us: float, errors: int = 0) -> Row:
    return Row(
        peer=peer,
        requests_per_s=1e6 / cpu_us,
        p50_us=1200,
        p99_us=2400,
        cpu_us=cpu_us,
        ratios={"nginx": cpu_us / 17, "go": cpu_us / 56},
        errors=errors,
    )


def report(gateway_us: float = 32.0, errors: int = 0) -> Report:
    return Report(
        date="2026-11-21",
        commit="abc1234",
        machine={"cpu": "A <fast> one", "cores": "2", "kernel": "6.1"},
        versions={"nginx": "1.22.1"},
        rounds=5,
        seconds=4.0,
        scenarios={"small": [row("nginx", 17), row("gateway", gateway_us, errors), row("go", 56), row("slow", 2000)]},
        memory=[Memory("gateway", 2000, 3072.0, 40 << 20)],
        workers=Workers(1, 3, 50 << 20, 70 << 20, {"7 gateway: worker 0": 10 << 20}),
        notes=["caddy is left out: no program caddy found"],
        samples=[],
    )


def test_the_table_names_every_peer_and_its_ratios() -> None:
    lines = as_text(report()).splitlines()
    (gateway,) = (line for line in lines if line.startswith("gateway  31,250"))
    assert gateway.split() == ["gateway", "31,250", "1,200", "2,400", "32.0", "1.88", "0.57", "0"]
    assert "note: caddy is left out: no program caddy found" in lines
    assert "Private memory of each further worker: 10.0 MiB" in lines


def test_the_chart_is_well_formed_and_marks_the_gateway() -> None:
    picture = ElementTree.fromstring(chart(report()))
    words = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"nginx", "gateway", "go", "slow"} <= set(words)
    assert "32.0  (1.88 x)" in words
    bold = [e.text for e in picture.iter("{http://www.w3.org/2000/svg}text") if e.get("font-weight") == "600"]
    assert "gateway" in bold
    assert "go" not in bold


def test_one_very_slow_peer_does_not_flatten_the_others() -> None:
    assert axis_end([17, 32, 56, 2000]) == 3 * 56
    assert axis_end([17, 32]) == 32
    assert axis_end([]) > 0


def test_files_carry_the_day_and_json_holds_everything(tmp_path: Path) -> None:
    json, svg = save(report(), chart(report()), tmp_path / "results")
    assert (json.name, svg.name) == ("2026-11-21-compare.json", "2026-11-21-compare.svg")
    assert msgspec.json.decode(json.read_bytes(), type=Report) == report()


@pytest.mark.parametrize(
    ("gateway_us", "errors", "missed"),
    [
        (32.0, 0, []),
        (36.0, 0, ["small, CPU per request, times nginx"]),
        (32.0, 3, ["small, errors"]),
    ],
)
def test_goals(gateway_us: float, errors: int, missed: list[str]) -> None:
    judged = report(gateway_us, errors)
    assert [verdict.goal for verdict in verdicts(judged) if verdict.missed] == missed
    assert passed(judged, ["small", "idle"]) == (not missed)


def test_a_gateway_that_was_not_measured_has_not_passed() -> None:
    assert not passed(report(), ["small", "conns5000"])
