"""Traffic that is shared, tried out and copied, by real processes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from tests.support import access_log
from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client
from tests.support.load import Load
from tests.support.metrics import Metrics
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually, within

USERS = range(400)


@pytest.fixture
def pair() -> Iterator[tuple[Origin, Origin]]:
    """Two origins whose answers say which they are."""
    with Origin("one") as one, Origin("two") as two:
        yield one, two


def shaped(pair: Sequence[Origin], route: str, upstream: str = "") -> Settings:
    """Two workers, upstreams "app" and "two", and a route to them for /r, which has these lines. upstream: lines of
    the second."""
    more = f'[upstreams.two]\nendpoints = ["{pair[1].address}"]\n{upstream}\n'
    return Settings(pair[0].address, workers=2, more=f'{more}[[routes]]\nname = "r"\npath = "/r"\n{route}\n')


def sides(gateway: Gateway, clients: int) -> dict[int, str]:
    """Who answers each user, over several connections, so that both workers are asked. Raises AssertionError when a
    user is answered by both sides."""
    found: dict[int, str] = {}
    with ExitStack() as stack:
        open_ = [stack.enter_context(Client(gateway.address())) for _ in range(clients)]
        for client in open_:
            for user in USERS:
                client.send("GET", "/r", fields={"cookie": f"a=b; uid={user}"})
                answer = client.answer()
                assert answer.status == 200
                assert found.setdefault(user, answer.fields["x-origin"]) == answer.fields["x-origin"]
    return found


def splitting(pair: Sequence[Origin], two: int) -> Settings:
    shares = f'upstream = [{{ name = "app", weight = 90 }}, {{ name = "two", weight = {two} }}]'
    return shaped(pair, f'{shares}\nsplit_key = "cookie:uid"')


def near(count: int, share: float) -> bool:
    """Whether this many of the users are about this share of them: within four standard deviations."""
    return bool(abs(count - len(USERS) * share) <= 4 * (len(USERS) * share * (1 - share)) ** 0.5)


def test_users_stay_on_their_side_when_its_weight_grows(gateway: Start, pair: tuple[Origin, Origin]) -> None:
    running = gateway(splitting(pair, 10))
    before = sides(running, 16)  # all to one worker: once in 30,000 times
    assert near(Counter(before.values())["two"], 0.1)
    assert sum(worker.requests > 0 for worker in running.settled(2)) == 2  # the same for both workers
    metrics = Metrics(running.admin)
    for upstream, name in (("app", "one"), ("two", "two")):
        counted = metrics("gateway_requests_total", route="r", upstream=upstream, code="2xx")
        assert counted == 16 * Counter(before.values())[name]

    running.write(splitting(pair, 60))
    assert "~ routes.r.upstream[1].weight: 10 -> 60" in running.reload().stdout
    after = sides(running, 4)
    moved = {(before[user], after[user]) for user in USERS if before[user] != after[user]}
    assert moved == {("one", "two")}
    assert near(Counter(after.values())["two"], 60 / 150)

    running.write(splitting(pair, 0))
    assert running.reload().returncode == 0
    assert set(sides(running, 1).values()) == {"one"}
    Metrics(running.admin).since(metrics)


def test_without_a_key_chance_deals(gateway: Start, pair: tuple[Origin, Origin]) -> None:
    running = gateway(shaped(pair, 'upstream = [{ name = "app", weight = 3 }, { name = "two", weight = 1 }]'))
    with Client(running.address()) as client:
        counts = Counter(client.get("/r").fields["x-origin"] for _ in USERS)
    assert near(counts["two"], 0.25), counts


@pytest.mark.parametrize(
    ("by", "asks"),
    [("header:X-Canary", {"x-canary": "yes"}), ("cookie:canary", {"cookie": "a=b; canary=yes"})],
)
def test_the_canary_gets_who_asks_for_it(
    gateway: Start, pair: tuple[Origin, Origin], by: str, asks: dict[str, str]
) -> None:
    canary = f'canary = {{ upstream = "two", by = "{by}", value = "yes" }}'
    running = gateway(shaped(pair, f'upstream = "app"\n{canary}'))
    with Client(running.address()) as client:
        for fields, name in ((asks, "two"), ({}, "one"), (dict.fromkeys(asks, "no"), "one"), (asks, "two")):
            client.send("GET", "/r", fields=fields)
            assert client.answer().fields["x-origin"] == name
    metrics = Metrics(running.admin)
    for upstream in ("app", "two"):
        assert metrics("gateway_requests_total", route="r", upstream=upstream, code="2xx") == 2
    log = running.folder / "access.log"
    lines = eventually(lambda: found if len(found := access_log.lines(log)) == 4 else [], "four lines")
    app, two = (origin.address for origin in pair)
    assert [line["upstream"] for line in lines] == [two, app, app, two]
    told = running.cli("explain", "GET", "http://x/r", *[f"-H{name}: {value}" for name, value in asks.items()])
    assert f"answer     from upstream two, by {by}\n" in told.stdout


class Bad:
    """A mirror that takes connections and requests, and then hangs or resets. A context manager."""

    def __init__(self, resets: bool) -> None:
        self._resets = resets
        self._server = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            if self._resets:
                with contextlib.suppress(OSError):
                    sock.recv(65536)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
            else:
                self._held.append(sock)

    def __enter__(self) -> Bad:
        self._thread.start()
        return self

    def __exit__(self, *what: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)
        for sock in self._held:
            sock.close()


def mirroring(origin: Origin, mirror: str, timeout: str = "30s") -> Settings:
    """Every request is copied. timeout: how long the mirror's answer is waited for."""
    return Settings(
        origin.address,
        workers=2,
        more=f"""
[upstreams.two]
endpoints = ["{mirror}"]
timeouts = {{ connect = "{timeout}", response = "{timeout}", idle = "{timeout}" }}
[[routes]]
name = "r"
hosts = ["example.com"]
upstream = "app"
mirror = {{ upstream = "two", max_requests = 8 }}
""",
    )


