"""The access log and the error log: lines that can be read, whoever sent the request, and a log that stops nobody."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.model import Log as LogConfig
from gateway.errors import StartError
from gateway.exchange import Exchange
from gateway.log import AccessLog, Files, error_log, name_process, set_up
from gateway.wire import WireError, read_request
from tests.support.descriptors import descriptors

NOW = 1_795_248_123.25
KEYS = [
    "time",
    "client",
    "method",
    "host",
    "target",
    "status",
    "bytes_in",
    "bytes_out",
    "duration_us",
    "upstream",
    "connect_us",
    "first_byte_us",
    "route",
    "listener",
    "worker",
    "reused",
    "retries",
    "attempts",
    "reason",
    "request_id",
    "trace",
    "user",
]
PIPE_BUF = 4096


class Later:
    """An event loop's `call_later`, turned by hand."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, seconds: float, callback: Callable[[], None]) -> None:
        assert 0 < seconds <= 1
        self.calls.append(callback)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def exchange(target: bytes = b"/a?b", **more: Any) -> Any:
    one = Exchange(SimpleNamespace(name="web"), "192.0.2.7", 0.0)
    one.method, one.host, one.target, one.status, one.bytes_out = b"GET", b"example.com", target, 200, 12
    for name, value in more.items():
        setattr(one, name, value)
    return one


class WithHead(Exchange):
    """An exchange that got as far as having a head."""

    __slots__ = ("head",)
    head: Any


def logged(form: str, *exchanges: Any) -> list[bytes]:
    read, write = os.pipe()
    log = AccessLog(write, form, 3, Later())
    for one in exchanges:
        log.write(one, NOW, 0.0015)
    log.flush()
    os.close(write)
    log._outlet.close()
    with os.fdopen(read, "rb") as file:
        data = file.read()
    assert not data or data.endswith(b"\n")
    return data.split(b"\n")[:-1]


# Formats.


def test_a_json_line_says_everything() -> None:
    one = exchange(
        bytes_in=7,
        endpoint="10.0.0.1:80",
        connect_time=0.0002,
        first_byte=0.001,
        route=SimpleNamespace(name="app"),
        reused=True,
        retries=1,
        request_id="0123456789abcdef",
        trace="0af7651916cd43dd8448eb211c80319c",
        user="alice",
    )
    [line] = logged("json", one)
    told = json.loads(line)
    assert list(told) == KEYS
    assert told["time"] == "2026-11-21T08:02:03.250Z"
    assert (told["client"], told["method"], told["host"], told["target"]) == ("192.0.2.7", "GET", "example.com", "/a?b")
    assert (told["status"], told["bytes_in"], told["bytes_out"]) == (200, 7, 12)
    assert (told["duration_us"], told["connect_us"], told["first_byte_us"]) == (1500, 200, 1000)
    assert (told["upstream"], told["route"], told["listener"], told["worker"]) == ("10.0.0.1:80", "app", "web", 3)
    assert (told["reused"], told["retries"], told["reason"]) == (True, 1, "")
    assert told["request_id"] == "0123456789abcdef"
    assert (told["trace"], told["user"]) == ("0af7651916cd43dd8448eb211c80319c", "alice")
    assert logged("common", one)[0].startswith(b"192.0.2.7 - alice [")
    one.user = 'eve "x'
    assert logged("common", one)[0].startswith(b'192.0.2.7 - eve%20\\"x [')


@pytest.mark.parametrize("more", [{"rule": "deny 10.0.0.0/8"}, {"sni": "a.example"}])
def test_what_few_requests_have(more: dict[str, Any]) -> None:
    [line] = logged("json", exchange(**more))
    told = json.loads(line)
    assert [*told] == [*KEYS, *more] and more.items() <= told.items()


def test_a_request_that_was_refused_has_a_line_too() -> None:
    one = Exchange(SimpleNamespace(name="web"), "192.0.2.7", 0.0)
    one.status, one.reason = 400, "host_missing"
    [line] = logged("json", one)
    told = json.loads(line)
    assert (told["method"], told["target"], told["route"]) == ("", "", "")
    assert (told["status"], told["reason"], told["request_id"]) == (400, "host_missing", "")
    [line] = logged("common", one)
    assert line == b'192.0.2.7 - - [21/Nov/2026:08:02:03 +0000] "-" 400 -'
    assert logged("combined", one) == [line + b' "-" "-"']


