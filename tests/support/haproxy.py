"""Debian's HAProxy for one test."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType


class HAProxy:
    """A context manager. `addresses`: of what its configuration calls `{NAME}` where it binds."""

    def __init__(self, folder: Path, config: str, host: str = "127.0.0.1") -> None:
        """config: with `bind {NAME}`; each of these gets a socket that listens already."""
        self._folder = folder
        self._config = config
        self._host = host
        self.addresses: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HAProxy:
        program = shutil.which("haproxy") or "/usr/sbin/haproxy"
        names = re.findall(r"bind \{(\w+)\}", self._config)
        sockets = {name: socket.create_server((self._host, 0)) for name in names}
        self.addresses = {name: f"{self._host}:{sock.getsockname()[1]}" for name, sock in sockets.items()}
        file = self._folder / "haproxy.cfg"
        file.write_text(re.sub(r"bind \{(\w+)\}", lambda it: f"bind fd@{sockets[it[1]].fileno()}", self._config))
        try:
            self._process = subprocess.Popen(
                [program, "-db", "-q", "-f", str(file)],
                stdin=subprocess.DEVNULL,
                pass_fds=[sock.fileno() for sock in sockets.values()],
            )
        finally:
            for sock in sockets.values():
                sock.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
