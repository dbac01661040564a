"""What the master waits for: signals, children that speak, people at the control socket. One `select`, nothing else.

Signals arrive as bytes in a socket pair (`signal.set_wakeup_fd`), so a handler never runs code of ours in the middle of
something; the loop takes them up in order.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator

Handler = Callable[[], None]

SIGNALS = (
    signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGCHLD,
)  # fmt: skip


class Events:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self._selector.register(self._reader, selectors.EVENT_READ, None)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _nothing)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def watch(self, sock: socket.socket, handler: Handler) -> None:
        self._selector.register(sock, selectors.EVENT_READ, handler)

    def unwatch(self, sock: socket.socket) -> None:
        """Nothing happens when it is not watched (any more)."""
        if sock.fileno() in self._selector.get_map():
            self._selector.unregister(sock)

    def wait(self, timeout: float) -> Iterator[signal.Signals | Handler]:
        """The signals that came, then the handlers of sockets that have something to read."""
        ready = self._selector.select(timeout)
        if any(key.data is None for key, _ in ready):
            try:
                for number in self._reader.recv(4096):
                    yield signal.Signals(number)
            except BlockingIOError:
                pass
        for key, _ in ready:
            # An earlier handler may have ended what this one waits for.
            if key.data is not None and self._selector.get_map().get(key.fileobj) is not None:
                yield key.data

    def close_in_child(self) -> None:
        """After fork: the child must not share the parent's poll set."""
        self._selector.close()
        self._reader.close()
        self._writer.close()


def _nothing(number: int, frame: object) -> None:
    """The byte in the socket pair is all that's wanted of a handler."""


def in_the_foreground() -> bool:
    """Whether a terminal sends its signals to us. nginx and gunicorn don't listen to WINCH then, either."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
