"""One measure: a fresh proxy, its connections opened, a warm-up, then the run that counts."""

from dataclasses import dataclass

from bench.cost import cpu_by_process, cpu_spent
from bench.figures import Sample
from bench.generator import describe, generator
from bench.histogram import Histogram
from bench.peers import PEERS
from bench.scenarios import SCENARIOS
from bench.serving import Site, serving


class MeasureFailed(Exception):
    """No figure came of this measure; the text says why."""


@dataclass(frozen=True)
class Job:
    """What is measured."""

    round: int
    scenario: str
    peer: str
    seconds: float
    warm_up: float

    def __str__(self) -> str:
        return f"round {self.round}, {self.scenario}, {self.peer}"


def measure(job: Job, at: Site) -> Sample:
    """Raises StartFailed, LoadFailed or MeasureFailed."""
    connections = SCENARIOS[job.scenario].connections
    with (
        serving(PEERS[job.peer], at) as (port, pid),
        generator(port, job.scenario, connections, at) as load,
    ):
        load.run(job.warm_up)
        before = cpu_by_process(pid)
        tally = load.run(job.seconds)
        after = cpu_by_process(pid)
    if before.keys() - after.keys():
        raise MeasureFailed("one of its processes ended during the run, and its CPU time with it")
    if not tally.requests:
        raise MeasureFailed(f"no request was answered: {describe(tally.errors)}")
    spent = cpu_spent(before, after)
    latencies = Histogram(tally.latencies)
    return Sample(
        round=job.round,
        scenario=job.scenario,
        peer=job.peer,
        requests=tally.requests,
        requests_per_s=tally.requests / tally.seconds,
        p50_us=latencies.quantile(0.50),
        p99_us=latencies.quantile(0.99),
        cpu_us=spent / 1000 / tally.requests,
        cpu_s=spent / 1e9,
        errors=tally.errors,
    )
