"""Where the gateway's time goes: py-spy's samples of the busiest process under load, summed by function."""

import contextlib
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from bench.cost import cpu_by_process
from bench.generator import Generator, LoadFailed, generator
from bench.peers.gateway import Gateway
from bench.peers.peer import Missing
from bench.process import StartFailed, raise_file_limit, started, tail
from bench.report import aligned
from bench.scenarios import SCENARIOS
from bench.serving import serving, site

SHOWN = 30
WARM_SECONDS = 1.0
TIME_TO_ATTACH = 2.0  # py-spy reads the symbols of every library first
TIME_TO_WRITE = 30.0
# --native: uvloop, httptools and msgspec are C and would otherwise be charged to who calls them.
OPTIONS = ("record", "--native", "--format", "raw", "--rate", "500", "--function")


class Unprofilable(Exception):
    """No profile could be made; the text says what is needed."""


def profile(scenario: str, seconds: float) -> str:
    """A table of functions by their own time, with the time below them; raises Unprofilable."""
    sampler = shutil.which("py-spy")
    if sampler is None:
        raise Unprofilable("py-spy is not installed: pip install py-spy")
    peer = Gateway()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as scratch:
        try:
            peer.find()
            with (
                site(raise_file_limit(), Path(scratch)) as at,
                serving(peer, at) as (port, pid),
                generator(port, scenario, SCENARIOS[scenario].connections, at) as load,
            ):
                load.run(WARM_SECONDS)
                return table(sampled(sampler, busiest(pid), load, seconds, at.folder))
        except (Missing, StartFailed, LoadFailed) as why:
            raise Unprofilable(str(why)) from why


def busiest(pid: int) -> int:
    """The process of a tree that has worked most: after a warm-up, the worker."""
    clocks = cpu_by_process(pid)
    return max(clocks, key=lambda member: clocks[member])


def sampled(sampler: str, pid: int, load: Generator, seconds: float, folder: Path) -> str:
    """py-spy's stacks of a process under load."""
    samples, log = folder / "samples", folder / "py-spy.log"
    argv = (sampler, *OPTIONS, "--duration", f"{seconds:.0f}", "--output", str(samples), "--pid", str(pid))
    with started(argv, log) as spy:
        load.run(seconds + TIME_TO_ATTACH)
        with contextlib.suppress(subprocess.TimeoutExpired):
            spy.wait(TIME_TO_WRITE)
    if not samples.exists():
        raise Unprofilable(f"py-spy failed: {tail(log)}")
    return samples.read_text()


def table(folded: str) -> str:
    """From lines "outer;inner;innermost count" to functions, by own time."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(count)
        below.update(dict.fromkeys(frames, int(count)))
    total = sum(own.values()) or 1
    lines = [
        (function, f"{100 * count / total:.1f}", f"{100 * below[function] / total:.1f}")
        for function, count in own.most_common(SHOWN)
    ]
    return aligned([("function", "own %", "with callees %"), *lines])
