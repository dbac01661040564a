"""More clients than descriptors: those who are in are served, the others wait in the kernel's queue, nobody is lost."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from tests.support.gateway_process import Gateway, Start
from tests.support.http import Client, get, request
from tests.support.load import Load
from tests.support.metrics import Metrics
from tests.support.origin import HELLO, Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually, steadily

DESCRIPTORS = 200
MANY = 300  # clients; more than descriptors
FEW = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")  # what `before` the gateway makes it one with few


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def uploading(stack: ExitStack, one: Gateway, count: int = MANY) -> list[tuple[Client, bytes]]:
    """Clients with a request under way, each with what it has yet to send."""
    address = one.address()
    clients = (stack.enter_context(Client(address)) for _ in range(count))
    return [(client, client.send_most("/echo", b"all of it")) for client in clients]


def finish(clients: list[tuple[Client, bytes]]) -> None:
    """Let each be answered and leave, in the order in which they came."""
    for client, rest in clients:
        client.sock.sendall(rest)
        assert client.answer().body == b"all of it"
        client.close()


def idle(stack: ExitStack, one: Gateway, listener: str = "web") -> None:
    """Many clients, one after the other, that are answered and stay."""
    address = one.address(listener)
    for _ in range(MANY):
        assert stack.enter_context(Client(address)).get().body == HELLO


def accepted(one: Gateway) -> int:
    return int(Metrics(one.admin)("gateway_connections_open"))


def full(one: Gateway) -> int:
    """Wait until nobody more is accepted; how many were."""
    eventually(lambda: told(one))
    count = accepted(one)
    assert 20 < count < DESCRIPTORS
    steadily(lambda: accepted(one) == count, 0.5, "who waits is not let in")
    return count


def told(one: Gateway) -> list[str]:
    """The lines of the log about running out, but for the warning at the start."""
    return [line for line in one.log().splitlines() if "descriptors" in line and "RLIMIT_NOFILE" not in line]


def all_alive(clients: Iterable[Client]) -> None:
    """Raises AssertionError when one of them was closed, reset or told anything."""
    poll = select.poll()
    for client in clients:
        poll.register(client.sock, select.POLLIN)
    assert poll.poll(0) == []


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def test_busy_clients(gateway: Start, settings: Settings, stack: ExitStack, origin: Origin) -> None:
    """Each has a request under way at the origin, and so takes two descriptors."""
    one = gateway(settings, before=FEW)
    clients = uploading(stack, one)
    inside = full(one)
    assert origin.under_way == inside
    all_alive(client for client, _ in clients)
    assert len(told(one)) == 1
    assert get(one.admin, "/ready").status == get(one.admin, "/metrics").status == 200

    processes = [*one.pids(), one.pid, one.observer]
    before, began = [cpu(pid) for pid in processes], time.monotonic()
    time.sleep(1)
    busy = [cpu(pid) - was for pid, was in zip(processes, before, strict=True)]
    assert max(busy) < 0.3 * (time.monotonic() - began), f"it spins: {busy}"

    finish(clients)
    assert origin.requests == MANY
    assert get(one.address()).body == HELLO
    assert len(told(one)) <= MANY // 5, "not a line for each of them"


def test_they_all_come_at_once(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    """The worker finds them all in its queue, in the same moment."""
    one = gateway(settings, before=FEW)
    [worker] = one.pids()
    os.kill(worker, signal.SIGSTOP)
    try:
        clients = uploading(stack, one)
    finally:
        os.kill(worker, signal.SIGCONT)
    full(one)
    all_alive(client for client, _ in clients)
    finish(clients)


def test_half_sent_heads_leave_room_for_more(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    """They need no connection to the origin yet, and then all of them at once."""
    one = gateway(settings.but(more='[listeners.timeouts]\nhead = "60s"\n'), before=FEW)
    address, head = one.address(), request("GET", "/slow?ms=300")
    clients = []
    for _ in range(MANY):
        clients.append(stack.enter_context(Client(address)))
        clients[-1].sock.sendall(head[:-1])
    inside = full(one)
    all_alive(clients)
    for client in clients[:inside]:
        client.sock.sendall(head[-1:])
    assert {client.answer().status for client in clients[:inside]} == {200}
    for client in clients[inside:]:  # those who were served are idle now and make room
        client.sock.sendall(head[-1:])
    assert {client.answer().status for client in clients[inside:]} == {200}


def test_idle_clients_make_room(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    one = gateway(settings, before=FEW)
    idle(stack, one)
    assert accepted(one) < DESCRIPTORS
    assert told(one) == []


def test_idle_clients_of_another_listener_make_room(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    """Descriptors are the process', not the listener's."""
    one = gateway(settings.but(listeners={"web": "127.0.0.1:0", "other": "127.0.0.1:0"}), before=FEW)
    idle(stack, one, "web")
    idle(stack, one, "other")
    idle(stack, one, "web")
    assert told(one) == []


def test_sessions_of_datagrams_leave_room(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    """However many addresses datagrams come from, who connects is let in."""
    silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    silent.bind(("127.0.0.1", 0))
    more = (
        '[[listeners]]\nname = "udp"\nkind = "udp"\nlisten = "127.0.0.1:0"\nupstream = "udp"\n'
        f'[upstreams.udp]\nendpoints = ["127.0.0.1:{silent.getsockname()[1]}"]\n'
    )
    one = gateway(settings.but(more=more), before=FEW)
    host, _, port = one.address("udp").rpartition(":")
    for _ in range(MANY):
        asks = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        asks.sendto(b"?", (host, int(port)))
    eventually(lambda: Metrics(one.admin)("gateway_sessions_total", listener="udp") > DESCRIPTORS)
    assert 20 < one.status()["tunnels"]["udp"] <= DESCRIPTORS / 2
    for _ in range(20):
        assert stack.enter_context(Client(one.address())).get().body == HELLO
    lines = [line for line in one.log().splitlines() if "listener udp: no descriptors for more than" in line]
    assert len(lines) == 1


def test_honest_callers_beside_idle_ones(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    one = gateway(settings, before=FEW)
    with Load(one.address()) as load:
        idle(stack, one)
        load.goes_on()
    load.clean()


def test_a_reload_while_nobody_more_is_let_in(
    gateway: Start, settings: Settings, stack: ExitStack, origin: Origin
) -> None:
    """The new worker has descriptors of its own: it lets in who waits, and those who are in are finished."""
    one = gateway(settings, before=FEW)
    clients = uploading(stack, one, 150)
    inside = full(one)
    assert one.reload().returncode == 0
    eventually(lambda: origin.under_way > inside)
    finish(clients)
    one.settled(1)
    assert origin.requests == 150


def test_a_stop_while_nobody_more_is_let_in(gateway: Start, settings: Settings, stack: ExitStack) -> None:
    one = gateway(settings.but(process={"drain_timeout": "3s"}), before=FEW)
    clients = uploading(stack, one)
    inside = full(one)
    one.signal(signal.SIGTERM)
    finish(clients[:inside])
    assert one.ended() == 0
