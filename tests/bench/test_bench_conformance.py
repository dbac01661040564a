"""The comparison of proxies by their conformance: what it counts, what it prints, and that it runs."""

from pathlib import Path

import msgspec
import pytest

from bench.conformance import Comparison, Failure, Plan, as_markdown, as_text, conformance, save
from tests.conformance.cases import CASES
from tests.conformance.delivery import DELIVERIES, WHOLE

# One of each kind: a refusal, a body, a tunnel, a broken response; and some that the others are known to fail.
SAMPLE = (
    "request line/GET",
    "Host/two different Hosts",
    "Host/Host with userinfo",
    "request framing/both framings",
    "chunks/LF in an extension",
    "smuggling/CL.TE",
    "hop by hop/a field that Connection names",
    "interim responses/103",
    "responses/a body in chunks",
    "broken responses/chunks that break off between two",
    "HTTP/1.0/a client of HTTP/1.0",
    "upgrades/bytes both ways",
)


def failure(group: str) -> Failure:
    return Failure(
        group=group, case="x", clause="RFC 9112 3", delivery="bytes", why="x: it came late\nclient heard: b''"
    )


def canned(**failures: list[Failure]) -> Comparison:
    return Comparison(
        date="2026-11-21",
        commit="abc1234",
        machine={"cores": "2"},
        versions={"gateway": "0.1.0", "nginx": "1.22.1"},
        deliveries=["whole", "bytes"],
        groups={"Host": 2, "chunks": 3},
        cases=["Host/x", "Host/y", "chunks/x", "chunks/y", "chunks/z"],
        failures=failures,
        notes=["haproxy is left out: no program haproxy found"],
    )


def test_what_is_counted() -> None:
    comparison = canned(gateway=[], nginx=[failure("chunks")])
    assert [comparison.passed("gateway"), comparison.passed("nginx")] == [5, 4]
    assert [comparison.passed("nginx", "Host"), comparison.passed("nginx", "chunks")] == [2, 2]


@pytest.mark.parametrize(
    ("failures", "ahead"),
    [
        ({"gateway": [], "nginx": [failure("Host")]}, True),
        ({"gateway": [], "nginx": []}, False),
        ({"gateway": [failure("Host")], "nginx": [failure("Host")]}, False),
        ({"gateway": []}, True),
        ({"nginx": []}, False),
    ],
)
def test_who_is_ahead(failures: dict[str, list[Failure]], ahead: bool) -> None:
    assert canned(**failures).gateway_is_ahead is ahead


def test_what_is_printed() -> None:
    comparison = canned(gateway=[], nginx=[failure("chunks")])
    table = [line.split() for line in as_text(comparison).splitlines()]
    assert ["gateway", "nginx"] in table
    assert ["chunks", "3/3", "2/3"] in table
    assert ["total", "5/5", "4/5"] in table
    assert "haproxy is left out" in as_text(comparison)
    assert ["chunks/x", "ok", "-"] in [line.split() for line in as_text(comparison, every_case=True).splitlines()]
    assert "nginx: chunks/x (RFC 9112 3), bytes\n    x: it came late\n" in as_text(comparison, failures=True)
    assert "| total | 5/5 | 4/5 |\n" in as_markdown(comparison)
    assert "## Failed by nginx\n\n* chunks: x (RFC 9112 3)\n" in as_markdown(comparison)


def test_what_is_written(tmp_path: Path) -> None:
    comparison = canned(gateway=[], nginx=[failure("chunks")])
    data, text = save(comparison, tmp_path)
    assert msgspec.json.decode(data.read_bytes(), type=Comparison) == comparison
    assert text.read_text() == as_markdown(comparison)


def test_a_sample_is_played_against_every_proxy_that_is_here() -> None:
    cases = [case for case in CASES if repr(case) in SAMPLE]
    assert len(cases) == len(SAMPLE)
    told: list[str] = []
    comparison = conformance(Plan(cases=cases, deliveries=(WHOLE, DELIVERIES[2])), told.append)
    assert comparison.failures["gateway"] == []
    assert comparison.gateway_is_ahead
    assert sum(comparison.groups.values()) == len(SAMPLE)
    assert len(told) == len(comparison.versions) == len(comparison.failures)
    # Whatever else they don't do, they carry plain requests.
    assert all(
        comparison.passed(proxy, group) == 1 for proxy in comparison.failures for group in ("request line", "responses")
    )
