"""From which addresses connections are made, and what happens when this machine has none to make them from."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from time import monotonic
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from gateway.errors import ConnectFailed, DescriptorsExhausted, PortsExhausted, UpstreamError
from gateway.upstream import dial as dialling
from gateway.upstream.dial import Shortage, Sources
from tests.upstream.peer import Origin, Peer, always, live, ok
from tests.upstream.rig import Rig, exchange

FOREIGN, STRANGE = "198.51.100.77", "203.0.113.77"  # for documentation (RFC 5737): hardly a machine has them
_IP_LOCAL_PORT_RANGE = 51  # Linux 6.3: the ports that one socket may get
_LATER = 2 * dialling._PAUSE


@pytest.fixture(autouse=True)
def _nothing_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "_descriptors", Shortage())


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Called, the clock by which shortages end is put on."""
    ahead = [0.0]

    def put_on() -> None:
        ahead[0] += _LATER

    monkeypatch.setattr(dialling, "monotonic", lambda: monotonic() + ahead[0])
    yield put_on


def seen(origin: Origin) -> list[str]:
    return [peer.writer.get_extra_info("peername")[0] for peer in origin.peers]


@live
async def test_sources_take_turns() -> None:
    sources = ("127.0.0.2", "::1", "127.0.0.3", "127.0.0.4")
    async with Origin(always(ok())) as origin, Rig(origin, sources=sources) as rig:
        for _ in range(6):
            assert (await exchange(await rig.pool.acquire()))[1] == b"ok"
        assert Counter(seen(origin)) == {"127.0.0.2": 2, "127.0.0.3": 2, "127.0.0.4": 2}
        assert len(set(seen(origin)[:3])) == 3


@live
async def test_a_name_is_dialled_from_them_too() -> None:
    async with Origin(always(ok())) as origin, Rig(f"localhost:{origin.port}", sources=("127.0.0.2",)) as rig:
        connection = await rig.pool.acquire()
        await exchange(connection)
        assert seen(origin) == ["127.0.0.2"]
        assert connection._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@live
async def test_from_an_address_of_ip_version_6() -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Peer(reader, writer).request()
        writer.write(ok())
        writer.close()

    server = await asyncio.start_server(connected, "::1", 0)
    address = f"[::1]:{server.sockets[0].getsockname()[1]}"
    async with Rig(address, sources=("127.0.0.2", "::1")) as rig:
        assert (await exchange(await rig.pool.acquire()))[1] == b"ok"
    server.close()


@live
async def test_without_a_source_of_its_family_an_endpoint_can_not_be_reached() -> None:
    async with Origin(always(ok())) as origin, Rig(origin, sources=("::1",)) as rig:
        with pytest.raises(ConnectFailed, match="none of the source addresses is of its family"):
            await rig.pool.acquire()


def use(kind: type[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections made from such sockets, and nothing else."""
    monkeypatch.setattr(dialling, "socket", SimpleNamespace(**(vars(socket) | {"socket": kind})))


class Counting(socket.socket):
    """Notes what it is bound to."""

    bound: ClassVar[Counter[str]] = Counter()

    def bind(self, address: Any) -> None:
        Counting.bound[address[0]] += 1
        super().bind(address)


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each address was tried."""
    Counting.bound = Counter()
    use(Counting, monkeypatch)
    return Counting.bound


def test_a_source_that_has_nothing_left_is_passed_over(bound: Counter[str], later: Any) -> None:
    @live
    async def test() -> None:
        async with Origin(always(ok())) as origin, Rig(origin, sources=(FOREIGN, "127.0.0.2")) as rig:
            for _ in range(10):
                await exchange(await rig.pool.acquire())
            assert set(seen(origin)) == {"127.0.0.2"}
            assert bound == {FOREIGN: 1, "127.0.0.2": 10}
            later()
            for _ in range(2):
                await exchange(await rig.pool.acquire())
            assert bound == {FOREIGN: 2, "127.0.0.2": 12}

    test()


def test_when_no_source_has_anything_left_nobody_tries_for_a_moment(bound: Counter[str], later: Any) -> None:
    @live
    async def test() -> None:
        async with Origin(always(ok())) as origin, Rig(origin, sources=(FOREIGN, STRANGE)) as rig:
            for _ in range(10):
                with pytest.raises(PortsExhausted) as raised:
                    await rig.pool.acquire()
                assert not raised.value.sent
                assert "cannot connect (Cannot assign requested address: " in str(raised.value)
            assert bound == {FOREIGN: 1, STRANGE: 1}
            later()
            with pytest.raises(PortsExhausted):
                await rig.pool.acquire()
            assert bound == {FOREIGN: 2, STRANGE: 2}
            assert origin.accepted == 0 and rig.open == 0

    test()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.2", 0))
        port: int = sock.getsockname()[1]
        return port


def test_a_port_is_taken_for_one_endpoint_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel chooses it when it knows the endpoint. Here there is but one port to choose."""
    port = 0

    class Narrow(socket.socket):
        def bind(self, address: Any) -> None:
            self.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("I", port << 16 | port))
            super().bind(address)

    with socket.socket() as sock:
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, 0)
        except OSError:
            pytest.skip("this kernel has the same ports for all sockets")
    use(Narrow, monkeypatch)

    @live
    async def test() -> None:
        nonlocal port
        port = free_port()
        sources = ("127.0.0.2",)
        async with (
            Origin(always(ok())) as one,
            Origin(always(ok())) as two,
            Rig(one, sources=sources) as rig,
            Rig(two, sources=sources) as other,
        ):
            try:
                await exchange(await rig.pool.acquire())
            except PortsExhausted:
                return  # another process was given it meanwhile
            await exchange(await other.pool.acquire())
            for origin in (one, two):
                assert origin.peers[0].writer.get_extra_info("peername") == ("127.0.0.2", port)
            with pytest.raises(PortsExhausted):
                await rig.pool.acquire()
            assert (one.accepted, two.accepted) == (1, 1)
            found.append(port)

    found: list[int] = []
    for _ in range(5):
        test()
        if found:
            return
    pytest.fail("of five ports none was free")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL])
def test_what_this_machine_is_short_of_is_not_tried_for_at_once(
    number: int, monkeypatch: pytest.MonkeyPatch, later: Any
) -> None:
    """Descriptors are missing for all endpoints, ports for one."""
    asked: list[int] = []

    async def create_connection(make: Any, host: str, port: int, **more: Any) -> Any:
        asked.append(port)
        raise OSError(number, "there is none")

    loop = SimpleNamespace(create_connection=create_connection)
    kind = PortsExhausted if number == errno.EADDRNOTAVAIL else DescriptorsExhausted

    @live
    async def test() -> None:
        async with Rig("127.0.0.1:1") as rig, Rig("127.0.0.1:2") as other:
            fake = SimpleNamespace(get_running_loop=lambda: loop, timeout=asyncio.timeout)
            monkeypatch.setattr(dialling, "asyncio", fake)
            for one in (rig, rig, other, other, rig):
                with pytest.raises(UpstreamError, match=r"cannot connect \(there is none\)$") as raised:
                    await one.pool.acquire()
                assert type(raised.value) is kind and not raised.value.sent
                assert str(raised.value).startswith(one.endpoint.name)
            assert asked == ([1, 2] if kind is PortsExhausted else [1])
            later()
            with pytest.raises(kind):
                await other.pool.acquire()
            assert asked[-1] == 2 and len(asked) == (3 if kind is PortsExhausted else 2)

    test()


def test_sources_of_no_family() -> None:
    assert not Sources()
    assert Sources(("127.0.0.2",)).of(socket.AF_INET6) == ()
