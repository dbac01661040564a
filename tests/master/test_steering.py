"""Steering on a real kernel: who gets the connections, and what the order of a group is."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Iterator

import pytest

from gateway.master import steering
from gateway.master.steering import (
    DatagramGroup,
    Group,
    admit,
    attach,
    attach_program,
    by_client,
    detach,
    program,
    queued,
    refuse,
)

BACKLOG = 512  # more than any test queues up
FAMILIES = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


class Net:
    """Sockets of one reuseport group and the clients that connect to it."""

    def __init__(self, stack: contextlib.ExitStack, family: int, host: str) -> None:
        self.stack, self.family, self.host, self.port = stack, family, host, 0
        self.group = Group()
        self.sockets: dict[int, socket.socket] = {}

    def bind(self, slot: int) -> socket.socket:
        sock = self.stack.enter_context(socket.socket(self.family, socket.SOCK_STREAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((self.host, self.port))
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        self.sockets[slot] = sock
        return sock

    def add(self, *slots: int) -> None:
        for slot in slots:
            self.group.add(slot, self.sockets.get(slot) or self.bind(slot), BACKLOG)

    def remove(self, slot: int) -> None:
        self.group.remove(slot)
        self.sockets.pop(slot).close()

    def connect(self, count: int) -> dict[int, int]:
        """How many of `count` new connections each slot's queue got."""
        before = {slot: queued(sock) for slot, sock in self.sockets.items()}
        for _ in range(count):
            self.stack.enter_context(socket.create_connection((self.host, self.port), timeout=5))
        return {slot: queued(sock) - before[slot] for slot, sock in self.sockets.items()}

    def kernel_order(self) -> list[int]:
        """Ask the kernel for each index of the group which socket it means."""
        order = []
        for index in range(len(self.sockets)):
            assert attach(next(iter(self.sockets.values())), [index])
            got = [slot for slot, count in self.connect(4).items() if count == 4]
            order += got
        return order


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    with contextlib.ExitStack() as stack:
        yield Net(stack, *request.param)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_slot_steered_away_from_gets_nothing(net: Net, count: int) -> None:
    net.add(*range(count))
    for spared in range(count):
        assert net.group.steer(set(range(count)) - {spared})
        got = net.connect(200)
        assert got[spared] == 0
        assert sum(got.values()) == 200
        assert all(number for slot, number in got.items() if slot != spared)


def test_all_get_some_again_once_nobody_is_spared(net: Net) -> None:
    net.add(0, 1, 2)
    net.group.steer({1})
    assert net.connect(50) == {0: 0, 1: 50, 2: 0}
    assert net.group.steer({0, 1, 2})
    assert net.group.wanted is None
    assert all(net.connect(200).values())


def test_members_are_in_the_order_in_which_they_began_to_listen(net: Net) -> None:
    for slot in (0, 1, 2, 3):
        net.bind(slot)
    net.add(2, 0, 3, 1)
    assert net.group.slots == net.kernel_order() == [2, 0, 3, 1]


def test_the_last_member_takes_the_place_of_one_that_leaves(net: Net) -> None:
    net.add(0, 1, 2, 3)
    net.remove(1)
    assert net.group.slots == net.kernel_order() == [0, 3, 2]
    net.add(1)
    assert net.group.slots == net.kernel_order() == [0, 3, 2, 1]
    net.remove(0)
    assert net.group.slots == net.kernel_order() == [1, 3, 2]
    net.remove(2)
    assert net.group.slots == net.kernel_order() == [1, 3]


def one_comes_or_goes(net: Net | Datagrams, walk: random.Random) -> None:
    inside = net.group.slots
    if len(inside) > 1 and walk.random() < 0.5:
        net.remove(walk.choice(inside))
    elif len(inside) < 6:
        net.add(walk.choice([slot for slot in range(6) if slot not in inside]))


def test_any_walk_of_adding_and_removing_keeps_the_order_of_the_kernel(net: Net) -> None:
    walk = random.Random(20)
    net.add(0)
    for _ in range(25):
        one_comes_or_goes(net, walk)
        assert net.group.slots == net.kernel_order()


def test_a_copy_in_another_hand_does_not_keep_a_member_in_the_group(net: Net) -> None:
    net.add(0, 1, 2)
    with net.sockets[0].dup():
        net.remove(0)
        assert net.group.slots == net.kernel_order() == [2, 1]


def test_removal_from_the_middle_keeps_the_steering_right(net: Net) -> None:
    net.add(0, 1, 2, 3)
    net.group.steer({0, 3})  # 3 is the last and moves to the place of 1
    net.remove(1)
    got = net.connect(200)
    assert got[2] == 0
    assert got[0] and got[3]


def test_not_even_between_two_programs_does_a_spared_slot_get_anything(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.add(0, 1, 2, 3)
    net.group.steer({0, 3})
    between: dict[int, int] = {}
    shutdown = socket.socket.shutdown

    def shutdown_and_look(sock: socket.socket, how: int) -> None:
        shutdown(sock, how)
        between.update(net.connect(50))

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "shutdown", shutdown_and_look)
        net.remove(1)
    assert between == {0: 50, 1: 0, 2: 0, 3: 0}


