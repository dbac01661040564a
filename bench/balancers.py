"""What a choice costs: ns per pick of every balancing policy, and what it takes to tell it that somebody is gone.

A pick is `next(balancer.order(key))`, the first of the order: the rest is for retries. Each figure is the best of many
short runs, for those are the ones in which the machine did nothing else.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from random import Random
from time import monotonic, perf_counter
from timeit import Timer

from bench.report import aligned
from gateway.config.values import Origin, TcpAddress
from gateway.upstream.balancers import BALANCERS
from gateway.upstream.balancers.balancer import Balancer
from gateway.upstream.endpoint import Endpoint
from tests.upstream.parts import blank

SIZES = (3, 10, 100, 1000)
KEYS = [b"key-%d" % number for number in range(1000)]
# A run, and how many of them; --quick makes one.
_RUN = 0.002
_RUNS = 40


@dataclass(frozen=True)
class Row:
    """One policy's figures by the number of endpoints. rebuild: one of them is not ready any more."""

    policy: str
    idle_ns: dict[int, float]
    busy_ns: dict[int, float]
    rebuild_us: dict[int, float]


def balancers(sizes: tuple[int, ...] = SIZES, quick: bool = False) -> list[Row]:
    runs = 1 if quick else _RUNS
    with _undisturbed():
        return [_row(policy, sizes, runs) for policy in BALANCERS]


def _row(policy: str, sizes: tuple[int, ...], runs: int) -> Row:
    row = Row(policy, {}, {}, {})
    for size in sizes:
        members = _endpoints(size)
        balancer = _made(policy, members)
        row.idle_ns[size] = _ns_per_pick(balancer, runs)
        for number, endpoint in enumerate(members):
            endpoint.requests = endpoint.weight + number % 2
        row.busy_ns[size] = _ns_per_pick(balancer, runs)
        row.rebuild_us[size] = _us(partial(balancer.rebuild, members[1:], members), runs)
    return row


class _Busy(Endpoint):
    """With so many requests in flight over all workers."""

    __slots__ = ("requests",)

    def __init__(self, number: int) -> None:
        origin = Origin(TcpAddress(f"10.0.{number >> 8}.{number & 255}", 9000))
        super().__init__("app", origin, "preserve", 1 + number % 3, **blank())
        self.requests = 0

    def load(self) -> int:
        return self.requests


def _endpoints(count: int) -> list[_Busy]:
    """Of weights 1, 2, 3, 1, 2, 3 ..."""
    return [_Busy(number) for number in range(count)]


def _made(policy: str, members: Sequence[Endpoint]) -> Balancer:
    balancer = BALANCERS[policy](0.0, Random(1), monotonic)
    balancer.rebuild(members, members)
    if balancer.learns:
        chance = Random(1)
        for endpoint in members:
            balancer.observe(endpoint, chance.uniform(0.004, 0.006), False)
    return balancer


def _ns_per_pick(balancer: Balancer, runs: int) -> float:
    names = {"order": balancer.order, "key": cycle(KEYS).__next__}
    return max(
        0.0, _best(Timer("next(order(key()))", globals=names), runs) - _best(Timer("key()", globals=names), runs)
    )


def _best(timer: Timer, runs: int) -> float:
    """ns per execution."""
    timer.timeit(100)
    number = max(1, int(_RUN / (timer.timeit(100) / 100)))
    return min(timer.timeit(number) / number for _ in range(runs)) * 1e9


def _us(call: Callable[[], None], runs: int) -> float:
    took = []
    for _ in range(max(1, runs // 4)):
        began = perf_counter()
        call()
        took.append(perf_counter() - began)
    return min(took) * 1e6


@contextmanager
def _undisturbed() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def as_text(rows: list[Row]) -> str:
    return "\n\n".join(
        (
            _table("ns per pick, everybody idle", {row.policy: row.idle_ns for row in rows}),
            _table("ns per pick, requests in flight everywhere", {row.policy: row.busy_ns for row in rows}),
            _table("us per rebuild, one endpoint not ready any more", {row.policy: row.rebuild_us for row in rows}),
        )
    )


def _table(title: str, figures: dict[str, dict[int, float]]) -> str:
    sizes = next(iter(figures.values()))
    lines = [("endpoints", *(f"{size:,}" for size in sizes))]
    lines += [(policy, *(f"{figure:,.0f}" for figure in row.values())) for policy, row in figures.items()]
    return f"{title}\n{aligned(lines)}"
