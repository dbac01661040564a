"""Listening sockets of every kind, on the real kernel and always on port 0."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.values import Address, FdAddress, SystemdAddress, TcpAddress, UnixAddress
from gateway.errors import StartError
from gateway.master import bind
from gateway.master.bind import BindError
from gateway.master.sockets import Listening

# The parallel test runner has a thread, which Python 3.12 warns about; a child here waits for no lock of it.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

BACKLOG = 256
Open = Callable[..., Listening]


@pytest.fixture
def opened() -> Iterator[Open]:
    """`Listening.open` whose result is closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(address: Address, **options: Any) -> Listening:
            listening = Listening.open(address, BACKLOG, **options)
            stack.callback(listening.close)
            return listening

        yield make


@pytest.fixture
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for the path of a unix socket, whatever the test is called."""
    return tmp_path_factory.mktemp("s")


def port_of(listening: Listening) -> int:
    return int(listening.bound.rpartition(":")[2])


def connect(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), timeout=5)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def refused(address: Address, **options: Any) -> str:
    with pytest.raises(BindError) as caught:
        Listening.open(address, BACKLOG, **options)
    assert isinstance(caught.value, StartError)
    assert caught.value.address == address
    assert str(caught.value) == f"cannot listen on {address}: {caught.value.reason}"
    return caught.value.reason


# TCP: one socket per slot


def test_every_slot_has_its_own_socket_on_one_port(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    assert listening.slots == []
    first, second = listening.socket(0), listening.socket(1)
    assert first is listening.socket(0) is not second
    assert first.getsockname() == second.getsockname() == ("127.0.0.1", port_of(listening))
    assert listening.bound == f"127.0.0.1:{port_of(listening)}"
    assert listening.slots == [0, 1]
    assert listening.listening == []


def test_a_slot_takes_connections_only_once_it_listens(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    listening.socket(0)
    with pytest.raises(ConnectionRefusedError):
        connect("127.0.0.1", port_of(listening))
    listening.listen(0)
    listening.listen(0)
    assert listening.listening == [0]
    with connect("127.0.0.1", port_of(listening)):
        assert listening.queued(0) == 1


def test_sockets_do_not_block_and_do_not_survive_exec(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    listening.listen(0)
    for sock in (listening.socket(0), listening.socket(1)):
        assert not sock.getblocking()
        assert not sock.get_inheritable()
    listening.set_inheritable(True)
    assert listening.socket(1).get_inheritable()
    listening.set_inheritable(False)
    assert not listening.socket(1).get_inheritable()


def test_accepted_sockets_have_nodelay_from_the_listening_one(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    listening.listen(0)
    with connect("127.0.0.1", port_of(listening)):
        accepted, _ = listening.socket(0).accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_slot_can_be_emptied_closed_and_used_again(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    for slot in range(3):
        listening.listen(slot)
    assert listening.steer({0, 2})
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect("127.0.0.1", port_of(listening)))
        assert listening.queued(1) == 0
        listening.close_slot(1)
        assert listening.slots == listening.listening == [0, 2]
        assert listening.queued(0) + listening.queued(2) == 100
        listening.listen(1)
        for _ in range(100):
            stack.enter_context(connect("127.0.0.1", port_of(listening)))
        assert listening.queued(1) > 0
        assert sum(listening.queued(slot) for slot in range(3)) == 200


def test_a_slot_ends_although_a_worker_still_holds_a_copy(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    listening.listen(0)
    with listening.socket(0).dup():
        listening.close_slot(0)
        with pytest.raises(ConnectionRefusedError):
            connect("127.0.0.1", port_of(listening))


def test_a_slot_that_never_was_closes_without_ado(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    listening.socket(0)
    listening.close_slot(0)
    listening.close_slot(5)
    assert listening.slots == []


def test_the_backlog_changes_while_the_socket_listens(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    listening.listen(0)
    listening.set_backlog(7)
    limit = listening.socket(0).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)[28]  # tcpi_sacked: the limit
    assert limit == listening.backlog == 7


def test_close_ends_everything(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    listening.listen(0)
    listening.socket(1)
    port = port_of(listening)
    listening.close()
    assert listening.slots == []
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_a_child_closes_the_other_slots_and_nobody_notices(opened: Open) -> None:
    listening = opened(TcpAddress("127.0.0.1", 0))
    other = opened(TcpAddress("127.0.0.1", 0))
    for slot in range(2):
        listening.listen(slot)
        other.listen(slot)
    numbers = [listening.socket(0).fileno(), other.socket(1).fileno()]
    child = os.fork()
    if child == 0:
        closed = 9
        try:
            listening.keep_only(1)
            other.keep_only(None)
            if is_open(listening.socket(1).fileno()):
                closed = sum(not is_open(number) for number in numbers)
        finally:
            os._exit(closed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect("127.0.0.1", port_of(listening)))
        assert listening.queued(0) and listening.queued(1)


def test_a_listening_says_who_it_is(opened: Open, run_dir: Path) -> None:
    tcp, unix = opened(TcpAddress("127.0.0.1", 0)), opened(UnixAddress(str(run_dir / "s")))
    tcp.listen(3)
    assert repr(tcp) == f"<Listening {tcp.bound} slots [3] <Group slots [3] hash>>"
    assert str(run_dir) in repr(unix)


# Addresses


@pytest.mark.parametrize(
    ("host", "reached", "unreached"),
    [
        ("", ["127.0.0.1", "::1"], []),
        ("::", ["127.0.0.1", "::1"], []),
        ("0.0.0.0", ["127.0.0.1"], ["::1"]),
        ("localhost", ["127.0.0.1"], ["::1"]),
        ("::1", ["::1"], ["127.0.0.1"]),
    ],
)
def test_which_families_a_host_takes(opened: Open, host: str, reached: list[str], unreached: list[str]) -> None:
    listening = opened(TcpAddress(host, 0))
    for slot in range(2):
        listening.listen(slot)
    for target in reached:
        connect(target, port_of(listening)).close()
    for target in unreached:
        with pytest.raises(ConnectionRefusedError):
            connect(target, port_of(listening))
    assert listening.bound.startswith("[" if host in ("", "::", "::1") else ("0.0.0.0", "127.0.0.1"))


def test_any_address_means_ipv4_on_a_machine_without_ipv6(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_ipv6(family: int = -1, *rest: int, **options: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr("gateway.master.bind.socket.socket", without_ipv6)
        listening = opened(TcpAddress("", 0))
        assert listening.bound == f"0.0.0.0:{port_of(listening)}"
        listening.listen(0)
        listening.listen(1)
        assert refused(TcpAddress("::1", 0)) == "this machine has no IPv6"
    connect("127.0.0.1", port_of(listening)).close()


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("example.com", "the host must be an IP address, localhost or empty, not a name"),
        ("192.0.2.1", "no interface of this machine has this address"),
        ("2001:db8::1", "no interface of this machine has this address"),
        ("fe80::1%nowhere0", "no such network interface"),
    ],
)
def test_hosts_nobody_can_listen_on(host: str, reason: str) -> None:
    assert refused(TcpAddress(host, 0)) == reason


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_a_group_of_somebody_else_is_not_joined(opened: Open, host: str) -> None:
    theirs = opened(TcpAddress(host, 0))
    theirs.listen(0)
    assert refused(TcpAddress(host, port_of(theirs))) == "address already in use"


def test_connections_of_an_earlier_run_are_in_nobodys_way(opened: Open) -> None:
    earlier = Listening.open(TcpAddress("127.0.0.1", 0), BACKLOG)
    earlier.listen(0)
    port = port_of(earlier)
    client = connect("127.0.0.1", port)
    accepted, _ = earlier.socket(0).accept()
    accepted.close()  # the server closes first, so its side keeps the port in TIME_WAIT
    client.close()
    earlier.close()
    again = opened(TcpAddress("127.0.0.1", port))
    again.listen(0)
    connect("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("number", "port", "reason"),
    [
        (errno.EACCES, 80, "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE or root)"),
        (errno.EPERM, 8080, "permission denied"),
        (errno.EMFILE, 80, "no file descriptor left"),
        (errno.ENOBUFS, 80, "no buffer space available"),
    ],
)
def test_refusals_that_a_test_cannot_provoke_have_words_too(number: int, port: int, reason: str) -> None:
    assert bind.reason(OSError(number, os.strerror(number)), port) == reason


# Unix sockets


def test_a_unix_socket_is_one_for_all_slots(opened: Open, run_dir: Path) -> None:
    path = run_dir / "gateway.sock"
    listening = opened(UnixAddress(str(path)))
    assert listening.socket(0) is listening.socket(1)
    assert listening.bound == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert listening.listening == []
    listening.listen(0)
    listening.listen(1)
    assert listening.slots == listening.listening == [0, 1]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert listening.queued(0) == 0  # it does not tell
    assert listening.steer({1})
    listening.close_slot(0)
    listening.set_backlog(7)
    assert listening.slots == [1]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listening.close()
    assert not path.exists()


def test_a_unix_socket_left_behind_is_replaced(opened: Open, run_dir: Path) -> None:
    path = run_dir / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listening = opened(UnixAddress(str(path)))
    listening.listen(0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_unix_socket_in_use_stays(opened: Open, run_dir: Path) -> None:
    path = run_dir / "live"
    theirs = opened(UnixAddress(str(path)))
    theirs.listen(0)
    assert refused(UnixAddress(str(path))) == "address already in use"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_unix_socket_with_a_full_queue_is_in_use(run_dir: Path) -> None:
    path = run_dir / "full"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        assert refused(UnixAddress(str(path))) == "address already in use"


def test_a_path_that_cannot_be_a_unix_socket(run_dir: Path) -> None:
    (run_dir / "file").write_text("precious")
    assert refused(UnixAddress(str(run_dir / "file"))) == "a file that is not a socket is in the way"
    assert (run_dir / "file").read_text() == "precious"
    assert refused(UnixAddress(str(run_dir / "none" / "s"))) == f"the directory {run_dir / 'none'} does not exist"
    assert refused(UnixAddress(f"/tmp/{'x' * 108}")) == "the path of a unix socket has at most 107 bytes"


def test_a_unix_socket_that_was_replaced_is_not_removed(opened: Open, run_dir: Path) -> None:
    path = run_dir / "s"
    ours = opened(UnixAddress(str(path)))
    path.rename(run_dir / "moved")  # kept, so that the inode number is not free for the next file
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        ours.close()
        assert path.exists()


def test_a_child_may_keep_or_close_a_shared_socket(opened: Open, run_dir: Path) -> None:
    listening = opened(UnixAddress(str(run_dir / "s")))
    listening.listen(0)
    child = os.fork()
    if child == 0:
        right = False
        try:
            listening.keep_only(0)
            kept = listening.socket(0).fileno() > 0
            listening.keep_only(None)
            right = kept and listening.socket(0).fileno() < 0
        finally:
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(run_dir / "s"))


# Sockets that somebody else bound


def test_an_inherited_descriptor_serves_all_slots_and_stays_open(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        listening = opened(FdAddress(theirs.fileno()))
        assert listening.bound == f"127.0.0.1:{theirs.getsockname()[1]}"
        assert listening.socket(0) is listening.socket(1)
        assert not listening.socket(0).get_inheritable()
        listening.set_backlog(7)
        listening.listen(0)
        with connect("127.0.0.1", port_of(listening)):
            assert listening.queued(0) == 1
        listening.close()
        with contextlib.closing(Listening.open(FdAddress(theirs.fileno()), BACKLOG)) as again:
            again.listen(0)
            connect("127.0.0.1", theirs.getsockname()[1]).close()


def test_a_bound_descriptor_begins_to_listen(opened: Open) -> None:
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        listening = opened(FdAddress(theirs.fileno()))
        assert listening.listening == []
        listening.listen(0)
        assert listening.listening == [0]
        connect("127.0.0.1", port_of(listening)).close()


def test_a_systemd_socket_is_found_by_its_name(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        named = {"web": [theirs.fileno()], "twice": [theirs.fileno()] * 2}
        listening = opened(SystemdAddress("web"), inherited=named)
        assert port_of(listening) == theirs.getsockname()[1]
        reason = refused(SystemdAddress("wbe"), inherited=named)
        assert reason == "systemd passed no socket of this name (FileDescriptorName; passed: twice, web)"
        assert "systemd passed 2 sockets of this name" in refused(SystemdAddress("twice"), inherited=named)
        assert "passed: none" in refused(SystemdAddress("web"))


def test_descriptors_that_cannot_listen(run_dir: Path) -> None:
    unsuitable = "is not a bound or listening stream socket"
    with contextlib.ExitStack() as stack:
        datagram = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagram.bind(("127.0.0.1", 0))
        unbound = stack.enter_context(socket.socket())
        here, _there = (stack.enter_context(sock) for sock in socket.socketpair())
        for sock in (datagram, unbound, here):
            assert refused(FdAddress(sock.fileno())) == f"descriptor {sock.fileno()} {unsuitable}"
        file = stack.enter_context((run_dir / "file").open("w"))
        assert refused(FdAddress(file.fileno())) == f"descriptor {file.fileno()} is not a socket"
    assert refused(FdAddress(9_999)) == "descriptor 9999 is not open"


# Handing on


def adopt(listening: Listening) -> Listening:
    """As an upgrade does it, but with copies of the descriptors, since this process keeps the old ones."""
    handed_on = json.loads(json.dumps(listening.fds()))
    handed_on["sockets"] = [[slot, os.dup(fd)] for slot, fd in handed_on["sockets"]]
    return Listening.adopt(handed_on)


def test_a_tcp_address_is_handed_on_with_its_order_and_steering(opened: Open) -> None:
    old = opened(TcpAddress("127.0.0.1", 0))
    for slot in range(4):
        old.listen(slot)
    old.close_slot(0)  # the kernel's order is 3, 1, 2 now
    old.socket(5)
    old.steer({3, 1})
    with contextlib.closing(adopt(old)) as new, contextlib.ExitStack() as stack:
        assert (new.address, new.backlog, new.bound) == (old.address, old.backlog, old.bound)
        assert (new.slots, new.listening) == ([1, 2, 3, 5], [1, 2, 3])
        assert not new.socket(1).get_inheritable()
        assert new.steer({2})
        for _ in range(50):
            stack.enter_context(connect("127.0.0.1", port_of(new)))
        assert [new.queued(slot) for slot in (1, 2, 3)] == [0, 50, 0]
        new.close_slot(3)
        for _ in range(50):
            stack.enter_context(connect("127.0.0.1", port_of(new)))
        assert new.queued(2) == 100
        new.listen(5)
        assert new.listening == [1, 2, 5]


def test_a_socket_nobody_asked_for_yet_is_handed_on(opened: Open) -> None:
    old = opened(TcpAddress("", 0))
    with contextlib.closing(adopt(old)) as new:
        assert new.slots == []
        assert new.bound == old.bound
        new.listen(0)
        new.listen(1)
        connect("127.0.0.1", port_of(new)).close()


def test_a_unix_socket_is_handed_on_with_its_file(run_dir: Path) -> None:
    path = run_dir / "s"
    old = Listening.open(UnixAddress(str(path)), BACKLOG)
    old.listen(0)
    new = adopt(old)
    old.socket(0).close()
    assert new.slots == new.listening == [0]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    new.close()
    assert not path.exists()
    assert (new.slots, new.listening, new.bound) == ([], [], old.bound)


def test_an_inherited_socket_is_handed_on(opened: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        old = opened(SystemdAddress("web"), inherited={"web": [theirs.fileno()]})
        old.listen(2)
        with contextlib.closing(adopt(old)) as new:
            assert new.address == SystemdAddress("web")
            assert new.listening == [2]


# Datagrams


UDP = TcpAddress("127.0.0.1", 0)


def send(listening: Listening, clients: list[socket.socket]) -> None:
    for number, client in enumerate(clients):
        client.sendto(b"%d" % number, ("127.0.0.1", port_of(listening)))


def waiting(listening: Listening, slot: int) -> list[int]:
    """Whose datagrams a slot's socket has; they are read."""
    found: list[int] = []
    while listening.queued(slot):
        found.append(int(listening.socket(slot).recv(10)))
    return found


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(60)]


