"""A process that asks for some paths in turn, over a few kept connections, faster than anybody lets it, and counts what
was admitted: `python -m tests.support.hammer ADDRESS BEGIN END PATH...`, times by the monotonic clock, which all
processes share. Prints a JSON object, see `Count`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from tests.support.http import Client

_CONNECTIONS = 4
_PAUSE = 0.003  # between two rounds: some 300 requests a second for each path, if the machine lets it


@dataclass(slots=True)
class Count:
    """By path: how many were admitted, when the first answer came, and when the last one was sent that was refused."""

    first_sent: float = 0.0
    last_heard: float = 0.0
    admitted: dict[str, int] = field(default_factory=dict)
    first_heard: dict[str, float] = field(default_factory=dict)
    refused: dict[str, float] = field(default_factory=dict)


def hammer(address: str, begin: float, end: float, paths: Sequence[str]) -> Count:
    count, admitted = Count(), Counter[str]()
    clients = [Client(address) for _ in range(_CONNECTIONS)]
    time.sleep(max(0.0, begin - time.monotonic()))
    while (now := time.monotonic()) < end:
        count.first_sent = count.first_sent or now
        for client in clients:
            for path in paths:
                sent = time.monotonic()
                answer = client.get(path)
                count.last_heard = time.monotonic()
                count.first_heard.setdefault(path, count.last_heard)
                assert answer.status in (200, 429), answer
                if answer.status == 200:
                    admitted[path] += 1
                else:
                    count.refused[path] = sent
        time.sleep(_PAUSE)
    for client in clients:
        client.close()
    count.admitted = dict(admitted)
    return count


def by_processes(processes: int, address: str, seconds: float, paths: Sequence[str]) -> list[Count]:
    """The counts of so many of them at the same time."""
    begin = time.monotonic() + 1.0  # until all of them are up
    command = [sys.executable, "-m", "tests.support.hammer", address, str(begin), str(begin + seconds), *paths]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    told = [process.communicate(timeout=60)[0] for process in started]
    return [Count(**json.loads(text)) for text in told]


if __name__ == "__main__":
    print(json.dumps(asdict(hammer(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))))