def test_the_last_one_spared_takes_the_program_along_when_it_leaves(net: Net) -> None:
    net.add(0, 1, 2)
    net.group.steer({0, 1})
    net.remove(2)
    assert net.group.wanted is None
    assert not detach(net.sockets[0])  # there is none left
    net.add(2)
    assert all(net.connect(200).values())


def test_a_newcomer_waits_for_the_next_steer(net: Net) -> None:
    net.add(0, 1)
    net.group.steer({0})
    net.add(2)
    assert net.connect(50) == {0: 50, 1: 0, 2: 0}
    net.group.steer({0, 2})
    got = net.connect(200)
    assert got[1] == 0
    assert got[0] and got[2]


def test_the_program_outlives_the_socket_it_was_attached_through(net: Net) -> None:
    net.add(0, 1, 2)
    net.group.steer({1, 2})
    net.remove(0)
    net.add(0)
    net.group.steer({1})
    assert net.connect(50) == {0: 0, 1: 50, 2: 0}


def test_steering_to_nobody_or_to_strangers_leaves_the_choice_to_the_kernel(net: Net) -> None:
    net.add(0, 1)
    net.group.steer({0})
    assert net.group.steer(set())
    assert all(net.connect(200).values())
    assert net.group.steer({7})
    assert net.group.wanted is None


def test_an_empty_group_and_one_of_one_need_no_program(net: Net) -> None:
    assert net.group.steer({0})
    net.add(0)
    assert net.group.steer({0})
    assert not detach(net.sockets[0])
    net.remove(0)
    assert net.group.slots == []
    net.add(0)
    assert net.connect(3) == {0: 3}


