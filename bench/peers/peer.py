"""The contract of a peer, and the few steps that finding one takes."""

import os
import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The same for every peer that lets one set it, so that none wins by keeping more connections to the origin.
IDLE_UPSTREAM_CONNECTIONS = 1024


class Missing(Exception):
    """This peer is not on this machine; the text says what was looked for."""


@dataclass(frozen=True)
class Launch:
    """How to start a proxy once: the command, what it adds to the environment, the files it reads."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)


class Peer(ABC):
    """A reverse proxy that serves one loopback port with one worker and forwards all to the origin."""

    @abstractmethod
    def find(self) -> str:
        """Look for the program, build or fetch what it needs, and return its version; raises Missing."""

    @abstractmethod
    def launch(self, port: int, origin: int, folder: Path) -> Launch:
        """How to start it on this port; it may write into the folder only. Called after ``find``."""


def program(name: str) -> str:
    """The path of an installed program; raises Missing."""
    # Servers live in sbin, which is not on every user's path.
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin")
    if found is None:
        raise Missing(f"no program {name} found")
    return found


def said(*argv: str) -> str:
    """What a short command prints, on either stream; raises Missing when it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Missing(f"{' '.join(argv)}: {error}") from error
    return done.stdout + done.stderr


def version_in(text: str) -> str:
    """The first thing in a text that looks like a version."""
    found = re.search(r"\d+\.\d+(\.\d+)*", text)
    return found[0] if found else text.strip()


def cache_folder() -> Path:
    """Where built and fetched peers are kept from run to run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "gateway-bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir())
    return folder
