"""Sessions of datagrams: who gets what, and how they begin and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.listeners import overflow, udp
from gateway.metrics.plan import DATAGRAMS_IN, DATAGRAMS_OUT
from gateway.proxy_protocol import read
from gateway.scoreboard import Condition, Mark
from gateway.upstream.endpoint import Endpoint as UpstreamEndpoint
from tests.listeners.datagram_site import HOST, Board, Client, DatagramSite, Endpoint
from tests.listeners.site import until
from tests.support.descriptors import descriptors
from tests.upstream.peer import live


@contextmanager
def endpoints(count: int) -> Iterator[list[Endpoint]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Endpoint()) for _ in range(count)]


def nobody() -> str:
    """An address where nobody listens."""
    with Endpoint() as gone:
        return gone.address


@live
async def test_datagrams_go_to_the_endpoint_and_answers_back() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint) as site:
            for data in (b"one", b"", b"x" * 60_000):
                client.send(data, site.address)
                assert await endpoint.answer() == data
                assert (await client.read()) == (data, site.address)
            assert site.open == site.upstream.endpoints[0].in_flight == 1
            site.sessions.abort()
            session = await site.over()
            assert (session.client, session.port) == (HOST, client.port)
            assert (session.upstream, session.endpoint) == ("app", endpoint.address)
            assert (session.bytes_in, session.bytes_out) == (60_003, 60_003)
            assert session.reason == "drain_timeout"
            assert site.counted(DATAGRAMS_IN) == site.counted(DATAGRAMS_OUT) == 3


@live
async def test_each_client_has_a_session_of_its_own() -> None:
    with endpoints(3) as servers, contextlib.ExitStack() as stack:
        async with DatagramSite(*servers) as site:
            clients = [stack.enter_context(Client()) for _ in range(6)]
            for client in clients:
                client.send(b"%d" % client.port, site.address)
            peers = set()
            for server in servers:
                for _ in range(2):
                    asked, peer = await server.read()
                    peers.add(peer)
                    server.send(asked, peer)
            assert len(peers) == 6
            for client in clients:
                assert (await client.read())[0] == b"%d" % client.port
            assert site.open == 6


@live
async def test_an_endpoint_may_send_when_it_likes() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint) as site:
            client.send(b"subscribe", site.address)
            _, peer = await endpoint.read()
            for number in range(200):
                endpoint.send(b"%d" % number, peer)
            assert [(await client.read())[0] for _ in range(200)] == [b"%d" % number for number in range(200)]


@live
async def test_a_stranger_cannot_answer() -> None:
    with Endpoint() as endpoint, Endpoint() as stranger, Client() as client:
        async with DatagramSite(endpoint) as site:
            client.send(b"?", site.address)
            _, peer = await endpoint.read()
            stranger.send(b"false", peer)
            endpoint.send(b"true", peer)
            assert (await client.read())[0] == b"true"


@live
async def test_a_session_is_over_when_nothing_moves() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint, listener={"idle_timeout": "150ms"}) as site:
            client.send(b"?", site.address)
            await endpoint.answer()
            await client.read()
            session = await site.over()
            assert (session.reason, session.bytes_in, session.bytes_out) == ("", 1, 1)
            assert site.open == 0
            client.send(b"?", site.address)
            await endpoint.answer()
            assert (await client.read())[0] == b"?"


@live
async def test_a_session_is_cut_off_while_an_answer_is_owed() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint, listener={"idle_timeout": "150ms"}) as site:
            client.send(b"?", site.address)
            await endpoint.answer()
            await client.read()
            client.send(b"and?", site.address)
            assert (await site.over()).reason == "tunnel_idle_timeout"
        async with DatagramSite(endpoint, listener={"idle_timeout": "150ms", "max_responses": 2}) as site:
            client.send(b"?", site.address)
            assert (await endpoint.read())[0] == b"and?"
            await endpoint.answer()
            await client.read()
            assert (await site.over()).reason == "tunnel_idle_timeout"


@live
async def test_whatever_moves_keeps_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(udp, "monotonic", lambda: now[0])
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint, listener={"idle_timeout": "30s"}) as site:
            client.send(b"?", site.address)
            _, peer = await endpoint.read()
            now[0] += 29
            endpoint.send(b"!", peer)
            await client.read()
            now[0] += 29
            site.sessions.overdue()
            assert site.open == 1
            client.send(b"?", site.address)
            await endpoint.read()
            now[0] += 29
            site.sessions.overdue()
            assert site.open == 1
            now[0] += 1
            site.sessions.overdue()
            assert (site.open, (await site.over()).reason) == (0, "tunnel_idle_timeout")


@live
async def test_a_choice_is_remembered_for_as_long_as_the_session_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(udp, "monotonic", lambda: now[0])
    with endpoints(2) as servers, Client() as client:
        async with DatagramSite(*servers, listener={"idle_timeout": "30s"}) as site:
            told: list[float] = []
            choose = site.shared.ledger.choose

            def told_of(key: bytes, tag: int, ns: int) -> None:
                told.append(now[0])
                choose(key, tag, ns)

            monkeypatch.setattr(site.shared.ledger, "choose", told_of)
            for _ in range(60):
                client.send(b"?", site.address)
                await _who_was_asked(servers, 1)
                now[0] += 1
            assert told == [1000, 1016, 1032, 1048]
            key = next(iter(site.sessions._flows.values())).key
            now[0] = 0.0
            ns = time.monotonic_ns()
            assert site.shared.ledger.chosen(key, ns + int(44e9)) and not site.shared.ledger.chosen(key, ns + int(47e9))


@live
async def test_so_many_answers_to_each_datagram_end_it() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint, listener={"max_responses": 2}) as site:
            client.send(b"1", site.address)
            client.send(b"2", site.address)
            await endpoint.answer(times=2)
            await endpoint.answer()
            for _ in range(3):
                await client.read()
            assert site.ended.empty()
            await asyncio.sleep(0)
            client.send(b"3", site.address)
            await endpoint.answer(times=3)
            session = await site.over()
            assert (session.reason, session.bytes_in, session.bytes_out) == ("", 3, 6)


@live
async def test_the_one_that_is_idle_for_longest_makes_room() -> None:
    with Endpoint() as endpoint, Client() as first, Client() as second, Client() as third:
        async with DatagramSite(endpoint, listener={"max_sessions": 2}) as site:
            for client in (first, second, first):
                client.send(b"?", site.address)
                await endpoint.answer()
                await client.read()
            third.send(b"?", site.address)
            await endpoint.answer()
            await third.read()
            gone = await site.over()
            assert (gone.port, gone.reason) == (second.port, "session_displaced")
            assert site.open == 2


@live
async def test_a_client_has_so_many_sessions_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    with Endpoint() as endpoint, contextlib.ExitStack() as stack, caplog.at_level(logging.WARNING, "gateway"):
        clients = [stack.enter_context(Client()) for _ in range(5)]
        listener = {"max_connections_per_client": 2, "idle_timeout": "200ms"}
        async with DatagramSite(endpoint, listener=listener) as site:
            for client in clients:
                client.send(b"?", site.address)
            await until(lambda: site.refused == 3)
            assert site.open == 2
            assert [record.message for record in caplog.records] == [
                "listener udp: dropped 1 datagrams: 127.0.0.1 has as many sessions as it may have"
            ]
            await site.over()
            await site.over()
            clients[4].send(b"!", site.address)
            while await endpoint.answer() != b"!":
                pass
            assert (await clients[4].read())[0] == b"!"


@live
async def test_who_may_have_no_more_displaces_nobody() -> None:
    with Endpoint() as endpoint, Client() as first, Client() as second:
        async with DatagramSite(endpoint, listener={"max_connections_per_client": 1, "max_sessions": 1}) as site:
            first.send(b"?", site.address)
            await endpoint.answer()
            await first.read()
            second.send(b"?", site.address)
            await until(lambda: site.refused == 1)
            assert site.ended.empty() and site.open == 1


@live
async def test_where_nobody_listens_another_endpoint_is_asked() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(nobody(), endpoint) as site:
            client.send(b"1", site.address)  # to the first in turn, which refuses it
            failed = await site.over()
            assert (failed.reason, failed.endpoint) == ("connection_refused", site.upstream.endpoints[0].name)
            client.send(b"2", site.address)
            assert await endpoint.answer() == b"2"
            assert (await client.read())[0] == b"2"


@live
async def test_an_endpoint_that_refuses_is_ejected() -> None:
    with Endpoint() as endpoint, Client() as client:
        upstream = {
            "endpoints": [nobody(), {"address": endpoint.address, "backup": True}],
            "outlier": {"consecutive_failures": 2},
        }
        async with DatagramSite(upstream=upstream) as site:
            for _ in range(2):
                with Client() as other:
                    other.send(b"?", site.address)
                    assert (await site.over()).reason == "connection_refused"
            assert site.upstream.endpoints[0].health.condition is Condition.EJECTED
            client.send(b"!", site.address)
            assert await endpoint.answer() == b"!"
            assert (await client.read())[0] == b"!"


@live
async def test_silence_is_no_failure_and_no_success() -> None:
    with Endpoint() as endpoint, Client() as client:
        upstream = {"endpoints": [nobody(), endpoint.address], "outlier": {"consecutive_failures": 2}}
        async with DatagramSite(upstream=upstream, listener={"on_reload": "close"}) as site:
            silent = site.upstream.endpoints[1]
            site.upstream.failed(silent, "for a test")
            with Client() as other:
                other.send(b"?", site.address)  # for the first in turn
                await site.over()
            client.send(b"?", site.address)
            await endpoint.read()
            site.sessions.drain(reads_on=False, stopping=False)
            await site.over()
            assert silent.health.record[Mark.FAILURES] == 1


@live
async def test_a_datagram_that_finds_the_endpoint_dead_goes_to_another() -> None:
    """The kernel tells of the one before when the next is sent."""
    with Endpoint() as endpoint, Client() as client:
        dying = Endpoint()
        async with DatagramSite(dying, endpoint) as site:
            client.send(b"1", site.address)
            await dying.answer()
            await client.read()
            dying.sock.close()
            site.sessions._epoll.unregister(next(iter(site.sessions._by_fd)))  # type: ignore[union-attr]
            client.send(b"2", site.address)
            client.send(b"3", site.address)
            assert await endpoint.answer() == b"3"
            assert (await client.read())[0] == b"3"
            assert (await site.over()).reason == "connection_refused"


@live
async def test_without_an_endpoint_datagrams_are_dropped_and_told_of_at_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Endpoint() as endpoint, Client() as client, caplog.at_level(logging.WARNING, "gateway"):
        async with DatagramSite(endpoint, upstream={"max_requests": 1}) as site:
            client.send(b"?", site.address)
            await endpoint.answer()
            with Client() as other:
                for _ in range(10):
                    other.send(b"?", site.address)
                await until(lambda: site.refused == 10)
            assert len(caplog.records) == 1
            assert "as many requests as it may have" in caplog.text


@live
async def test_what_is_too_long_with_its_header_is_dropped() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint, listener={"proxy_protocol": {"send": "v2"}}) as site:
            client.send(b"x" * 65_500, site.address)
            await until(lambda: site.too_long == 1)
            client.send(b"y", site.address)
            assert (await endpoint.read())[0].endswith(b"y")


@contextmanager
def full() -> Iterator[socket.socket]:
    """A listener's socket that nobody has read for too long: of ten datagrams it has some, and not all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, Client() as client:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.bind((HOST, 0))
        sock.setblocking(False)
        for _ in range(10):
            client.send(b"x" * 1000, sock.getsockname())
        yield sock


