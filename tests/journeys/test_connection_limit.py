"""At the limit of connections whoever has been idle for longest makes room; whoever is busy stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support import access_log
from tests.support.chat import Chat
from tests.support.gateway_process import Gateway, Start
from tests.support.http import Answer, Client, get, request
from tests.support.load import Load
from tests.support.metrics import Metrics
from tests.support.origin import HELLO, Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually

LIMIT = "[listeners.limits]\nconnections = %d\n"


@pytest.fixture
def settings(origin: Origin) -> Settings:
    return Settings(origin.address, more=LIMIT % 4)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def connected(stack: ExitStack, one: Gateway, count: int = 4) -> list[Client]:
    return [stack.enter_context(Client(one.address())) for _ in range(count)]


def all_there(one: Gateway, count: int = 4) -> None:
    """Wait until all of them were accepted."""
    eventually(lambda: Metrics(one.admin)("gateway_connections_open", listener="web") == count)


def refusals(one: Gateway) -> list[dict[str, Any]]:
    lines = access_log.lines(one.folder / "access.log")
    return [line for line in lines if line["status"] != 200]


def refused(answer: Answer) -> None:
    assert (answer.status, answer.closes) == (503, True)
    assert "connection_limit_reached" in answer.fields["proxy-status"]
    assert "retry-after" in answer.fields


def test_the_longest_idle_one_goes_first(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    one = gateway(settings)
    first, second, third, fourth = connected(stack, one)
    for client in (first, second, third, fourth, first):
        assert client.get().body == HELLO
    [fifth] = connected(stack, one, 1)
    assert fifth.get().body == HELLO
    assert second.ended()
    for client in (third, fourth, first):
        assert client.get().body == HELLO
    [sixth] = connected(stack, one, 1)
    assert sixth.get().body == HELLO
    assert fifth.ended()
    assert [client.get().status for client in (third, fourth, first, sixth)] == [200] * 4
    assert refusals(one) == []


def test_who_never_said_anything_is_idle_too(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    one = gateway(settings)
    silent = connected(stack, one)
    all_there(one)
    assert get(one.address()).body == HELLO
    assert silent[0].ended()
    assert [client.get().status for client in silent[1:]] == [200] * 3


def test_when_nobody_is_idle_the_new_one_is_refused(
    gateway: Start, settings: Settings, stack: ExitStack, origin: Origin
) -> None:
    one = gateway(settings)
    busy = connected(stack, one)
    rests = [client.send_most("/echo", b"all of it") for client in busy]
    eventually(lambda: origin.under_way == 4)
    for _ in range(3):
        refused(get(one.address()))
    for client, rest in zip(busy, rests, strict=True):
        client.sock.sendall(rest)
        assert client.answer().body == b"all of it"
    assert get(one.address()).body == HELLO  # now they are idle
    refused_ones = eventually(lambda: lines if len(lines := refusals(one)) == 3 else [])
    assert {(line["status"], line["reason"], line["listener"]) for line in refused_ones} == {
        (503, "connection_limit_reached", "web")
    }
    assert Metrics(one.admin)("gateway_refusals_total", reason="connection_limit_reached") == 3


def test_half_a_head_is_not_idle(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    one = gateway(settings)
    head = request("GET", "/hello")
    half = connected(stack, one)
    for client in half:
        client.sock.sendall(head[:20])
    all_there(one)
    # What was sent may be read a moment later than the connection is made.
    eventually(lambda: get(one.address()).status == 503)
    for client in half[-3:]:
        client.sock.sendall(head[20:])
        assert client.answer().body == HELLO


def test_nothing_is_lost_under_load(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    """Callers that come back at once are never the ones that have been idle for longest."""
    one = gateway(settings.but(more=LIMIT % 30))
    with Load(one.address(), pause=0.003) as load:
        for _ in range(150):
            [idler] = connected(stack, one, 1)
            assert idler.get().body == HELLO
        load.goes_on()
    load.clean()
    assert refusals(one) == []


def test_a_tunnel_is_not_idle(gateway: Start) -> None:
    with Chat() as chat:
        one = gateway(Settings(chat.address, more=LIMIT % 1))
        with connect(f"ws://{one.address()}/echo", proxy=None, ping_interval=None) as socket:
            refused(get(one.address(), "/plain"))
            socket.send("still here")
            assert socket.recv(10) == "still here"
        eventually(lambda: get(one.address(), "/plain").status == 200)


def test_each_listener_has_its_own(gateway: Start, settings: Settings, stack: ExitStack, origin: Origin) -> None:
    one = gateway(settings.but(listeners={"other": "127.0.0.1:0", "web": "127.0.0.1:0"}))  # the limit is the last one's
    busy = connected(stack, one)
    for client in busy:
        client.send_most("/echo", b"all of it")
    eventually(lambda: origin.under_way == 4)
    refused(get(one.address()))
    others = [stack.enter_context(Client(one.address("other"))) for _ in range(10)]
    assert [client.get().status for client in others] == [200] * 10
