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
import socket
import stat
import time
from collections.abc import Callable

import msgspec

from gateway.config.model import Log as LogConfig
from gateway.errors import StartError
from gateway.exchange import Exchange
from gateway.session import Session

_FLUSH = 0.2  # seconds a line may wait
_FULL = 128  # lines that don't wait any longer: some 50 KiB
_KEEP = 1024 * 1024  # bytes kept for a reader that doesn't read
_MOST_IN_PIPE = 1500  # of a target, so that its line fits into the next number whatever must be escaped in it
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
        fresh: list[int] = []
        try:
            for path, _ in self._paths():
                fresh.append(_open(path))
        except StartError:
            for new in fresh:
                os.close(new)
            raise
        self.replace(fresh)
        return self.fds()

    def fds(self) -> list[int]:
        """The descriptors that stand for paths, in an order that master and worker share."""
        return [fd for _, fd in self._paths()]

    def replace(self, fresh: list[int]) -> None:
        """Put these descriptors in the place of ours; in a worker, those that the master has opened."""
        for new, fd in zip(fresh, self.fds(), strict=False):
            os.dup2(new, fd, inheritable=False)
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


class Outlet:
    """A descriptor that is written to without ever waiting, whatever it is. `write` raises OSError, BlockingIOError
    among them, and returns how much was taken."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        mode = os.fstat(fd).st_mode
        self.is_pipe = stat.S_ISFIFO(mode)
        self._is_socket = stat.S_ISSOCK(mode)
        self._own = _unblocked(fd) if self.is_pipe or stat.S_ISCHR(mode) else -1

    def write(self, data: bytes) -> int:
        if self._is_socket:
            return _send(self._fd, data)
        return os.write(self._own if self._own >= 0 else self._fd, data)

    def close(self) -> None:
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


def _unblocked(fd: int) -> int:
    """The same pipe or terminal by a descriptor of our own, so that non-blocking is ours alone: whoever shares our
    stdout must not be surprised by EAGAIN. -1 when that can't be had."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return -1


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        # What others sent may be in it, and must not look like a line of ours.
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        text = f"{when}.{int(record.msecs):03d}Z {record.levelname.lower()} {_who} {message}"
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
        self._outlet = Outlet(fd)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._outlet.write((self.format(record) + "\n").encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # also BlockingIOError: a reader that has stopped reading gets no more lines, and stops nobody

    def close(self) -> None:
        self._outlet.close()
        super().close()


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
        for old in logger.handlers:
            old.close()
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING if logger is not error_log else config.level.upper())


_MILLISECONDS = [f"{number:03d}Z" for number in range(1000)]


class Attempt(msgspec.Struct):
    """One of the attempts at a request whose first failed. reason: why this one did, "" if it did not."""

    endpoint: str
    reason: str
    duration_us: int


class Line(msgspec.Struct, omit_defaults=True):
    """A line of the JSON access log. Times in microseconds, sizes in bytes of body. `rule` is there only where what an
    egress says of a destination forbade it, `sni` only where such a name went through a tunnel of CONNECT."""

    time: str
    client: str
    method: str
    host: str
    target: str
    status: int
    bytes_in: int
    bytes_out: int
    duration_us: int
    upstream: str
    connect_us: int
    first_byte_us: int
    route: str
    listener: str
    worker: int
    reused: bool
    retries: int
    attempts: list[Attempt]
    reason: str
    request_id: str
    trace: str
    user: str
    rule: str = ""
    sni: str = ""


class SessionLine(msgspec.Struct):
    """A line of the JSON access log about a connection or session of a listener that doesn't speak HTTP. Times in
    microseconds."""

    time: str
    client: str
    user: str
    destination: str
    sni: str
    endpoint: str
    bytes_in: int
    bytes_out: int
    duration_us: int
    upstream: str
    connect_us: int
    listener: str
    worker: int
    retries: int
    reason: str
    rule: str


