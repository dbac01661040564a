"""Starting and ending the programs of a run: by process id, never by name, and always in a ``finally``."""

import contextlib
import os
import resource
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

# Programs start here, so that ``-m bench.load`` and ``-m gateway`` mean this checkout.
REPOSITORY = Path(__file__).parent.parent

TIME_TO_LEAVE = 5.0  # seconds between asking a program to end and making it
LOG_TAIL = 600  # characters of a program's own words in an error


class StartFailed(Exception):
    """A program did not come up; the text says what it said itself."""


def raise_file_limit() -> int:
    """Let this process and its children hold as many connections as the machine allows; return that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """A loopback port that was free a moment ago, for programs that can't choose one and tell."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end_tree(child: subprocess.Popen[bytes]) -> None:
    """End a child and its descendants: politely first. psutil guards against a process id used again."""
    members = tree(child.pid)
    if child.poll() is None:
        child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(TIME_TO_LEAVE)
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    child.wait()
    psutil.wait_procs(members, TIME_TO_LEAVE)


@contextlib.contextmanager
def started(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A running program whose output goes to a log file, so that no pipe can fill up and hold it."""
    with log.open("ab") as sink:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**os.environ, **(env or {})},
            cwd=REPOSITORY,
        )
    try:
        yield child
    finally:
        end_tree(child)


@contextlib.contextmanager
def answering(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A running program of ours that talks in lines over its standard input and output."""
    with log.open("ab") as sink:
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, text=True, cwd=REPOSITORY
        )
    try:
        yield child
    finally:
        # Not Popen.__exit__: it would wait for a program that hangs.
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def next_line(child: subprocess.Popen[str], log: Path) -> str:
    """What a program of ours says next; raises StartFailed when it ended instead."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise StartFailed(f"a process of the bench ended: {tail(log)}")
    return line


def tail(log: Path) -> str:
    """The end of what a program said, on one line."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return " ".join(text[-LOG_TAIL:].split()) or "it said nothing"