@live
async def test_what_the_kernel_dropped_is_counted_once() -> None:
    """By the first worker that looks, also when there was none before."""
    with Endpoint() as endpoint, full() as sock, contextlib.closing(Board()) as board:
        async with DatagramSite(endpoint, sock=sock, board=board) as first:
            lost = first.overflowed
            await until(lambda: first.counted(DATAGRAMS_IN) + lost == 10)
            assert 0 < lost < 10 and first.overflowed == lost
            async with DatagramSite(endpoint, sock=sock, board=board) as second:
                with Client() as client:
                    for _ in range(10):
                        client.send(b"x" * 1000, sock.getsockname())
                assert first.overflowed > lost and second.overflowed == 0
                first.sessions.drain(False, False)
                second.sessions.drain(False, False)
                assert second.overflowed == 0
        assert (await first.over()).port and first.ended.empty()


@live
async def test_a_kernel_that_tells_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow, "_SO_MEMINFO", 9999)
    monkeypatch.setattr(overflow, "_SO_COOKIE", 9999)
    with Endpoint() as endpoint, full() as sock:
        async with DatagramSite(endpoint, sock=sock) as site:
            assert site.overflowed == 0


@live
async def test_each_datagram_says_whose_it_is() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint, listener={"proxy_protocol": {"send": "v2"}}) as site:
            for data in (b"1", b"", b"2"):
                client.send(data, site.address)
                asked, peer = await endpoint.read()
                header, end = read(asked) or pytest.fail("no header")
                assert header.source == (HOST, client.port)
                assert header.destination == site.address
                assert asked[end:] == data
                assert asked[13] == 0x12  # UDP over IPv4
                endpoint.send(data, peer)
                assert (await client.read())[0] == data