def test_every_slot_has_its_own_socket_for_datagrams(opened: Open, clients: list[socket.socket]) -> None:
    listening = opened(UDP, datagrams=True)
    assert listening.takes_datagrams and not listening.shared
    first, second = listening.socket(0), listening.socket(1)
    assert first.type is second.type is socket.SOCK_DGRAM
    assert first.getsockname() == second.getsockname() == ("127.0.0.1", port_of(listening))
    assert not first.getblocking() and not first.get_inheritable()
    assert first.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 212_992
    for slot in (0, 1):
        listening.listen(slot)
    listening.set_backlog(7)
    assert listening.steer({0, 1})
    send(listening, clients)
    assert sorted(waiting(listening, 0) + waiting(listening, 1)) == list(range(60))


def test_what_waits_for_a_slot_is_read_by_whoever_has_it_next(opened: Open, clients: list[socket.socket]) -> None:
    listening = opened(UDP, datagrams=True)
    listening.socket(0)
    listening.socket(1)
    listening.steer({0, 1})
    send(listening, clients)
    listening.steer({0})
    send(listening, clients)
    with listening.socket(1).dup() as successor:  # as a worker has it
        assert successor.recv(10)
    in_second = waiting(listening, 1)
    assert 0 < len(in_second) < 59
    listening.close_slot(1)
    assert listening.slots == [0]
    listening.steer({0})
    assert len(waiting(listening, 0)) + len(in_second) + 1 == 120


