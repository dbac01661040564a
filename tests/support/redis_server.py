"""Debian's redis-server on a unix socket, with a password, for one test."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from types import TracebackType

from tests.support.waiting import eventually

PASSWORD = "correct-horse"


class RedisServer:
    """A context manager. `stop` and `start` again take place on the same socket; nothing is kept meanwhile."""

    def __init__(self) -> None:
        # Not pytest's folder: the path of a socket has 107 bytes.
        self._folder = tempfile.mkdtemp(prefix="redis-")
        self.path = f"{self._folder}/redis.sock"
        self.url = f"unix://:{PASSWORD}@{self.path}?db=0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is not installed"
        options = {"port": "0", "unixsocket": self.path, "requirepass": PASSWORD, "save": "", "dir": self._folder}
        command = [program, *(text for name, value in options.items() for text in (f"--{name}", value))]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        eventually(self._answers, "redis-server is up")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(self.path)
            sock.sendall(f"AUTH {PASSWORD}\r\n".encode())
            return sock.recv(64) == b"+OK\r\n"
        return False

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(20)

    def command(self, *words: str) -> bytes:
        """What it answers, as it is on the wire."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(self.path)
            sock.sendall(f"AUTH {PASSWORD}\r\n{' '.join(words)}\r\n".encode())
            data = b""
            while data.count(b"\r\n") < 2:
                data += sock.recv(65536)
            return data.partition(b"\r\n")[2]

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
