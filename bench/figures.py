"""The figures of a comparison, from single samples to medians and ratios. Pure."""

from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

REFERENCES = ("nginx", "go")  # whom the others are compared with


class Sample(msgspec.Struct, frozen=True):
    """One peer under one scenario in one round."""

    round: int
    scenario: str
    peer: str
    requests: int
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float  # CPU time of the whole proxy per request
    cpu_s: float  # and in all: how much that figure rests on
    errors: dict[str, int]


class Row(msgspec.Struct, frozen=True):
    """One peer under one scenario: medians over the rounds, errors added up."""

    peer: str
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    ratios: dict[str, float]  # of CPU per request, to each reference that was measured
    errors: int


class Memory(msgspec.Struct, frozen=True):
    """What a peer keeps for connections that wait."""

    peer: str
    connections: int
    bytes_per_connection: float
    process_bytes: int  # the whole proxy before they were opened


class Workers(msgspec.Struct, frozen=True):
    """Private memory of the gateway's processes after some requests, and of each further worker."""

    few: int
    many: int
    bytes_with_few: int
    bytes_with_many: int
    processes: dict[str, int]  # with many: by pid and title

    @property
    def bytes_per_worker(self) -> float:
        return (self.bytes_with_many - self.bytes_with_few) / (self.many - self.few)


def rows(samples: Sequence[Sample]) -> list[Row]:
    """The table of one scenario, cheapest first."""
    by_peer: dict[str, list[Sample]] = {}
    for sample in samples:
        by_peer.setdefault(sample.peer, []).append(sample)
    table = [
        Row(
            peer=peer,
            requests_per_s=median(s.requests_per_s for s in own),
            p50_us=median(s.p50_us for s in own),
            p99_us=median(s.p99_us for s in own),
            cpu_us=median(s.cpu_us for s in own),
            ratios={name: r for name in REFERENCES if (r := ratio(own, by_peer.get(name, ()))) is not None},
            errors=sum(sum(s.errors.values()) for s in own),
        )
        for peer, own in by_peer.items()
    ]
    return sorted(table, key=lambda row: row.cpu_us)


def ratio(own: Iterable[Sample], reference: Iterable[Sample]) -> float | None:
    """The median of the ratios within each round: what slows a machine down for a while slows both sides of one."""
    base = {sample.round: sample.cpu_us for sample in reference}
    ratios = [sample.cpu_us / base[sample.round] for sample in own if base.get(sample.round)]
    return median(ratios) if ratios else None


def by_scenario(samples: Iterable[Sample]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Sample]] = {}
    for sample in samples:
        grouped.setdefault(sample.scenario, []).append(sample)
    return {name: rows(group) for name, group in grouped.items()}


def row_of(peer: str, table: Iterable[Row]) -> Row | None:
    return next((row for row in table if row.peer == peer), None)
