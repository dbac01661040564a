"""Where and of what a result was made, so that it can be judged and made again."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from bench.process import REPOSITORY


def today() -> str:
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def machine() -> dict[str, str]:
    return {
        "cpu": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def libraries() -> dict[str, str]:
    """Versions that all Python peers, the origin and the load generator share."""
    return {
        "python": platform.python_version(),
        "uvloop": importlib.metadata.version("uvloop"),
        "httptools": importlib.metadata.version("httptools"),
    }


def commit() -> str:
    """The commit that was measured, with "+" for changes that are not in it."""
    try:
        head = git("rev-parse", "--short", "HEAD")
        return head + ("+" if git("status", "--porcelain", "--", "gateway") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(*argv: str) -> str:
    return subprocess.run(("git", *argv), cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
