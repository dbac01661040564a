"""Origin and load generator: against each other, and against answers that are wrong."""

import asyncio
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.cost import cpu_by_process, cpu_spent
from bench.generator import generator
from bench.load import Client, Crew
from bench.origin import SMALL, SMALL_BODY, ChunkedBody
from bench.process import end_tree
from bench.scenarios import SCENARIOS
from bench.serving import site


@pytest.mark.parametrize("scenario", ["small", "download", "upload"])
def test_every_answer_of_the_origin_is_right(scenario: str, tmp_path: Path) -> None:
    with site(4096, tmp_path) as at, generator(at.origin, scenario, 8, at) as load:
        tally = load.run(0.2)
    assert tally.errors == {}
    assert tally.requests > 8
    assert sum(tally.latencies.values()) == tally.requests


def test_the_small_request_and_answer_are_of_the_promised_size() -> None:
    assert SCENARIOS["small"].request.count(b"\r\n") - 2 == 12
    assert SMALL.partition(b"\r\n\r\n")[0].count(b"\r\n") == 10
    assert len(SMALL_BODY) == 300


class Wire(asyncio.Transport):
    """Takes what a client writes and lets the test play the server."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


def asking() -> tuple[Crew, Client, Wire]:
    """A crew of one connection with one request under way, in a run that is about to end."""
    crew, wire = Crew(0, SCENARIOS["small"], 1), Wire()
    client = Client(crew)
    client.connection_made(wire)
    crew.clients.add(client)
    crew.ask(client)
    return crew, client, wire


@pytest.mark.parametrize("piece", [1, 7, 100, len(SMALL)])
def test_an_answer_may_come_in_any_pieces(piece: int) -> None:
    crew, client, wire = asking()
    assert wire.written == SCENARIOS["small"].request
    for begin in range(0, len(SMALL), piece):
        assert crew.histogram.total == 0
        client.data_received(SMALL[begin : begin + piece])
    assert crew.histogram.total == 1
    assert crew.all_answered.is_set()
    assert not crew.errors


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (SMALL.replace(b"200 OK", b"502 Bad Gateway"), "status 502"),
        (SMALL.replace(b"Content-Length: 300", b"Content-Length: 299"), "content-length"),
        (SMALL.replace(b"Content-Length: 300", b"Transfer-Encoding: chunked"), "content-length"),
        (SMALL + b"x", "more bytes than announced"),
    ],
)
def test_a_wrong_answer_is_counted_once_and_not_as_a_request(answer: bytes, error: str) -> None:
    crew, client, wire = asking()
    client.data_received(answer)
    client.connection_lost(None)
    assert crew.errors == {error: 1}
    assert crew.histogram.total == 0
    assert wire.aborted
    assert crew.all_answered.is_set()


def test_a_cut_body_is_a_disconnect() -> None:
    crew, client, _ = asking()
    client.data_received(SMALL[:-1])
    client.connection_lost(None)
    assert crew.errors == {"disconnect": 1}


def test_closing_an_idle_connection_is_no_error() -> None:
    crew, client, _ = asking()
    client.data_received(SMALL)
    client.connection_lost(None)
    assert not crew.errors
    assert not crew.clients


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 100])
def test_the_origin_reads_chunked_uploads(piece: int) -> None:
    wire = b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\n\r\nGET "
    body, rest = ChunkedBody(), b""
    for begin in range(0, len(wire), piece):
        data = wire[begin : begin + piece]
        rest += data if body.ended else body.feed(data)
    assert body.ended
    assert body.length == 15
    assert rest == b"GET "


def test_a_whole_process_tree_is_charged_and_ended() -> None:
    busy = "sum(range(3_000_000))"
    script = f"import subprocess, sys; {busy}; subprocess.run([sys.executable, '-c', '{busy}; input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as parent:
        members: list[psutil.Process] = []
        try:
            before = cpu_by_process(parent.pid)
            while len(members) < 2:
                members = [psutil.Process(parent.pid), *psutil.Process(parent.pid).children(recursive=True)]
            assert cpu_spent(before, cpu_by_process(parent.pid)) > 0
        finally:
            end_tree(parent)
    assert not any(member.is_running() for member in members)