@live
async def test_the_answer_comes_from_the_address_that_was_asked() -> None:
    with Endpoint() as endpoint, Client() as client, Client(socket.AF_INET6, "::1") as six:
        async with DatagramSite(endpoint, listen=":0", listener={"proxy_protocol": {"send": "v2"}}) as site:
            port = site.address[1]
            for host in ("127.0.0.1", "127.0.0.5"):
                client.send(b"?", (host, port))
                asked, peer = await endpoint.read()
                header, _ = read(asked) or pytest.fail("no header")
                assert (header.source, header.destination) == ((HOST, client.port), (host, port))
                endpoint.send(b"!", peer)
                assert await client.read() == (b"!", (host, port))
            six.send(b"?", ("::1", port))
            asked, peer = await endpoint.read()
            header, _ = read(asked) or pytest.fail("no header")
            assert (header.source, header.destination) == (("::1", six.port), ("::1", port))
            endpoint.send(b"!", peer)
            assert (await six.read())[1][:2] == ("::1", port)
            site.sessions.abort()
            assert [(await site.over()).client for _ in range(3)] == [HOST, HOST, "::1"]


@live
async def test_an_ipv4_wildcard_answers_from_there_too() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint, listen="0.0.0.0:0") as site:
            client.send(b"?", ("127.0.0.9", site.address[1]))
            await endpoint.answer()
            assert await client.read() == (b"?", ("127.0.0.9", site.address[1]))


