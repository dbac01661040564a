"""The pure part of the bench: buckets, medians and ratios."""

import random

import pytest

from bench.cost import cpu_spent
from bench.figures import Sample, rows
from bench.generator import shares, together
from bench.histogram import Histogram
from bench.load import Tally


def sample(round_: int, peer: str, cpu_us: float, errors: int = 0) -> Sample:
    return Sample(
        round=round_,
        scenario="small",
        peer=peer,
        requests=1000,
        requests_per_s=1e6 / cpu_us,
        p50_us=10 * cpu_us,
        p99_us=30 * cpu_us,
        cpu_us=cpu_us,
        cpu_s=1.0,
        errors={"disconnect": errors} if errors else {},
    )


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 1.0])
def test_a_quantile_is_within_one_percent_of_the_exact_one(share: float) -> None:
    dice = random.Random(7)
    values = sorted(int(dice.lognormvariate(7, 2)) for _ in range(5000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = values[round(share * len(values)) - 1]
    assert exact * 0.99 - 1 <= histogram.quantile(share) <= exact


def test_merged_histograms_hold_all_values() -> None:
    first, second = Histogram({1: 2, 300: 1}), Histogram({1: 1, 9: 4})
    first.merge(second)
    assert first.counts == {1: 3, 9: 4, 300: 1}
    assert first.total == 8


def test_an_empty_histogram_has_no_latency() -> None:
    assert Histogram().quantile(0.99) == 0


def test_ratios_are_taken_within_a_round() -> None:
    # The second round ran on a busy machine: everything cost twice as much, the ratio stayed.
    samples = [
        sample(1, "nginx", 10), sample(1, "gateway", 15),
        sample(2, "nginx", 20), sample(2, "gateway", 30),
        sample(3, "nginx", 10), sample(3, "gateway", 15, errors=2),
    ]  # fmt: skip
    nginx, gateway = rows(samples)
    assert (nginx.peer, gateway.peer) == ("nginx", "gateway")
    assert gateway.cpu_us == 15
    assert gateway.ratios == {"nginx": 1.5}
    assert gateway.errors == 2


def test_a_round_without_the_reference_has_no_ratio() -> None:
    (only,) = rows([sample(1, "gateway", 15)])
    assert only.ratios == {}


def test_processes_that_act_as_one_add_up() -> None:
    both = together([Tally(3, 1.0, {5: 3}, {}), Tally(4, 1.2, {5: 1, 6: 3}, {"connect": 1})])
    assert both == Tally(7, 1.2, {5: 4, 6: 3}, {"connect": 1})


def test_connections_are_split_only_when_one_process_can_not_hold_them() -> None:
    assert shares(5000, 20000) == [5000]
    assert shares(5000, 2048) == [1667, 1667, 1666]


def test_a_process_born_during_a_run_counts_whole() -> None:
    assert cpu_spent({1: 100, 2: 50}, {1: 130, 2: 50, 3: 7}) == 37
