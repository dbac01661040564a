"""What a choice costs: that every policy is measured."""

from __future__ import annotations

from bench.balancers import as_text, balancers
from gateway.upstream.balancers import BALANCERS


def test_every_policy_is_measured() -> None:
    rows = balancers(sizes=(3, 10), quick=True)
    assert [row.policy for row in rows] == list(BALANCERS)
    for row in rows:
        for figures in (row.idle_ns, row.busy_ns, row.rebuild_us):
            assert list(figures) == [3, 10]
            assert all(figure >= 0 for figure in figures.values())
    text = as_text(rows)
    assert all(text.count(policy) == 3 for policy in BALANCERS)