@live
async def test_another_worker_knows_whose_endpoint_a_client_has() -> None:
    with endpoints(3) as servers, contextlib.ExitStack() as stack:
        upstream = {"balance": "random"}
        async with DatagramSite(*servers, upstream=upstream) as one:
            clients = [stack.enter_context(Client()) for _ in range(20)]
            for client in clients:
                client.send(b"%d" % client.port, one.address)
            had = await _who_was_asked(servers, 20)
            # A worker of the next generation reads the same socket.
            one.sessions.drain(reads_on=False, stopping=False)
            async with DatagramSite(*servers, upstream=upstream, board=one.shared, sock=one.sock) as other:
                for client in clients:
                    client.send(b"%d" % client.port, other.address)
                assert await _who_was_asked(servers, 20) == had
                assert other.open == one.open == 20


async def _who_was_asked(servers: list[Endpoint], times: int) -> dict[int, set[bytes]]:
    """What each of them was sent."""
    asked: dict[int, set[bytes]] = {at: set() for at in range(len(servers))}
    while times:
        await asyncio.sleep(0.001)
        for at, server in enumerate(servers):
            with contextlib.suppress(BlockingIOError):
                asked[at].add(server.sock.recv(100))
                times -= 1
    return asked


@live
async def test_an_endpoint_that_is_down_is_not_kept() -> None:
    with endpoints(2) as servers, Client() as client:
        async with DatagramSite(*servers) as one:
            client.send(b"?", one.address)
            asked = await _who_was_asked(servers, 1)
            first = 0 if asked[0] else 1
            one.sessions.drain(reads_on=False, stopping=False)
            async with DatagramSite(*servers, board=one.shared, sock=one.sock) as other:
                _eject(other, other.upstream.endpoints[first])
                client.send(b"?", other.address)
                assert (await _who_was_asked(servers, 1))[1 - first]


def _eject(site: DatagramSite, endpoint: UpstreamEndpoint) -> None:
    for _ in range(3):
        site.upstream.failed(endpoint, "for a test")
    assert endpoint.health.condition is Condition.EJECTED


@live
async def test_who_drains_goes_on_to_answer_and_reads_nothing_new() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint) as site:
            client.send(b"1", site.address)
            _, peer = await endpoint.read()
            site.sessions.drain(reads_on=False, stopping=False)
            client.send(b"2", site.address)
            endpoint.send(b"late", peer)
            assert (await client.read())[0] == b"late"
            assert site.sessions.busy and site.sessions.received == 1


@live
async def test_a_gateway_that_stops_keeps_only_who_waits_for_an_answer() -> None:
    with Endpoint() as endpoint, Client() as idle, Client() as waiting:
        async with DatagramSite(endpoint) as site:
            idle.send(b"?", site.address)
            await endpoint.answer()
            await idle.read()
            waiting.send(b"?", site.address)
            _, peer = await endpoint.read()
            site.sessions.drain(reads_on=True, stopping=True)
            assert ((await site.over()).port, site.open) == (idle.port, 1)
            endpoint.send(b"!", peer)
            assert (await waiting.read())[0] == b"!"
            assert ((await site.over()).port, site.sessions.busy) == (waiting.port, False)


