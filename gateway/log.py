"""What is written down: the error log (few lines, stdlib logging) and the access log (one line for each request).

The master opens the files and every process inherits the descriptors, so a worker without rights can write what only
root may create; on USR1 the master opens them anew and hands the new descriptors on. A log must never stop the traffic:
lines are gathered and written at most every `_FLUSH` seconds, and when the reader of a pipe or the disk does not take
them they are kept up to a bound, then dropped and counted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Callable

from gateway.config.model import Log as LogConfig
from gateway.errors import StartError
from gateway.exchange import Exchange

_FLUSH = 0.2  # seconds a line may wait
_FULL = 64 * 1024  # bytes that don't wait any longer
_KEEP = 1024 * 1024  # bytes kept for a reader that doesn't read
_PIPE_BUF = 4096  # a write up to this is whole in a pipe that many processes share (pipe(7))

error_log = logging.getLogger("gateway")


class Files:
    """The log files, opened by the master: descriptors that stay the same number for as long as the process lives."""

    def __init__(self, config: LogConfig) -> None:
        self._config = config
        self.access = _open(config.access)
        self.error = _open(config.error)

    def reopen(self) -> list[int]:
        """Open the paths again behind the same descriptor numbers. Raises StartError, and then nothing has changed."""
        fresh = [(_open(path), fd) for path, fd in self._paths()]
        for new, fd in fresh:
            os.dup2(new, fd)
            os.close(new)
        return self.fds()

    def fds(self) -> list[int]:
        """The descriptors that stand for paths, in an order that master and worker share."""
        return [fd for _, fd in self._paths()]

    def replace(self, fresh: list[int]) -> None:
        """In a worker: take over descriptors that the master has opened."""
        for new, fd in zip(fresh, self.fds(), strict=False):
            os.dup2(new, fd)
            os.close(new)

    def close(self) -> None:
        for fd in self.fds():
            os.close(fd)

    def _paths(self) -> list[tuple[str, int]]:
        pairs = ((self._config.access, self.access), (self._config.error, self.error))
        return [(path, fd) for path, fd in pairs if path not in _STREAMS and fd is not None]


_STREAMS = {"stdout": 1, "stderr": 2, "off": -1}


def _open(path: str) -> int:
    if path in _STREAMS:
        return _STREAMS[path]
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StartError(f"cannot open the log file {path}: {error.strerror}") from None


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = f"{when}.{int(record.msecs):03d}Z {record.levelname.lower()} {_who} {record.getMessage()}"
        return text + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": _who,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Handler(logging.Handler):
    """Writes to a descriptor and lets nothing escape: a full disk must not become a traceback."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        try:
            os.write(self._fd, (self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass


_who = "master"


def name_process(who: str) -> None:
    """Which process the error log's lines come from."""
    global _who
    _who = who


def set_up(config: LogConfig, files: Files) -> None:
    """Send the error log where the configuration says. Called again after a reload."""
    handler = _Handler(files.error)
    handler.setFormatter(_Json() if config.error_format == "json" else _Text())
    for logger in (error_log, logging.getLogger("uvicorn"), logging.getLogger("asyncio")):
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING if logger is not error_log else config.level.upper())


class AccessLog:
    """Gathers lines and writes them in whole lines. `later(seconds, callback)` is the event loop's."""

    def __init__(
        self, fd: int, form: str, worker: int, later: Callable[[float, Callable[[], None]], object]
    ) -> None:
        self._fd = fd
        self._form = _FORMS[form]
        self._worker = worker
        self._later = later
        self._lines: list[bytes] = []
        self._size = 0
        self._waiting = False
        self._rest = b""
        self._second = 0
        self._stamp = b""
        self.dropped = 0
        mode = os.fstat(fd).st_mode
        self._is_socket = stat.S_ISSOCK(mode)
        self._is_pipe = stat.S_ISFIFO(mode)
        self._pipe = _own_pipe(fd) if self._is_pipe else fd

    def write(self, exchange: Exchange, now: float, duration: float) -> None:
        """now: unix seconds at the end of the exchange."""
        line = self._form(self, exchange, now, duration)
        self._lines.append(line)
        self._size += len(line)
        if self._size > _FULL:
            self.flush()
        elif not self._waiting:
            self._waiting = True
            self._later(_FLUSH, self._flush_later)

    def _flush_later(self) -> None:
        self._waiting = False
        self.flush()

    def flush(self) -> None:
        data = self._rest + b"".join(self._lines)
        self._lines.clear()
        self._size = 0
        self._rest = b""
        while data:
            part = data
            if self._is_pipe and len(data) > _PIPE_BUF:
                part = data[: data.rfind(b"\n", 0, _PIPE_BUF) + 1] or data[: data.find(b"\n") + 1]
            try:
                if self._is_socket:
                    written = _send(self._fd, part)
                else:
                    written = os.write(self._pipe, part)
            except BlockingIOError:
                self._keep(data)
                return
            except OSError:
                self.dropped += data.count(b"\n")
                return
            data = data[written:]

    def _keep(self, data: bytes) -> None:
        """The reader is slow: keep what a bound allows, the newest lines go."""
        if len(data) > _KEEP:
            end = data.rfind(b"\n", 0, _KEEP) + 1
            self.dropped += data.count(b"\n", end)
            data = data[:end]
        self._rest = data
        if not self._waiting:
            self._waiting = True
            self._later(_FLUSH, self._flush_later)

    def stamp(self, now: float) -> bytes:
        """The second of now, as RFC 3339 without the fraction."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return self._stamp

    def json_line(self, x: Exchange, now: float, duration: float) -> bytes:
        target = x.target
        if not _SAFE(target):
            target = _escaped(target)
        route = x.route
        return (
            b'{"time":"%b.%03dZ","client":"%b","method":"%b","host":"%b","target":"%b","status":%d,"bytes_in":%d,'
            b'"bytes_out":%d,"duration_us":%d,"upstream":"%b","connect_us":%d,"first_byte_us":%d,"route":"%b",'
            b'"listener":"%b","worker":%d,"reused":%b,"retries":%d,"ended":"%b"}\n'
        ) % (
            self.stamp(now),
            now % 1 * 1000,
            x.client.encode(),
            x.method,
            x.host,
            target,
            x.status,
            x.bytes_in,
            x.bytes_out,
            duration * 1e6,
            x.endpoint.encode(),
            x.connect_time * 1e6,
            x.first_byte * 1e6,
            route.name.encode() if route is not None else b"",
            x.listener.name.encode(),
            self._worker,
            b"true" if x.reused else b"false",
            x.retries,
            x.ended.encode(),
        )

    def common_line(self, x: Exchange, now: float, duration: float) -> bytes:
        """The Common Log Format of NCSA httpd, as nginx and Apache write it."""
        when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)).encode()
        request = b"%b %b HTTP/1.1" % (x.method, _escaped(x.target)) if x.method else b"-"
        size = b"%d" % x.bytes_out if x.bytes_out else b"-"
        return b'%b - - [%b] "%b" %d %b\n' % (x.client.encode(), when, request, x.status, size)

    def combined_line(self, x: Exchange, now: float, duration: float) -> bytes:
        """Common, with Referer and User-Agent."""
        pairs = dict(x.head.pairs()) if hasattr(x, "head") else {}
        referer = _escaped(pairs.get(b"referer", b"-"))
        agent = _escaped(pairs.get(b"user-agent", b"-"))
        return self.common_line(x, now, duration)[:-1] + b' "%b" "%b"\n' % (referer, agent)


_FORMS = {"json": AccessLog.json_line, "common": AccessLog.common_line, "combined": AccessLog.combined_line}
_SAFE = re.compile(rb'[\x20\x21\x23-\x5b\x5d-\x7e]*+').fullmatch


def _escaped(text: bytes) -> bytes:
    """Text that can stand inside JSON quotes (and a quoted log field): quotes, backslashes and non-ASCII as escapes."""
    return json.dumps(text.decode("latin-1"))[1:-1].encode()


def _own_pipe(fd: int) -> int:
    """The same pipe by a descriptor of our own, so that non-blocking is ours alone: a reader that stops reading must
    not stop the event loop, and whoever shares our stdout must not be surprised by EAGAIN."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return fd


def _send(fd: int, data: bytes) -> int:
    sock = socket.socket(fileno=fd)
    try:
        return sock.send(data, socket.MSG_DONTWAIT)
    finally:
        sock.detach()


def say(text: str) -> None:
    """One line to whoever started us, before or beside the log."""
    print(text, file=sys.stderr, flush=True)
