"""What is known of an endpoint is known to all processes at once, and none of them takes it along when it goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.access_log import endpoints_of, lines
from tests.support.disturbances import DISTURBANCES
from tests.support.endpoints import changes, condition, end, is_ready, row
from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client, get
from tests.support.origin import Origin
from tests.support.origin_process import OriginProcess
from tests.support.settings import Settings
from tests.support.waiting import eventually

# One answer that says so is enough, and it is the client who asks for it: /status/503.
TRAFFIC = """
[upstreams.app.outlier]
consecutive_failures = 1
eject_for = "%s"
max_ejected = "75%%"
"""
# The timeout is for a busy machine: who is well must not be taken for down.
PROBED = """
[upstreams.app.health]
path = "/hello"
interval = "100ms"
timeout = "5s"
"""


@pytest.fixture
def origins() -> Iterator[list[Origin]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Origin(name)) for name in "abcd"]


def group(origins: list[Origin], more: str = "", workers: int = 2) -> Settings:
    return Settings(tuple(origin.address for origin in origins), workers=workers, more=more)


def asked(one: Gateway, origin: Origin, requests: int = 12) -> int:
    """How many of so many requests this endpoint gets."""
    before = origin.requests
    for _ in range(requests):
        assert get(one.address()).status == 200
    return origin.requests - before


def test_an_ejection_is_the_same_through_everything(gateway: Start, origins: list[Origin]) -> None:
    """It ends when it would have ended, is told once, and the endpoint comes back on probation."""
    one = gateway(group(origins, TRAFFIC % "10s"))
    failed = get(one.address(), "/status/503")
    [ejected] = [origin for origin in origins if origin.name == failed.fields["x-origin"]]
    until = end(one, ejected.address)
    assert until is not None
    for happens in DISTURBANCES.values():
        happens(one)
        now = end(one, ejected.address)
        assert now.is_that_of(until) if now is not None else until.is_over
        assert asked(one, ejected) == 0 or until.is_over
        assert row(one, ejected.address)["ejections"] == 1
    eventually(lambda: asked(one, ejected) and condition(one, ejected.address) == "up")
    assert until.is_over
    assert changes(one, ejected.address) == ["ejected", "probation", "up"]


def test_a_drain_is_the_same_through_everything(gateway: Start, origins: list[Origin]) -> None:
    """It gets nothing until it is told to be used again."""
    one = gateway(group(origins))
    drained = origins[0]
    assert one.cli("endpoint", "drain", "--no-wait", "app", drained.address).returncode == 0
    for happens in DISTURBANCES.values():
        happens(one)
        assert row(one, drained.address)["drained"] and not is_ready(one, drained.address)
        assert asked(one, drained) == 0
    assert one.cli("endpoint", "undrain", "app", drained.address).returncode == 0
    assert asked(one, drained, 12) > 0
    assert changes(one, drained.address) == ["drained", "no longer drained"]


def test_what_probes_found_is_the_same_through_everything(gateway: Start, origins: list[Origin]) -> None:
    """Down is told once, by the observer that found it, and nothing is sent there before another has found it well."""
    with OriginProcess() as victim:
        addresses = (*[origin.address for origin in origins], victim.address)
        one = gateway(Settings(addresses, workers=2, more=PROBED))
        victim.kill()
        eventually(lambda: condition(one, victim.address) == "down")
        for happens in DISTURBANCES.values():
            happens(one)
            assert condition(one, victim.address) == "down"
            for _ in range(10):
                assert get(one.address()).status == 200
        assert not any(victim.address in endpoints_of(line) for line in lines(one.folder / "access.log"))
        assert changes(one, victim.address) == ["down"]
        victim.start()
        eventually(lambda: condition(one, victim.address) == "probation")
        eventually(lambda: get(one.address()).status == 200 and condition(one, victim.address) == "up")
        assert changes(one, victim.address) == ["down", "probation", "up"]


def test_a_change_is_seen_by_every_worker_with_its_next_request(gateway: Start, origins: list[Origin]) -> None:
    """An endpoint fails a request that came through one worker. No other sends it anything from then on, though each
    would have, turn by turn."""
    one = gateway(group(origins, TRAFFIC % "1h", workers=3))
    with ExitStack() as stack:
        clients = one_of_each_worker(one, stack, 3)
        out: set[str] = set()
        for client in clients:
            assert {client.get().fields["x-origin"] for _ in range(4)} == set("abcd")
        for client in clients:
            failed = client.get("/status/503")
            assert failed.status == 503
            out.add(failed.fields["x-origin"])
            for other in [*clients, *reversed(clients)]:
                assert other.get().fields["x-origin"] not in out
        for client in clients:
            assert {client.get().fields["x-origin"] for _ in range(4)} == set("abcd") - out
        assert len(out) == 3


def one_of_each_worker(one: Gateway, stack: ExitStack, workers: int) -> list[Client]:
    """Kept connections, and the log tells whose they are."""
    known: dict[int, Client] = {}
    number = 0
    while len(known) < workers:
        client = stack.enter_context(Client(one.address()))
        target = f"/hello?{number}"
        assert client.get(target).status == 200
        log = one.folder / "access.log"
        [line] = eventually(lambda: [line for line in lines(log) if line["target"] == target])  # noqa: B023  at once
        known.setdefault(line["worker"], client)
        number += 1
    return list(known.values())


@pytest.mark.parametrize("how", ["reload", "upgrade"])
def test_who_is_probed_no_more_does_not_stay_down(gateway: Start, origins: list[Origin], how: str) -> None:
    one = gateway(group(origins, PROBED.replace("/hello", "/status/503")))
    for origin in origins:
        eventually(lambda at=origin.address: condition(one, at) == "down")  # type: ignore[misc]
    assert get(one.address()).status == 503
    one.write(group(origins))
    if how == "reload":
        assert one.reload().returncode == 0
    else:
        one.upgrade()
    for origin in origins:
        eventually(lambda at=origin.address: is_ready(one, at))  # type: ignore[misc]
        assert changes(one, origin.address)[:2] == ["down", "probation"]
    assert one.log().count("is probation, was down: it is probed no more") >= len(origins)
    assert get(one.address()).status == 200