@live
async def test_sessions_that_are_not_to_outlive_a_reload() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint, listener={"on_reload": "close"}) as site:
            client.send(b"?", site.address)
            await endpoint.read()
            site.sessions.drain(reads_on=False, stopping=False)
            assert (await site.over()).reason == "drain_timeout"
            assert not site.sessions.busy


@live
async def test_an_endpoint_by_name() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(f"localhost:{endpoint.port}") as site:
            client.send(b"?", site.address)
            await endpoint.answer()
            assert (await client.read())[0] == b"?"


@live
async def test_the_address_that_endpoints_are_sent_to_from() -> None:
    with Endpoint() as endpoint, Client() as first, Client() as second:
        async with DatagramSite(endpoint, upstream={"source_addresses": ["127.0.0.7", "127.0.0.8"]}) as site:
            first.send(b"?", site.address)
            second.send(b"?", site.address)
            assert {(await endpoint.read())[1][0] for _ in range(2)} == {"127.0.0.7", "127.0.0.8"}


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, descriptors())) + 1, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in fillers:
            os.close(fd)


@live
async def test_without_descriptors_the_oldest_makes_room() -> None:
    with Endpoint() as endpoint, Client() as first, Client() as second:
        async with DatagramSite(endpoint) as site:
            first.send(b"?", site.address)
            await endpoint.answer()
            await first.read()
            with no_descriptor_left():
                second.send(b"!", site.address)
                assert await endpoint.answer() == b"!"
                assert (await second.read())[0] == b"!"
            gone = await site.over()
            assert (gone.port, gone.reason) == (first.port, "session_displaced")


@live
async def test_sessions_take_half_of_the_room_and_leave_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    with Endpoint() as endpoint, contextlib.ExitStack() as stack, caplog.at_level(logging.WARNING, "gateway"):
        clients = [stack.enter_context(Client()) for _ in range(20)]
        async with DatagramSite(endpoint) as site:
            site.sessions.admission.limit(10, ())
            for client in clients:
                client.send(b"?", site.address)
                await endpoint.answer()
                await client.read()
                assert site.open <= 5
            for client in clients[:15]:
                gone = await site.over()
                assert (gone.port, gone.reason) == (client.port, "session_displaced")
            assert (site.open, site.refused) == (5, 0)
            [line] = [record.message for record in caplog.records]
            assert line.startswith("listener udp: no descriptors for more than 5 sessions; ended 1 ")


@live
async def test_who_has_no_session_displaces_nobody_of_another_listener() -> None:
    with Endpoint() as endpoint, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client()) for _ in range(4)]
        async with DatagramSite(endpoint) as site:
            admission = site.sessions.admission
            admission.share()
            admission.limit(8, ())
            for client in clients:
                client.send(b"?", site.address)
                await endpoint.answer()
            assert site.open == 2 and admission.has_room(1) and not admission.has_room(2)


@live
async def test_an_idle_connection_makes_room_for_the_next_datagram() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint) as site:
            idle = Idle()
            connections = [idle, *(Idle(False) for _ in range(7))]
            site.sessions.admission.limit(16, connections)  # each may need one to an endpoint
            client.send(b"?", site.address)
            await until(lambda: site.refused == 1)
            assert idle.closed
            connections.remove(idle)
            client.send(b"!", site.address)
            assert await endpoint.answer() == b"!"
            assert site.refused == 1


class Idle:
    """What an admission sees of a connection, idle or not."""

    def __init__(self, idle: bool = True) -> None:
        self.idle = idle
        self.idle_since = 1.0
        self.closed = False

    def close_if_idle(self) -> bool:
        self.closed = True
        return True


@live
async def test_without_descriptors_and_sessions_a_datagram_is_dropped() -> None:
    with Endpoint() as endpoint, Client() as client:
        async with DatagramSite(endpoint) as site:
            with no_descriptor_left():
                client.send(b"?", site.address)
                await until(lambda: site.refused == 1)
            client.send(b"!", site.address)
            assert await endpoint.answer() == b"!"
            assert site.upstream.endpoints[0].health.record[Mark.FAILURES] == 0


@live
async def test_a_hundred_clients_come_and_go_and_leave_nothing() -> None:
    with Endpoint() as endpoint:
        async with DatagramSite(endpoint, listener={"max_responses": 1}) as site:
            before: set[str] = set()
            for _ in range(100):
                with Client() as client:
                    client.send(b"?", site.address)
                    await endpoint.answer()
                    await client.read()
                    await site.over()
                before = before or descriptors()
            assert site.open == 0
            assert descriptors() == before
