"""What systemd tells the master and what the master tells systemd.

Knows the environment variables of sd_notify(3) and sd_listen_fds(3) and nothing of what is done with the answers.
Without systemd all of this is silent: a notification that can't be delivered is never an error of the gateway.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping

_FIRST_FD = 3  # SD_LISTEN_FDS_START
# Long enough for a busy manager; a stuck one must not keep the master from its workers.
_PATIENCE = 1.0  # seconds

_OURS = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
)


class Notifier:
    """The way to the service manager, read from the environment once.

    Only the main process of the unit is listened to (`NotifyAccess=main`).
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract address. Other kinds (vsock:) are for virtual machines.
        self._to = "\0" + name[1:] if name.startswith("@") else name if name.startswith("/") else ""
        self.watchdog_interval = _watchdog_interval(environ)
        """Seconds between two calls of `watchdog`, None when systemd expects none."""

    def ready(self, status: str) -> None:
        """Start or reload is done."""
        self._send("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """A reload begins; `ready` must follow, also when it failed.

        With `Type=notify-reload` the time has to be in the same datagram: systemd takes only what is younger than its
        SIGHUP for an answer to it.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(f"STATUS={_line(text)}")

    def watchdog(self) -> None:
        """All is well. Silence for twice `watchdog_interval` means: restart me."""
        self._send("WATCHDOG=1")

    def main_pid(self, pid: int) -> None:
        self._send(f"MAINPID={pid}")

    def _send(self, *assignments: str) -> None:
        if not self._to:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_PATIENCE)
                sock.sendto("\n".join(assignments).encode(errors="replace"), self._to)
        except OSError:
            pass


def _line(text: str) -> str:
    return " ".join(text.split())  # a line break would begin another assignment


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    timeout = _number(environ.get("WATCHDOG_USEC", ""))
    return timeout / 2_000_000 if timeout else None  # half, as sd_watchdog_enabled(3) advises


def listen_fds(environ: Mapping[str, str], pid: int) -> dict[str, list[int]]:
    """The sockets systemd passed to this process, by `FileDescriptorName`; those without a name are "unknown".

    They are set to close at exec. A master that upgrades itself makes them inheritable again and gives back the
    variables: they are true of its successor, which has the same PID.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    named: dict[str, list[int]] = {}
    for index in range(_number(environ.get("LISTEN_FDS", ""))):
        fd = _FIRST_FD + index
        try:
            os.set_inheritable(fd, False)
        except OSError:
            break  # the variable promises more than there is
        name = names[index] if index < len(names) else ""
        named.setdefault(name or "unknown", []).append(fd)
    return named


def forget(environ: MutableMapping[str, str]) -> dict[str, str]:
    """For a child: it must neither speak for the unit nor take sockets for its own. Returns what was there."""
    return {name: environ.pop(name) for name in _OURS if name in environ}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
