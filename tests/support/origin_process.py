"""The application of origin.py in a process of its own, which can be killed and frozen. `python -m` this is that
process: it writes its port, and for each line it reads a line with its counts."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.origin import Origin

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one life: a process that was started again begins at nothing."""

    requests: int
    under_way: int
    most: int


class OriginProcess:
    """A context manager. The port stays its own while it is dead: nobody else gets it, and whoever connects is
    refused."""

    def __init__(self) -> None:
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port: int = self._reserved.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> OriginProcess:
        assert self._process is None
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )
        assert self._heard() == str(self.port), "the origin did not come up"
        return self

    def counts(self) -> Counts:
        process = self._process
        assert process is not None and process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return Counts(**json.loads(self._heard()))

    def _heard(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def __enter__(self) -> OriginProcess:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self._reserved.close()


def _main(port: int) -> None:
    origin = Origin()
    origin.port = port
    origin.start()
    print(origin.port, flush=True)
    for _ in sys.stdin:
        counts = {"requests": origin.requests, "under_way": origin.under_way, "most": origin.most}
        print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
