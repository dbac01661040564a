"""An honest client beside slowhttptest: what it gets while a thousand connections dawdle over heads, bodies, answers.

The honest client has a few kept connections and one more that is made anew for each request; each asks, waits for the
whole answer, and pauses. Its latencies include making the connection where one is made.
"""

import asyncio
import contextlib
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.histogram import Histogram
from bench.load import HEAD_END
from bench.peers import PEERS
from bench.peers.gateway import Gateway
from bench.peers.peer import Missing, Peer, program
from bench.process import StartFailed, raise_file_limit, started
from bench.report import aligned
from bench.serving import Site, serving, site

GOAL_MS = 200.0
QUIET = "nothing"
# Of slowhttptest: how often more is sent, how much at most; for the answers how little is read of how large a window.
ATTACKS: dict[str, tuple[str, ...]] = {
    "slow heads (-H)": ("-H", "-i", "5", "-x", "16"),
    "slow bodies (-B)": ("-B", "-i", "5", "-x", "16", "-s", "8192"),
    "slow readers (-X)": ("-X", "-n", "1", "-z", "5", "-w", "1", "-y", "512", "-k", "3"),
}
LARGE = "/large"  # what slow readers ask for
KEPT = 4
PAUSE = 0.02
PATIENCE = 10.0
COLUMNS = ("", "requests", "p50 ms", "p99 ms", "max ms", "failed", "")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Seen:
    """What the honest client saw in one phase. latencies: in microseconds."""

    peer: str
    phase: str
    latencies: Histogram = field(default_factory=Histogram)
    slowest: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def p99_ms(self) -> float:
        return self.latencies.quantile(0.99) / 1000

    @property
    def good(self) -> bool:
        return bool(self.latencies.total) and not self.failures and self.p99_ms < GOAL_MS


def slow(peers: Sequence[str], connections: int, seconds: int, tell: Callable[[str], None]) -> list[Seen]:
    """Attack one peer after the other in every way. A peer that is not here is told of and left out."""
    program("slowhttptest")
    limit = raise_file_limit()
    found: list[Seen] = []
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as scratch, site(limit, Path(scratch)) as at:
        for name in peers:
            peer = Gateway(workers=2) if name == "gateway" else PEERS[name]
            try:
                peer.find()
                found += _attacked(name, peer, at, connections, seconds, tell)
            except (Missing, StartFailed) as error:
                tell(f"{name}: {error}")
    return found


def _attacked(
    name: str, peer: Peer, at: Site, connections: int, seconds: int, tell: Callable[[str], None]
) -> Iterator[Seen]:
    for number, phase in enumerate((QUIET, *ATTACKS)):
        room = at.room(f"{name}{number}")
        with serving(peer, room) as (port, _):
            tell(f"{name}: {phase}, {seconds} s")
            seen = Seen(name, phase)
            with contextlib.ExitStack() as stack:
                if phase != QUIET:
                    command = attack(phase, port, connections, seconds)
                    stack.enter_context(started(command, room.folder / "slowhttptest.log"))
                with honest(port, seen):
                    time.sleep(seconds)
            yield seen


def attack(phase: str, port: int, connections: int, seconds: int) -> tuple[str, ...]:
    path = LARGE if phase.startswith("slow readers") else "/"
    size = ("-c", str(connections), "-r", str(connections // 2), "-l", str(seconds))
    return (program("slowhttptest"), *size, *ATTACKS[phase], "-v", "1", "-u", f"http://127.0.0.1:{port}{path}")


@contextlib.contextmanager
def honest(port: int, seen: Seen) -> Iterator[None]:
    """The honest client at work, in a thread of its own."""
    ending = threading.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_callers(port, seen, ending))

    thread = threading.Thread(target=run, name="honest", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(PATIENCE + 5)


async def _callers(port: int, seen: Seen, ending: threading.Event) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(KEPT + 1):
            group.create_task(_call(port, seen, ending, fresh=number == KEPT))


async def _call(port: int, seen: Seen, ending: threading.Event, fresh: bool) -> None:
    line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while not ending.is_set():
        began = time.perf_counter_ns()
        try:
            async with asyncio.timeout(PATIENCE):
                if line is None:
                    line = await asyncio.open_connection("127.0.0.1", port)
                closes = await _ask(*line)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            seen.failures[type(error).__name__ + (f" {error}" if isinstance(error, ValueError) else "")] += 1
            closes = True
        else:
            took = (time.perf_counter_ns() - began) // 1000
            seen.latencies.add(took)
            seen.slowest = max(seen.slowest, took)
        if line is not None and (fresh or closes):
            line[1].close()
            line = None
        await asyncio.sleep(PAUSE)
    if line is not None:
        line[1].close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """One request and its answer; whether the connection ends with it. Raises ValueError for any but a whole 200."""
    writer.write(b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n")
    head = await reader.readuntil(HEAD_END)
    length = _LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 200") or length is None:
        raise ValueError(head.partition(b"\r\n")[0].decode("latin-1"))
    await reader.readexactly(int(length[1]))
    return b"\r\nconnection: close" in head.lower()


def as_text(found: Sequence[Seen]) -> str:
    lines = [
        (
            f"{seen.peer}, {seen.phase}",
            f"{seen.latencies.total:,}",
            f"{seen.latencies.quantile(0.5) / 1000:.1f}",
            f"{seen.p99_ms:.1f}",
            f"{seen.slowest / 1000:.1f}",
            str(seen.failures.total()),
            "" if seen.good else "; ".join(seen.failures) or f"p99 is not below {GOAL_MS:g} ms",
        )
        for seen in found
    ]
    return aligned([COLUMNS, *lines])


def verdict(found: Sequence[Seen]) -> str:
    """Whether the gateway's honest client was well served in every phase."""
    good = all(seen.good for seen in found if seen.peer == "gateway")
    return f"p99 below {GOAL_MS:g} ms and every request answered: {'yes' if good else 'NO'}"