class AccessLog:
    """Gathers lines and writes them in whole lines. `later(seconds, callback)` is the event loop's."""

    def __init__(self, fd: int, form: str, worker: int, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._form = _FORMS[form]
        self._worker = worker
        self._later = later
        self._lines: list[Line | SessionLine | msgspec.Raw] = []
        self._encode = msgspec.json.Encoder().encode_lines
        self._waiting = False
        self._rest = b""
        self._second = 0
        self._stamp = ""
        self.dropped = 0
        self._outlet = Outlet(fd)

    def write(self, exchange: Exchange, now: float, duration: float) -> None:
        """now: unix seconds at the end of the exchange."""
        self._add(self._form(self, exchange, now, duration))

    def _add(self, line: Line | SessionLine | msgspec.Raw) -> None:
        lines = self._lines
        lines.append(line)
        if len(lines) >= _FULL:
            self.flush()
        elif not self._waiting:
            self._waiting = True
            self._later(_FLUSH, self._flush_later)

    def write_session(self, session: Session, now: float, duration: float) -> None:
        """The same for what is no request."""
        self._add(self._session_line(session, now, duration))

    def _flush_later(self) -> None:
        self._waiting = False
        self.flush()

    def flush(self) -> None:
        data = self._rest + self._encode(self._lines)
        self._lines.clear()
        self._rest = b""
        while data:
            part = data
            if self._outlet.is_pipe and len(data) > _PIPE_BUF:
                part = data[: data.rfind(b"\n", 0, _PIPE_BUF) + 1] or data[: data.find(b"\n") + 1]
            try:
                written = self._outlet.write(part)
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

    def _time(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return self._stamp + _MILLISECONDS[int((now - second) * 1000)]

    def _session_line(self, x: Session, now: float, duration: float) -> SessionLine | msgspec.Raw:
        if self._form is not AccessLog.json_line:
            return msgspec.Raw(_common_session(x, now))
        return SessionLine(
            self._time(now),
            x.client,
            x.user,
            x.destination,
            x.sni,
            x.endpoint,
            x.bytes_in,
            x.bytes_out,
            int(duration * 1e6),
            x.upstream,
            int(x.connect_time * 1e6),
            x.listener.name,
            self._worker,
            x.retries,
            x.reason,
            x.rule,
        )

    def json_line(self, x: Exchange, now: float, duration: float) -> Line:
        route = x.route
        target = x.target
        if self._outlet.is_pipe and len(target) > _MOST_IN_PIPE:
            target = target[:_MOST_IN_PIPE] + b"..."
        return Line(
            self._time(now),
            x.client,
            x.method.decode("latin-1"),
            x.host.decode("latin-1"),
            target.decode("latin-1"),
            x.status,
            x.bytes_in,
            x.bytes_out,
            int(duration * 1e6),
            x.endpoint,
            int(x.connect_time * 1e6),
            int(x.first_byte * 1e6),
            "" if route is None else route.name,
            x.listener.name,
            self._worker,
            x.reused,
            x.retries,
            [Attempt(endpoint, reason, int(taken * 1e6)) for endpoint, reason, taken in x.attempts],
            x.reason,
            x.request_id,
            x.trace,
            x.user,
            x.rule,
            x.sni,
        )

    def common_line(self, x: Exchange, now: float, duration: float) -> msgspec.Raw:
        return msgspec.Raw(_common(x, now))

    def combined_line(self, x: Exchange, now: float, duration: float) -> msgspec.Raw:
        """Common, with Referer and User-Agent."""
        pairs = dict(x.head.pairs()) if hasattr(x, "head") else {}
        referer = _escaped(pairs.get(b"referer", b"-"))
        agent = _escaped(pairs.get(b"user-agent", b"-"))
        return msgspec.Raw(_common(x, now) + b' "%b" "%b"' % (referer, agent))


_FORMS: dict[str, Callable[[AccessLog, Exchange, float, float], Line | msgspec.Raw]] = {
    "json": AccessLog.json_line,
    "common": AccessLog.common_line,
    "combined": AccessLog.combined_line,
}


def _common(x: Exchange, now: float) -> bytes:
    """The Common Log Format of NCSA httpd, as nginx and Apache write it."""
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)).encode()
    version = getattr(getattr(x, "head", None), "minor", 1)  # a refused one has no head
    request = b"%b %b HTTP/1.%d" % (x.method, _escaped(x.target), version) if x.method else b"-"
    size = b"%d" % x.bytes_out if x.bytes_out else b"-"
    user = _escaped(x.user.encode()).replace(b" ", b"%20") or b"-"
    return b'%b - %b [%b] "%b" %d %b' % (x.client.encode(), user, when, request, x.status, size)


def _common_session(x: Session, now: float) -> bytes:
    """What is no request, in the shape of the Common Log Format: where it went in place of the request line, how it
    ended in place of the status."""
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)).encode()
    where = _escaped(" ".join(filter(None, (x.destination or x.sni, x.endpoint))).encode()) or b"-"
    user = _escaped(x.user.encode()).replace(b" ", b"%20") or b"-"
    reason = x.reason.encode() or b"-"
    name, client = x.listener.name.encode(), x.client.encode()
    return b'%b - %b [%b] "%b %b" %b %d' % (client, user, when, name, where, reason, x.bytes_out)


def _escaped(text: bytes) -> bytes:
    """Text that can stand inside quotes: quotes, backslashes and non-ASCII as JSON escapes them."""
    return json.dumps(text.decode("latin-1"))[1:-1].encode()


def _send(fd: int, data: bytes) -> int:
    sock = socket.socket(fileno=fd)
    try:
        return sock.send(data, socket.MSG_DONTWAIT)
    finally:
        sock.detach()