@given(st.binary(max_size=40), st.binary(max_size=40), st.text(max_size=20))
def test_a_json_line_is_one_for_any_bytes(target: bytes, host: bytes, endpoint: str) -> None:
    [line] = logged("json", exchange(target, host=host, endpoint=endpoint.encode("utf-8", "replace").decode()))
    told = json.loads(line)
    assert list(told) == KEYS
    assert told["target"] == target.decode("latin-1")
    assert told["host"] == host.decode("latin-1")
    assert told["status"] == 200


@pytest.mark.parametrize(
    "target",
    [b'http://x","status":500,"y":"/', b"http://a\\/", b'/"', b'/\\","status":500', b"/\xff\x80", b"/\xe2\x80\xa8"],
)
def test_nobody_can_write_a_line_by_asking_for_it(target: bytes) -> None:
    """What gets through the parser is what the log sees."""
    try:
        found = read_request(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    except WireError:
        return
    assert found is not None
    head = found[0]
    for form in ("json", "common", "combined"):
        [line] = logged(form, exchange(head.target, host=head.special[b"host"]))
        if form == "json":
            assert json.loads(line)["status"] == 200
        else:
            assert line.count(b'" 200 12') == 1
        assert line.isascii() or line.decode()


def test_common_and_combined() -> None:
    one = WithHead(SimpleNamespace(name="web"), "2001:db8::7", 0.0)
    one.method, one.target, one.status, one.bytes_out = b"POST", b'/a"b\\', 201, 0
    found = read_request(b'POST / HTTP/1.1\r\nHost: a\r\nReferer: http://b/\r\nUser-Agent: x"y\\\xff\r\n\r\n')
    assert found is not None
    one.head = found[0]
    common = rb'2001:db8::7 - - [21/Nov/2026:08:02:03 +0000] "POST /a\"b\\ HTTP/1.1" 201 -'
    assert logged("common", one) == [common]
    [line] = logged("combined", one)
    assert line.startswith(common + rb' "http://b/" "x\"y\\')
    assert line.isascii()


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_common_lines_are_lines_for_any_bytes(target: bytes, agent: bytes) -> None:
    one = WithHead(SimpleNamespace(name="web"), "192.0.2.7", 0.0)
    one.method, one.target, one.status = b"GET", target, 200
    one.head = SimpleNamespace(pairs=lambda: [(b"user-agent", agent)])
    for form in ("common", "combined"):
        [line] = logged(form, one)
        assert line.count(b"\r") == 0 and line.isascii()


# Writing.


@pytest.fixture
def file(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    path = tmp_path / "access.log"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    yield fd, path
    os.close(fd)


def test_lines_wait_for_each_other_but_not_for_long(file: tuple[int, Path]) -> None:
    fd, path = file
    later = Later()
    log = AccessLog(fd, "common", 0, later)
    for _ in range(3):
        log.write(exchange(), NOW, 0.0)
    assert path.read_bytes() == b"" and len(later.calls) == 1
    later.turn()
    assert path.read_bytes().count(b"\n") == 3
    assert later.calls == []
    log.write(exchange(), NOW, 0.0)
    assert len(later.calls) == 1


def test_many_lines_do_not_wait(file: tuple[int, Path]) -> None:
    fd, path = file
    log = AccessLog(fd, "common", 0, Later())
    for _ in range(5000):
        log.write(exchange(), NOW, 0.0)
    assert path.read_bytes().count(b"\n") > 4000
    log.flush()
    assert path.read_bytes().count(b"\n") == 5000


def test_several_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    fds = [os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for _ in range(3)]
    logs = [AccessLog(fd, "json", number, Later()) for number, fd in enumerate(fds)]
    for turn in range(500):
        for log in logs:
            log.write(exchange(b"/%d" % turn * 20), NOW, 0.0)
        logs[turn % 3].flush()
    for log, fd in zip(logs, fds, strict=True):
        log.flush()
        os.close(fd)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert len(lines) == 1500


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


def _drained(read: int) -> bytes:
    data = b""
    poll = select.poll()  # a test process may have more descriptors than select knows
    poll.register(read, select.POLLIN)
    while poll.poll(0):
        piece = os.read(read, 1 << 20)
        if not piece:
            break
        data += piece
    return data


def test_a_pipe_gets_whole_lines_at_any_time(pipe: tuple[int, int]) -> None:
    """Many processes may share it. One page takes exactly one write of PIPE_BUF, so each can be looked at by itself."""
    read, write = pipe
    assert fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BUF) == PIPE_BUF
    log = AccessLog(write, "json", 0, Later())
    for number in range(300):
        log.write(exchange(b"/" + b"x" * (number * 7)), NOW, 0.0)
    count = 0
    while count < 300:
        log.flush()
        piece = _drained(read)
        assert piece.endswith(b"\n") and len(piece) <= PIPE_BUF
        count += piece.count(b"\n")
    assert log.dropped == 0


def test_a_line_longer_than_a_pipe_takes_at_once_can_not_tear_others(pipe: tuple[int, int]) -> None:
    """A target may be longer than PIPE_BUF; what is written of it must still be a line of its own."""
    read, write = pipe
    log = AccessLog(write, "json", 0, Later())
    log.write(exchange(b"/" + b"x" * 8000), NOW, 0.0)
    log.write(exchange(b"/short"), NOW, 0.0)
    log.flush()
    lines = _drained(read).splitlines()
    assert all(len(line) < PIPE_BUF for line in lines)
    assert [json.loads(line)["target"][:6] for line in lines] == ["/xxxxx", "/short"]


def test_a_pipe_that_nobody_reads_stops_nobody_and_drops_are_counted(pipe: tuple[int, int]) -> None:
    read, write = pipe
    later = Later()
    log = AccessLog(write, "json", 0, later)
    written = 20_000
    for number in range(written):
        log.write(exchange(b"/%06d" % number), NOW, 0.0)
        if number % 1000 == 0:
            later.turn()
    log.flush()
    assert log.dropped > 0
    assert len(log._rest) <= 2 << 20
    heard = b""
    for _ in range(100):  # the reader is back
        heard += _drained(read)
        later.turn()
        log.flush()
    lines = [json.loads(line)["target"] for line in heard.splitlines()]
    assert len(lines) + log.dropped == written
    assert lines == sorted(lines) and lines[0] == "/000000"


def test_whoever_shares_the_pipe_is_not_made_non_blocking(pipe: tuple[int, int]) -> None:
    _, write = pipe
    AccessLog(write, "json", 0, Later())
    assert os.get_blocking(write)


def test_a_pipe_whose_reader_is_gone() -> None:
    gone, end = os.pipe()
    os.close(gone)
    log = AccessLog(end, "json", 0, Later())
    log.write(exchange(), NOW, 0.0)
    log.flush()
    log.write(exchange(), NOW, 0.0)
    log.flush()
    assert log.dropped == 2
    os.close(end)


def test_a_full_disk() -> None:
    fd = os.open("/dev/full", os.O_WRONLY | os.O_APPEND)
    log = AccessLog(fd, "json", 0, Later())
    for _ in range(10):
        log.write(exchange(), NOW, 0.0)
    log.flush()
    assert log.dropped == 10
    log.flush()
    assert log.dropped == 10
    os.close(fd)


def test_a_socket_that_nobody_reads() -> None:
    """Under systemd, stdout is a stream socket to journald."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        log = AccessLog(ours.fileno(), "json", 0, Later())
        for number in range(20_000):
            log.write(exchange(b"/%06d" % number), NOW, 0.0)
        log.flush()
        assert log.dropped > 0
        theirs.setblocking(False)
        heard = b""
        for _ in range(200):
            try:
                heard += theirs.recv(1 << 20)
            except BlockingIOError:
                pass
            log.flush()
        lines = [json.loads(line)["target"] for line in heard.splitlines()]
        assert len(lines) + log.dropped == 20_000 and lines == sorted(lines)
        assert ours.getblocking()


# Files.


def test_reopening_keeps_the_descriptors(tmp_path: Path) -> None:
    config = LogConfig(access=str(tmp_path / "access.log"), error=str(tmp_path / "error.log"))
    files = Files(config)
    log = AccessLog(files.access, "common", 0, Later())
    log.write(exchange(), NOW, 0.0)
    log.flush()
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    before = files.fds()
    assert files.reopen() == before
    log.write(exchange(b"/after"), NOW, 0.0)
    log.flush()
    assert (tmp_path / "access.log.1").read_bytes().count(b"\n") == 1
    assert b"/after" in (tmp_path / "access.log").read_bytes()
    files.close()


def test_reopening_what_can_not_be_opened_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    files = Files(LogConfig(access=str(folder / "access.log"), error="stderr"))
    open_now = descriptors()
    folder.rename(tmp_path / "moved")
    with pytest.raises(StartError) as raised:
        files.reopen()
    assert str(raised.value) == f"cannot open the log file {folder}/access.log: No such file or directory"
    os.write(files.access, b"still\n")
    assert (tmp_path / "moved/access.log").read_bytes() == b"still\n"
    assert descriptors() == open_now
    files.close()


def test_reopening_when_only_the_second_fails_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    files = Files(LogConfig(access=str(tmp_path / "access.log"), error=str(tmp_path / "gone/error.log")))
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    (tmp_path / "gone").rename(tmp_path / "moved")
    open_now = descriptors()
    with pytest.raises(StartError):
        files.reopen()
    os.write(files.access, b"still\n")
    assert (tmp_path / "access.log.1").read_bytes() == b"still\n"
    assert descriptors() == open_now
    files.close()


def test_no_descriptor_passes_to_another_program(tmp_path: Path) -> None:
    """An upgrade in place runs another program in this process; it opens the files itself."""
    files = Files(LogConfig(access=str(tmp_path / "access.log"), error=str(tmp_path / "error.log")))
    assert not any(os.get_inheritable(fd) for fd in files.fds())
    files.reopen()
    assert not any(os.get_inheritable(fd) for fd in files.fds())
    files.close()


def test_a_worker_takes_over_what_the_master_opened(tmp_path: Path) -> None:
    config = LogConfig(access=str(tmp_path / "access.log"))
    files = Files(config)
    fresh = os.open(tmp_path / "fresh.log", os.O_WRONLY | os.O_CREAT)
    files.replace([fresh])
    os.write(files.access, b"here\n")
    assert (tmp_path / "fresh.log").read_bytes() == b"here\n"
    with pytest.raises(OSError):
        os.fstat(fresh)
    files.close()


def test_streams_are_not_files() -> None:
    files = Files(LogConfig(access="off", error="stderr"))
    assert (files.access, files.error) == (-1, 2)
    assert files.fds() == []
    assert Files(LogConfig(access="stdout")).access == 1


# The error log.


@pytest.fixture
def error_file(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Sends the error log to a file, and back again afterwards."""
    loggers = [logging.getLogger(name) for name in ("gateway", "uvicorn", "asyncio")]
    before = [(list(one.handlers), one.propagate, one.level) for one in loggers]
    opened: list[Files] = []

    def start(level: str, form: str) -> Path:
        path = tmp_path / "error.log"
        config = LogConfig.model_validate({"error": str(path), "level": level, "error_format": form, "access": "off"})
        opened.append(Files(config))
        set_up(config, opened[-1])
        return path

    yield start
    name_process("master")
    for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)
    for files in opened:
        files.close()


def test_error_lines_as_text(error_file: Callable[[str, str], Path]) -> None:
    path = error_file("info", "text")
    name_process("worker 0 [generation 3]")
    error_log.info("hello %s", "there")
    error_log.debug("not this")
    logging.getLogger("gateway.upstream").warning("also this: \udcff")
    logging.getLogger("uvicorn.error").info("not their chatter")
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("Z info worker 0 [generation 3] hello there")


def test_error_lines_as_json(error_file: Callable[[str, str], Path]) -> None:
    path = error_file("debug", "json")
    try:
        raise ValueError('bad "thing"\n')
    except ValueError:
        error_log.exception("it\nbroke")
    [line] = path.read_text().splitlines()
    told = json.loads(line)
    assert (told["level"], told["process"], told["message"]) == ("error", "master", "it\nbroke")
    assert "ValueError" in told["exception"]


def test_an_error_log_on_a_full_disk_raises_nothing(error_file: Callable[[str, str], Path]) -> None:
    error_file("info", "text")
    config = LogConfig.model_validate({"error": "/dev/full", "access": "off"})
    files = Files(config)
    set_up(config, files)
    error_log.error("lost")
    files.close()
