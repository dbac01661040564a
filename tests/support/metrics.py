"""What /metrics says, read by a parser that is not ours."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.support.http import get

Series = tuple[str, tuple[tuple[str, str], ...]]


class Metrics:
    """One look at an admin listener."""

    def __init__(self, admin: str) -> None:
        answer = get(admin, "/metrics")
        assert answer.status == 200
        assert answer.fields["content-type"].startswith("text/plain; version=0.0.4")
        self.kinds: dict[str, str] = {}
        self.values: dict[Series, float] = {}
        self.rising: dict[Series, float] = {}  # what may never become less
        for family in text_string_to_metric_families(answer.body.decode()):
            self.kinds[family.name] = family.type
            for sample in family.samples:
                series = (sample.name, tuple(sorted(sample.labels.items())))
                assert series not in self.values, f"{series} is there twice"
                self.values[series] = sample.value
                if family.type in ("counter", "histogram"):
                    self.rising[series] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series that have these labels."""
        chosen = labels.items()
        return sum(
            value for (known, has), value in self.values.items() if known == name and chosen <= dict(has).items()
        )

    def since(self, earlier: Metrics) -> None:
        """Raises AssertionError when anything that only rises has fallen since, or is gone."""
        fallen = {
            series: (value, self.rising.get(series))
            for series, value in earlier.rising.items()
            if self.rising.get(series, -1.0) < value
        }
        assert not fallen, fallen