def test_datagrams_and_connections_share_a_port(opened: Open) -> None:
    streams = opened(UDP)
    address = TcpAddress("127.0.0.1", port_of(streams))
    assert port_of(opened(address, datagrams=True)) == address.port
    assert refused(address, datagrams=True) == "address already in use"


def test_nobody_joins_the_datagrams_of_somebody_else() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        theirs.bind(("127.0.0.1", 0))
        address = TcpAddress("127.0.0.1", theirs.getsockname()[1])
        assert refused(address, datagrams=True) == "address already in use"


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::"])
def test_where_any_address_may_be_asked_each_datagram_says_which(opened: Open, host: str) -> None:
    listening = opened(TcpAddress(host, 0), datagrams=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"?", ("127.0.0.9", port_of(listening)))
        _, told, _, _ = listening.socket(0).recvmsg(10, 64)
        assert socket.inet_aton("127.0.0.9") in told[0][2]


def test_datagrams_go_on_across_an_upgrade(opened: Open, clients: list[socket.socket]) -> None:
    old = opened(UDP, datagrams=True)
    for slot in (0, 1, 2):
        old.socket(slot)
    old.steer({0, 2})
    send(old, clients)
    with contextlib.closing(adopt(old)) as new:
        assert new.takes_datagrams and (new.bound, new.slots, new.key) == (old.bound, old.slots, old.key)
        send(new, clients)
        assert new.queued(1) == 0
        assert len(waiting(new, 0)) + len(waiting(new, 2)) == 120
        new.steer({0, 1, 2})
        send(new, clients)
        assert all(waiting(new, slot) for slot in (0, 1, 2))


def test_an_inherited_socket_for_datagrams_is_shared(opened: Open, clients: list[socket.socket]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.bind(("127.0.0.1", 0))
        listening = opened(FdAddress(theirs.fileno()), datagrams=True)
        assert listening.takes_datagrams and listening.shared
        assert listening.socket(0) is listening.socket(1)
        listening.listen(0)
        assert listening.listening == [0, 1]
        send(listening, clients)
        assert waiting(listening, 1) == list(range(60))
        assert refused(FdAddress(theirs.fileno())).endswith("is not a bound or listening stream socket")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert refused(FdAddress(server.fileno()), datagrams=True).endswith("is not a bound datagram socket")