def test_steering_twice_to_the_same_asks_the_kernel_once(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    net.add(0, 1, 2)
    assert net.group.steer({0, 1})
    monkeypatch.setattr(steering, "attach", lambda *_: pytest.fail("attached again"))
    assert net.group.steer([1, 0])


def test_an_adopted_group_goes_on_where_the_old_one_was(net: Net) -> None:
    net.add(0, 1, 2)
    net.remove(0)
    net.group.steer({1})
    net.group = Group.adopt([(slot, net.sockets[slot]) for slot in net.group.slots], net.group.wanted)
    assert net.connect(50) == {1: 50, 2: 0}
    assert net.group.steer({2})
    assert net.connect(50) == {1: 0, 2: 50}
    assert net.group.steer({1, 2})
    assert all(net.connect(200).values())


def test_the_kernel_hashes_over_all_when_the_index_is_past_the_end(net: Net) -> None:
    net.add(0, 1)
    assert attach(net.sockets[0], [5])
    assert all(net.connect(200).values())


def test_a_refusal_is_an_answer_and_not_an_exception() -> None:
    with socket.socket() as plain:
        assert not attach(plain, [0])  # no SO_REUSEPORT
        assert not detach(plain)


def test_the_queue_shrinks_as_connections_are_accepted(net: Net) -> None:
    net.add(0)
    assert queued(net.sockets[0]) == 0
    net.connect(3)
    assert queued(net.sockets[0]) == 3
    net.sockets[0].accept()[0].close()
    assert queued(net.sockets[0]) == 2


def test_the_queue_of_a_unix_socket_is_unknown() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert queued(sock) == 0


@pytest.mark.parametrize(
    "picks",
    [[0], [5], [0, 1, 2, 3], [1, 2, 3], [0, 2], [0, 1, 3], [3, 1], [*range(128)], [*range(0, 128, 2)], [127, 3, 4]],
    ids=str,
)
def test_a_program_returns_each_pick_and_nothing_else(picks: list[int]) -> None:
    code = program(picks)
    assert {run(code, word) for word in range(1000)} == set(picks)
    counts = [sum(run(code, word) == pick for word in range(len(picks) * 10)) for pick in picks]
    assert counts == [10] * len(picks)


def test_the_kernel_takes_the_longest_program(net: Net) -> None:
    net.add(0)
    assert attach(net.sockets[0], list(range(0, 256, 2)))  # 128 slots, all gaps


def test_a_socket_that_refuses_lets_nobody_new_in_and_loses_nobody(net: Net) -> None:
    net.add(0, 1)
    net.connect(6)
    inside = net.stack.enter_context(socket.create_connection((net.host, net.port), timeout=5))
    for sock in net.sockets.values():
        assert refuse(sock)
    with pytest.raises(TimeoutError):
        socket.create_connection((net.host, net.port), timeout=0.2)
    accepted = [net.stack.enter_context(sock.accept()[0]) for sock in net.sockets.values() for _ in range(queued(sock))]
    assert len(accepted) == 7
    inside.sendall(b"still here")
    found = [sock for sock in accepted if sock.getpeername() == inside.getsockname()]
    found[0].settimeout(5)
    assert found[0].recv(16) == b"still here"
    for sock in net.sockets.values():
        admit(sock)
        admit(sock)
    assert sum(net.connect(4).values()) == 4


def test_a_unix_socket_has_no_packets_to_refuse() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        admit(sock)


@pytest.mark.parametrize("picks", [[], [-1, 2]], ids=str)
def test_a_program_needs_something_to_pick(picks: list[int]) -> None:
    with pytest.raises(ValueError, match="no socket to pick"):
        program(picks)


def run(code: bytes, word: int) -> int:
    """Classic BPF, as much of it as a program for steering has; `word` is what the kernel's random word would be."""
    value, at, instructions = 0, 0, list(struct.iter_unpack("=HBBI", code))
    while True:
        operation, true, false, operand = instructions[at]
        at += 1
        match operation:
            case 0x20:
                assert operand == 0xFFFFF038
                value = word
            case 0x94:
                value %= operand
            case 0x35:
                at += true if value >= operand else false
            case 0x04:
                value += operand
            case 0x16:
                return value
            case _:
                pytest.fail(f"unknown instruction {operation:#x}")


# Datagrams.


class Datagrams:
    """The sockets of a UDP address and clients that send to it."""

    def __init__(self, stack: contextlib.ExitStack, family: int, host: str, clients: int = 120) -> None:
        self.stack, self.family, self.host, self.port = stack, family, host, 0
        self.group = DatagramGroup()
        self.sockets: dict[int, socket.socket] = {}
        self.clients = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(clients)]

    def add(self, *slots: int) -> None:
        for slot in slots:
            sock = self.stack.enter_context(socket.socket(self.family, socket.SOCK_DGRAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((self.host, self.port))
            sock.setblocking(False)
            self.port = sock.getsockname()[1]
            self.sockets[slot] = sock
            self.group.add(slot, sock)

    def remove(self, slot: int) -> None:
        self.group.remove(slot)
        self.sockets.pop(slot).close()

    def sent(self) -> dict[int, int]:
        """Each client sends one: which slot has it, by the client's number. Nothing is lost, nothing comes twice."""
        for number, client in enumerate(self.clients):
            client.sendto(b"%d" % number, (self.host, self.port))
        found: dict[int, int] = {}
        for slot, sock in self.sockets.items():
            while True:
                try:
                    number = int(sock.recv(10))
                except BlockingIOError:
                    break
                assert number not in found
                found[number] = slot
        assert len(found) == len(self.clients)
        return found


@pytest.fixture(params=FAMILIES, ids=["IPv4", "IPv6"])
def datagrams(request: pytest.FixtureRequest) -> Iterator[Datagrams]:
    with contextlib.ExitStack() as stack:
        yield Datagrams(stack, *request.param)


def test_a_client_has_one_slot_and_each_slot_has_clients(datagrams: Datagrams) -> None:
    datagrams.add(0, 1, 2)
    assert datagrams.group.steer({0, 1, 2})
    first = datagrams.sent()
    assert first == datagrams.sent()
    assert all(list(first.values()).count(slot) > 20 for slot in range(3))


def test_the_clients_of_a_slot_that_reads_stay_there_whoever_else_does(datagrams: Datagrams) -> None:
    datagrams.add(0, 1, 2)
    datagrams.group.steer({0, 1, 2})
    usual = datagrams.sent()
    for gone in range(3):
        left = {0, 1, 2} - {gone}
        datagrams.group.steer(left)
        now = datagrams.sent()
        assert set(now.values()) == left
        assert all(now[client] == slot for client, slot in usual.items() if slot != gone)
        datagrams.group.steer({0, 1, 2})
        assert datagrams.sent() == usual


def test_one_that_is_only_bound_gets_nothing(datagrams: Datagrams) -> None:
    datagrams.add(0)
    datagrams.group.steer({0})
    datagrams.add(1, 2)
    assert set(datagrams.sent().values()) == {0}
    datagrams.group.steer({0, 2})
    assert set(datagrams.sent().values()) == {0, 2}


def test_while_nobody_reads_all_have_what_will_be_theirs(datagrams: Datagrams) -> None:
    datagrams.add(0, 1)
    datagrams.group.steer({0, 1})
    usual = datagrams.sent()
    datagrams.group.steer(set())
    assert datagrams.sent() == usual


def test_any_walk_of_slots_that_come_and_go_keeps_the_order_of_the_kernel(datagrams: Datagrams) -> None:
    walk = random.Random(21)
    datagrams.add(0)
    for _ in range(40):
        one_comes_or_goes(datagrams, walk)
        inside = datagrams.group.slots
        reading = set(walk.sample(inside, walk.randint(1, len(inside))))
        assert datagrams.group.steer(reading)
        assert set(datagrams.sent().values()) == reading


def test_the_program_of_the_largest_group_is_one_that_the_kernel_takes() -> None:
    longest = max(len(by_client(range(128), reading)) for reading in (range(128), range(127), range(64)))
    assert longest // 8 <= 4096  # BPF_MAXINSNS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        assert attach_program(sock, by_client(range(128), range(127)))
