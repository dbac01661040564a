"""Clients that are slow on purpose are cut off, a thousand of them at once; honest ones that are slow are not."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import access_log
from tests.support.gateway_process import Gateway, Start
from tests.support.http import Answer, Client, request, split
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually

pytestmark = pytest.mark.xdist_group("slow attacks")  # they want a processor each

CONNECTIONS = 1000
# Short, so that what they are for happens within seconds. The grace of body_min_rate is no longer than body_idle.
TIMEOUTS = """
[listeners.timeouts]
head = "2s"
body_idle = "2s"
body_min_rate = "1KiB/s"
keep_alive = "2s"
write_idle = "2s"
"""
LONGEST = 60  # seconds after which the attacker gives up, if nobody stops it


@pytest.fixture
def settings(origin: Origin) -> Settings:
    return Settings(origin.address, workers=2, more=TIMEOUTS)


@contextmanager
def attack(one: Gateway, path: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """slowhttptest at work."""
    program = shutil.which("slowhttptest")
    assert program is not None, "slowhttptest is not installed"
    size = ("-c", str(CONNECTIONS), "-r", "500", "-l", str(LONGEST), "-v", "0")
    command = (program, *size, *options, "-u", f"http://{one.address()}{path}")
    with (one.folder / "attack.txt").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def reasons(one: Gateway) -> Counter[tuple[int, str]]:
    """What the access log says of all that is over: status and reason."""
    return Counter((line["status"], line["reason"]) for line in access_log.lines(one.folder / "access.log"))


def connections(one: Gateway) -> int:
    return sum(worker.connections for worker in one.workers())


@pytest.mark.parametrize(
    ("options", "path", "cut"),
    [
        (("-H", "-i", "1", "-x", "8"), "/", {(408, "request_head_timeout")}),
        (("-B", "-i", "1", "-x", "8", "-s", "8192"), "/echo", {(408, "body_too_slow")}),
        # Nothing more of it comes, and so it is too slow as well: whichever is noticed first.
        (("-B", "-i", "30", "-x", "8", "-s", "8192"), "/echo", {(408, "request_body_timeout"), (408, "body_too_slow")}),
        (("-X", "-n", "1", "-z", "5", "-w", "1", "-y", "512"), "/stream/4000000", {(200, "client_write_timeout")}),
    ],
    ids=["heads", "bodies", "stalled bodies", "readers"],
)
def test_a_thousand_slow_clients(
    gateway: Start, settings: Settings, options: tuple[str, ...], path: str, cut: set[tuple[int, str]]
) -> None:
    """Every one is cut off for what it does, and whoever is honest is answered throughout."""
    one = gateway(settings)
    with Load(one.address(), gets=2, posts=2, fresh=1, pause=0.01) as load, attack(one, path, *options):
        eventually(lambda: sum(reasons(one)[kind] for kind in cut) >= CONNECTIONS, "all are cut off", LONGEST)
        eventually(lambda: connections(one) < 20, "their connections are gone")
        load.goes_on()
    load.clean()
    wrong = {kind: count for kind, count in reasons(one).items() if kind not in {(200, ""), *cut}}
    # An attacker's own probe for whether we still answer, which it may break off.
    assert sum(wrong.values()) <= 20, wrong


def send_slowly(client: Client, parts: Iterator[tuple[bytes, float]]) -> Answer | None:
    """Send each part and wait as long as it says. What is answered before the end, None for nothing."""
    for part, pause in parts:
        try:
            client.sock.sendall(part)
        except ConnectionError:
            return client.answer()
        poll = select.poll()  # a test process may have more descriptors than select knows
        poll.register(client.sock, select.POLLIN)
        readable = poll.poll(pause * 1000)
        if readable:
            return client.answer()
    return None


def test_an_honest_slow_upload_passes(gateway: Start, origin: Origin) -> None:
    """1 Mbit/s, as an hour of it would be: for longer than any of the deadlines, with a break."""
    one = gateway(Settings(origin.address, more=TIMEOUTS))
    part = b"x" * 16 * 1024
    count = 40
    began = time.monotonic()
    with Client(one.address()) as client:
        client.start("/echo", {"content-length": str(count * len(part))})
        pauses = (1.0 if number == 20 else 0.125 for number in range(count))
        answer = send_slowly(client, ((part, pause) for pause in pauses)) or client.answer()
    assert (answer.status, len(answer.body)) == (200, count * len(part))
    assert time.monotonic() - began > 4  # twice the longest of the deadlines


@pytest.mark.parametrize("chunked", [False, True])
def test_a_trickle_is_cut_off(gateway: Start, origin: Origin, chunked: bool) -> None:
    one = gateway(Settings(origin.address, more=TIMEOUTS))
    with Client(one.address()) as client:
        client.start("/echo", {"transfer-encoding": "chunked"} if chunked else {"content-length": "100000"})
        part = b"1\r\nx\r\n" if chunked else b"x"
        answer = send_slowly(client, ((part, 0.1) for _ in range(200)))
        assert answer is not None
        assert (answer.status, answer.closes) == (408, True)
        assert client.ended()
    assert "body_too_slow" in answer.fields["proxy-status"]
    eventually(lambda: reasons(one) == {(408, "body_too_slow"): 1})
    assert origin.requests == 0 or eventually(lambda: origin.under_way == 0)


def test_a_trickle_passes_where_any_rate_is_good_enough(gateway: Start, origin: Origin) -> None:
    timeouts = TIMEOUTS.replace("1KiB/s", "0B/s")
    one = gateway(Settings(origin.address, more=timeouts))
    with Client(one.address()) as client:
        client.start("/echo", {"content-length": "50"})
        answer = send_slowly(client, ((b"x", 0.1) for _ in range(50))) or client.answer()
        assert (answer.status, answer.body) == (200, b"x" * 50)


def test_an_honest_slow_reader_gets_all_of_it(gateway: Start, origin: Origin) -> None:
    """Slower than the gateway would like, for longer than its deadline, but it takes what there is."""
    one = gateway(Settings(origin.address, more=TIMEOUTS))
    size, taken = 6_000_000, 0
    with Client(one.address()) as client:
        client.send("GET", f"/stream/{size}")
        while taken < size:
            data = client.sock.recv(100_000)
            assert data, f"cut off after {taken} bytes"
            taken += len(data)
            time.sleep(0.06)
    eventually(lambda: reasons(one) == {(200, ""): 1})


def test_a_reader_that_stops_with_more_requests_sent(gateway: Start, origin: Origin) -> None:
    """The next request is there when the answer before is written but not taken: the client is waited for, not us."""
    one = gateway(Settings(origin.address, more=TIMEOUTS))
    host, port = split(one.address())
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, port))
        sock.sendall(request("GET", "/size/100000") * 300)
        eventually(lambda: connections(one) == 1)
        eventually(lambda: connections(one) == 0, "it is cut off", 30)
    assert [count for (_, reason), count in reasons(one).items() if reason] == [1]
    assert {reason for _, reason in reasons(one)} == {"", "client_write_timeout"}


def test_an_empty_line_behind_a_request_changes_no_deadline(gateway: Start, origin: Origin) -> None:
    one = gateway(Settings(origin.address, more=TIMEOUTS))
    for behind in (b"", b"\r\n", b"\r\n\r\n"):
        with Client(one.address()) as client:
            client.expect("GET")
            client.sock.sendall(request("GET", "/hello") + behind)
            assert client.answer().status == 200
            assert client.ended()
