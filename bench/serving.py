"""The origin and one peer in front of it: started, ready, and ended again."""

import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.peers.peer import Peer
from bench.process import StartFailed, answering, free_port, next_line, started, tail

START_TIMEOUT = 20.0
ATTEMPTS = 3  # the port was free when it was looked for, which is no promise


@dataclass(frozen=True)
class Site:
    """Where a measure takes place."""

    origin: int  # its port
    file_limit: int  # open files that each process may have
    folder: Path  # for configurations and logs; one of its own for each measure

    def room(self, name: str) -> "Site":
        return replace(self, folder=self.folder / name)


@contextlib.contextmanager
def site(file_limit: int, folder: Path) -> Iterator[Site]:
    """A running origin."""
    log = folder / "origin.log"
    with answering((sys.executable, "-m", "bench.origin"), log) as child:
        yield Site(int(next_line(child, log)), file_limit, folder)


@contextlib.contextmanager
def serving(peer: Peer, at: Site, trouble: Callable[[int], str] | None = None) -> Iterator[tuple[int, int]]:
    """Yields the port and the process id; raises StartFailed when nothing good comes through the peer. trouble: asks
    at its port and says what is wrong with the answer, "" for nothing; without it a GET must be answered with 200."""
    with contextlib.ExitStack() as stack:
        for attempt in range(ATTEMPTS):
            home = at.folder / f"start{attempt}"
            home.mkdir(parents=True)
            log = home / "output.log"
            port = free_port()
            launch = peer.launch(port, at.origin, home)
            for path, text in launch.files.items():
                path.write_text(text)
            child = stack.enter_context(started(launch.argv, log, launch.env))
            if answers(child, port, trouble or trouble_of_get):
                break
        else:
            raise StartFailed(f"it ended at once: {tail(log)}")
        yield port, child.pid


def answers(child: subprocess.Popen[bytes], port: int, trouble: Callable[[int], str]) -> bool:
    """Wait for the first good answer; False when the program ended instead, StartFailed when none comes."""
    last = "no answer"
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if child.poll() is not None:
            return False
        try:
            last = trouble(port)
        except (OSError, http.client.HTTPException) as error:
            last = str(error) or type(error).__name__
        else:
            if not last:
                return True
        time.sleep(0.02)
    raise StartFailed(f"not ready after {START_TIMEOUT:g} s: {last}")


def trouble_of_get(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        status = connection.getresponse().status
        return "" if status == 200 else f"status {status}"