def copies(gateway: Gateway) -> dict[str, int]:
    metrics = Metrics(gateway.admin)
    return {name: int(metrics("gateway_mirrored_total", outcome=name)) for name in ("sent", "dropped", "failed")}


def clean_under_load(running: Gateway) -> int:
    """How many requests were answered, none of them as late as a wait for the mirror would make it."""
    with Load(running.address()) as load:
        load.goes_on(1500)
        load.clean()
    assert load.report.slowest < 5, load.report.slowest
    return load.report.requests


def test_a_mirror_that_hangs_costs_nobody_anything(gateway: Start, origin: Origin) -> None:
    with Bad(resets=False) as mirror:
        running = gateway(mirroring(origin, mirror.address))
        asked = clean_under_load(running)
        counts = copies(running)
        # Eight in each worker wait for the mirror's timeout, which has not come; all others were dropped.
        assert counts == {"sent": 0, "failed": 0, "dropped": asked - 16}
        with within(8, "an end that waits for no copy"):
            running.stop()


def test_a_mirror_that_hangs_ends_by_its_own_timeout(gateway: Start, origin: Origin) -> None:
    with Bad(resets=False) as mirror:
        running = gateway(mirroring(origin, mirror.address, timeout="300ms"))
        asked = clean_under_load(running)
        counts = eventually(lambda: found if sum((found := copies(running)).values()) == asked else {}, "all are over")
        assert counts["failed"] > 16 and counts["dropped"] > 0 and counts["sent"] == 0
        assert origin.requests == asked and not origin.twice()


@pytest.mark.parametrize("kind", ["resets", "refuses"])
def test_a_mirror_that_fails_costs_nobody_anything(gateway: Start, origin: Origin, kind: str) -> None:
    with Bad(resets=True) as bad:
        address = bad.address
        if kind == "refuses":
            with socket.create_server(("127.0.0.1", 0)) as closed:
                address = f"127.0.0.1:{closed.getsockname()[1]}"
        running = gateway(mirroring(origin, address))
        asked = clean_under_load(running)
        counts = eventually(lambda: found if sum((found := copies(running)).values()) == asked else {}, "all are over")
        assert counts["failed"] > 0 and counts["sent"] == 0
        assert Metrics(running.admin)("gateway_refusals_total") == 0
        [row] = [row for row in running.ask(do="endpoints")["endpoints"] if row["upstream"] == "app"]
        assert row["condition"] == "up"


def test_copies_arrive_whole(gateway: Start, pair: tuple[Origin, Origin]) -> None:
    """The origin's answers are checked by the load; the mirror counts what it has read to its end."""
    running = gateway(mirroring(pair[0], pair[1].address))
    with Client(running.address()) as client:
        for number, body in enumerate((b"x", b"y" * 1000, b"z" * 60_000)):
            client.send("POST", "/echo", body, {"x-request-id": f"length-{number}"})
            assert client.answer().body == body
            client.start("/echo", {"transfer-encoding": "chunked", "x-request-id": f"chunked-{number}"})
            client.sock.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            assert client.answer().body == body
    eventually(lambda: copies(running)["sent"] == 6, "all copies are sent")
    assert pair[0].bodies == pair[1].bodies and len(pair[1].bodies) == 6
    asked = clean_under_load(running)
    counts = eventually(lambda: found if sum((found := copies(running)).values()) == asked + 6 else {}, "all are over")
    assert counts["failed"] == 0 and pair[1].requests == counts["sent"] > asked / 2
    assert pair[0].bodies.items() >= pair[1].bodies.items() and not pair[1].twice()
