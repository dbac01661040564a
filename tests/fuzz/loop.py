"""An event loop without sockets in which time passes when it is told to, and connections that lead nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from gateway.wheel import Wheel
from tests.fuzz.acts import END, FREE, FULL, LOST, SPLIT, Act


class Finding(AssertionError):
    """What a target must not do."""


class _Nothing:
    """A selector of nothing."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class _Socket:
    """What a connection without a socket shows for one."""

    family = socket.AF_INET

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *option: Any) -> None:
        pass


class Loop(asyncio.BaseEventLoop):
    """reports: what a real loop would have told its exception handler, and what was logged as an error.

    origin: called with the line of each connection that somebody opens; it returns what hears the gateway.
    """

    _ready: Any
    _run_once: Any
    _scheduled: Any

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Nothing()
        self.now = 1000.0
        self.reports: list[str] = []
        self.origin: Callable[[Line], Callable[[bytes], None]] = lambda line: lambda data: None
        self.set_exception_handler(lambda loop, report: self.reports.append(repr(report)))

    def time(self) -> float:
        return self.now

    def _process_events(self, events: list[Any]) -> None:
        pass

    async def create_connection(self, make: Any, *where: Any, **more: Any) -> Any:  # type: ignore[override]
        protocol = make()
        hearer: list[Callable[[bytes], None]] = []
        line = Line(self, protocol, lambda data: hearer[0](data))
        hearer.append(self.origin(line))
        return line, protocol

    def settle(self) -> None:
        """Run until nothing is left to do now. Raises Finding when that never comes."""
        for _ in range(20_000):
            if not self._ready:
                return
            self._run_once()
        raise Finding("the event loop does not come to rest")

    def passes(self, seconds: float) -> None:
        """Let time pass and do what it brings."""
        self.now += seconds
        self.call_soon(lambda: None)
        self.settle()

    def forget(self) -> None:
        """Drop what an input that failed left behind."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        for _ in range(1000):
            if not self._ready:
                break
            self._run_once()
        self._ready.clear()
        self._scheduled.clear()
        self.reports.clear()

    def quiet(self) -> None:
        """Raises Finding when there was something to report."""
        reports, self.reports = self.reports, []
        if reports:
            raise Finding("; ".join(reports))


class _Ear(logging.Handler):
    """Makes a report of each error that is logged."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(logging.ERROR)
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        self._loop.reports.append(record.getMessage() + (f" ({cause!r})" if cause is not None else ""))


@contextlib.contextmanager
def running() -> Iterator[Loop]:
    """A loop that counts as the running one, whose time is everybody's in `gateway`."""
    loop = Loop()
    logger, ear = logging.getLogger("gateway"), _Ear(loop)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(ear)
    asyncio._set_running_loop(loop)
    try:
        with contextlib.ExitStack() as stack:
            for name, module in list(sys.modules.items()):
                if name.startswith("gateway.") and hasattr(module, "monotonic"):
                    stack.enter_context(mock.patch.object(module, "monotonic", loop.time))
            yield loop
    finally:
        asyncio._set_running_loop(None)
        logger.removeHandler(ear)
        logger.propagate = propagated
        loop.close()


def wheel(loop: Loop) -> Wheel:
    return Wheel(loop.call_later, loop.time)


class Line(asyncio.Transport):
    """A connection's near end. hear: called with what is written.

    Like a real one it delivers nothing while reading is paused and tells of its end in a later turn of the loop.
    """

    def __init__(self, loop: Loop, protocol: Any, hear: Callable[[bytes], None]) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._hear = hear
        self._waiting: list[bytes] = []  # written, and not taken by the peer
        self._coming: list[bytes] = []  # sent by the peer, and not read
        self._coming_end = False
        self._reading = True
        self._closing = False
        self._ended = False
        self._full = False
        self._told_full = False
        self.lost = False
        protocol.connection_made(self)

    # What the peer does.

    def does(self, act: Act) -> None:
        """One of its acts. Letting time pass is the loop's to do."""
        if act.mark == SPLIT:
            self.send(act.data)
        elif act.mark == END:
            self.end()
        elif act.mark == LOST:
            self.reset()
        elif act.mark == FULL:
            self.stop_taking()
        elif act.mark == FREE:
            self.take_again()

    def send(self, data: bytes) -> None:
        if not (self.lost or self._closing or self._coming_end):
            self._coming.append(data)
            self._deliver()

    def end(self) -> None:
        if not (self.lost or self._closing or self._coming_end):
            self._coming_end = True
            self._deliver()

    def reset(self) -> None:
        self._lose(ConnectionResetError(104, "reset by the peer"))

    def stop_taking(self) -> None:
        self._full = True

    def take_again(self) -> None:
        self._full = False
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._hear(data)
        if self._told_full and not self.lost:
            self._told_full = False
            self._protocol.resume_writing()
        if self._closing:
            self._lose(None)

    @property
    def unread(self) -> bytes:
        """What the peer has sent and nobody has read yet."""
        return b"".join(self._coming)

    def _deliver(self) -> None:
        """What has come, a segment in each turn of the loop."""
        if not self._reading or self.lost or self._closing:
            return
        if self._coming:
            self._protocol.data_received(self._coming.pop(0))
            if self._coming or self._coming_end:
                self._loop.call_soon(self._deliver)
        elif self._coming_end:
            self._reading = False
            if not self._protocol.eof_received():
                self.close()

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = self._closing = True
            self._waiting.clear()
            self._loop.call_soon(lambda: self._protocol.connection_lost(error))  # whoever it is by then

    # What the protocol asks for.

    def write(self, data: Any) -> None:
        if self._ended:
            raise Finding(f"written after the end: {bytes(data)!r}")
        if self._closing or not data:
            return
        if not self._full:
            self._hear(bytes(data))
            return
        self._waiting.append(bytes(data))
        if not self._told_full and self.get_write_buffer_size() > 64 * 1024:
            self._told_full = True
            self._protocol.pause_writing()

    def writelines(self, pieces: Any) -> None:
        for piece in pieces:
            self.write(piece)

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._waiting))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ended = True

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._deliver)

    def is_reading(self) -> bool:
        return self._reading

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._waiting:
                self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"peername": ("192.0.2.1", 1234), "sockname": ("192.0.2.2", 80), "socket": _Socket()}
        return known.get(name, default)
