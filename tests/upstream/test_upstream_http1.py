"""One connection to an origin: how responses are read, what is refused, and when it may be used again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path

import pytest

from gateway.errors import BadResponse, ConnectFailed, ConnectionCut, ConnectTimeout, IdleTimeout, ResponseTimeout
from gateway.outgoing import outgoing_of
from tests.listeners.site import until
from tests.upstream.peer import Origin, Peer, always, closed_port, live, ok
from tests.upstream.rig import GET, Rig, exchange, whole

POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (ok(b"hello"), b"hello"),
        (ok(b""), b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n", b"abcdefg"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-trailer: y\r\n\r\n", b"ab"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ok(b"final"), b"final"),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    ],
    ids=lambda value: repr(value[:50]),
)
@pytest.mark.parametrize("byte_by_byte", [False, True])
@live
async def test_a_response_leaves_the_connection_for_the_next(answer: bytes, body: bytes, byte_by_byte: bool) -> None:
    async def handler(peer: Peer) -> None:
        while True:
            await peer.request()
            for start in range(0, len(answer), 1 if byte_by_byte else len(answer)):
                await peer.send(answer[start : start + (1 if byte_by_byte else len(answer))])
                await asyncio.sleep(0)

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        for served in (1, 2):
            _, taken = await exchange(connection)
            assert taken == body
            assert connection.is_reusable()
            assert connection.served == served
            rig.pool.release(connection)
            assert await rig.connection() is connection
        assert origin.accepted == 1


@live
async def test_a_response_that_nobody_took_makes_its_connection_unusable() -> None:
    """Its client left when all of it had come: the next request must not be given it."""

    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok(b"somebody else's"))

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        await connection.response()
        await connection.arrival()
        assert not connection.is_reusable()
        rig.pool.release(connection)
        assert connection.closed and rig.pool.take(True) is None


@live
async def test_head_with_content_length_and_another_response_after_it() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        await peer.request()
        await peer.send(ok(b"next"))

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        head, body = await exchange(connection, b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", bodyless=True)
        assert head.special[b"content-length"] == b"1000" and body == b""
        assert connection.is_reusable()
        assert (await exchange(connection))[1] == b"next"


@live
async def test_a_body_up_to_the_end_of_the_connection() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await peer.send(b"all of it")

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        assert (await exchange(connection))[1] == b"all of it"
        assert not connection.is_reusable()


@live
async def test_a_body_up_to_a_reset_is_cut() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nnot all")
        await asyncio.wait_for(got.wait(), 10)
        peer.reset()

    got = asyncio.Event()
    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        await connection.response()
        await connection.arrival()
        got.set()
        with pytest.raises(ConnectionCut):
            await whole(connection)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense",
        b"HTTP/1.1 2xx OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: one\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\na: b\n\n",
        b"HTTP/1.1 200 OK\r\na: b\0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 300_000,
    ],
    ids=lambda answer: repr(answer[:60]),
)
@live
async def test_a_malformed_head(answer: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.ends()

    async with Origin(handler) as origin, Rig(origin, response="2s") as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        with pytest.raises(BadResponse) as raised:
            await connection.response()
        assert raised.value.endpoint == origin.address and raised.value.sent and not raised.value.reused
        assert not connection.is_reusable()
        rig.pool.release(connection)
        assert rig.pool.take(True) is None


@live
async def test_a_malformed_body() -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokxx"
    async with Origin(always(answer)) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        await connection.response()
        with pytest.raises(BadResponse):
            await whole(connection)
        assert not connection.is_reusable()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r",
    ],
    ids=lambda answer: repr(answer[-20:]),
)
@live
async def test_a_response_that_is_cut(answer: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        with pytest.raises(ConnectionCut) as raised:
            await connection.response()
            await whole(connection)
        assert raised.value.sent and not raised.value.reused
        assert not connection.is_reusable()


@live
async def test_what_fails_on_a_kept_connection_says_so() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.request()

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        await exchange(connection)
        with pytest.raises(ConnectionCut) as raised:
            await exchange(connection)
        assert raised.value.reused


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (ok(b"ok") + b"x", b"ok"),
        (ok(b"ok") + ok(b"poison"), b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\nx", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1\r\n\r\nx", b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nx", b""),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    ],
    ids=lambda value: repr(value[-30:]),
)
@live
async def test_surplus_or_an_announced_end_rule_out_another_use(answer: bytes, body: bytes) -> None:
    async with Origin(always(answer)) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        assert (await exchange(connection))[1] == body
        assert not connection.is_reusable()
        rig.pool.release(connection)
        assert rig.pool.take(True) is None


@live
async def test_surplus_that_comes_later_rules_out_another_use() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await later.wait()
        await peer.send(ok(b"poison"))
        assert await peer.ends() == b""
        gone.set()

    later, gone = asyncio.Event(), asyncio.Event()
    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        await exchange(connection)
        rig.pool.release(connection)
        later.set()
        await gone.wait()
        assert rig.pool.take(True) is None


@live
async def test_a_request_body_that_is_not_whole_rules_out_another_use() -> None:
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", bodyless=False, more=True)
        await connection.send_body((b"0\r\n\r\n",), more=True)  # whole for the origin, not for us
        await connection.response()
        assert await whole(connection) == b"ok"
        assert not connection.is_reusable()


@live
async def test_a_request_body_in_pieces() -> None:
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        while True:
            seen.append((await peer.request()).body)
            await peer.send(ok())

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        for _ in range(2):
            connection.send(POST % 6, bodyless=False, more=True)
            await connection.send_body((b"ab", b"cd"), more=True)
            await connection.send_body((b"ef",), more=False)
            await connection.response()
            assert await whole(connection) == b"ok"
            assert connection.is_reusable()
        assert seen == [b"abcdef"] * 2


@live
async def test_no_response_in_time() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")  # not what we wait for
        assert await peer.ends() == b""
        gone.set()

    gone = asyncio.Event()
    async with Origin(handler) as origin, Rig(origin, response="200ms") as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        assert (await connection.response()).status == 103
        with pytest.raises(ResponseTimeout) as raised:
            await connection.response()
        assert raised.value.sent
        await gone.wait()


@pytest.mark.parametrize(("within", "told"), [(0.1, "0.1 s"), (10.0, "0.3 s")])
@pytest.mark.parametrize("has_body", [False, True])
@live
async def test_an_exchange_may_have_less_time_than_its_upstream_grants(
    within: float, told: str, has_body: bool
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.ends()

    async with Origin(handler) as origin, Rig(origin, response="300ms") as rig:
        connection = await rig.connection()
        if has_body:
            connection.send(POST % 1, bodyless=False, more=True, within=within)
            await asyncio.sleep(0.5)  # it is not the endpoint that is waited for
            await connection.send_body((b"x",), more=False)
        else:
            connection.send(GET, bodyless=False, more=False, within=within)
        with pytest.raises(ResponseTimeout, match=f"no response within {told}$"):
            await connection.response()


@live
async def test_less_time_is_for_one_exchange_and_interim_heads_do_not_lengthen_it() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.3)
        await peer.send(ok())
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.05)

    async with Origin(handler) as origin, Rig(origin, response="10s") as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False, within=1.0)
        assert (await connection.response()).status == 200
        await whole(connection)
        connection.send(GET, bodyless=False, more=False, within=0.2)
        with pytest.raises(ResponseTimeout, match=r"within 0\.2 s$"):
            while True:
                assert (await connection.response()).status == 102


@live
async def test_white_space_before_a_colon_is_removed() -> None:
    """RFC 9112, section 5.1."""
    answer = b"HTTP/1.1 200 OK\r\nName : value\r\ncontent-length\t: 2\r\n\r\nok"
    async with Origin(always(answer)) as origin, Rig(origin) as rig:
        head, body = await exchange(await rig.connection())
        assert body == b"ok" and b"\r\nName: value" in head.lines


@live
async def test_interim_responses_are_told_one_by_one() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok(b"x")
    async with Origin(always(answer)) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        assert [(await connection.response()).status for _ in range(3)] == [103, 102, 200]
        assert await whole(connection) == b"x" and connection.is_reusable()


@live
async def test_a_flood_of_interim_responses_is_no_response() -> None:
    async with Origin(always(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        with pytest.raises(BadResponse):
            while True:
                await connection.response()
                await asyncio.sleep(0.01)
        assert not connection.is_reusable()


@live
async def test_a_switched_protocol_is_given_away_with_what_came_of_it() -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nfirst bytes"
    async with Origin(always(answer)) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False, upgrade=True)
        assert (await connection.response()).status == 101
        assert not connection.is_reusable()
        end = connection.detach()
        assert end.rest == b"first bytes"
        end.transport.abort()


@live
async def test_a_body_that_stands_still() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        for _ in range(10):
            await peer.send(b"x")
            await asyncio.sleep(0.05)
        await peer.ends()

    async with Origin(handler) as origin, Rig(origin, idle="300ms") as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        await connection.response()
        taken = b""
        with pytest.raises(IdleTimeout):
            while True:
                await connection.arrival()
                taken += connection.take()
        assert taken == b"x" * 10  # it moved for longer than `idle` before it stood still


@live
async def test_who_takes_slowly_is_not_a_body_that_stands_still() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        await waiting.wait()
        for _ in range(20):
            await peer.send(b"12345")
            await asyncio.sleep(0.03)

    waiting = asyncio.Event()
    async with Origin(handler) as origin, Rig(origin, idle="300ms") as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        await connection.response()
        asyncio.get_running_loop().call_soon(waiting.set)
        await connection.arrival()
        await asyncio.sleep(0.5)  # the client behind us takes its time, the origin does not stand still
        assert await whole(connection) == b"12345" * 20


@live
async def test_nobody_takes_so_the_origin_waits() -> None:
    size = 64 << 20
    stuck = asyncio.Event()
    sent = 0

    async def handler(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            peer.writer.write(bytes(1 << 16))
            try:
                async with asyncio.timeout(0.3):
                    await peer.writer.drain()
            except TimeoutError:
                stuck.set()
                await peer.writer.drain()
            sent += 1 << 16

    async with Origin(handler) as origin, Rig(origin, idle="200ms") as rig:
        connection = await rig.connection()
        connection.send(GET, bodyless=False, more=False)
        await connection.response()
        await stuck.wait()
        assert sent < size // 2  # the sockets' buffers, and a little of ours
        taken = 0
        while not connection.over:
            await connection.arrival()
            piece = len(connection.take())
            assert piece <= 2 << 20
            taken += piece
        assert taken == size
        assert connection.is_reusable()


@live
async def test_an_origin_that_takes_nothing_makes_us_wait() -> None:
    release = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.head()
        await release.wait()
        await peer.reader.readexactly(32 << 20)
        await peer.send(ok())

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(POST % (32 << 20), bodyless=False, more=True)
        for sent in range(32):
            sending = asyncio.ensure_future(connection.send_body((bytes(1 << 20),), more=sent < 31))
            done, _ = await asyncio.wait((sending,), timeout=None if release.is_set() else 0.3)
            if not done:
                assert sent < 20
                release.set()
            await sending
        assert release.is_set()
        await connection.response()
        assert await whole(connection) == b"ok"


@live
async def test_an_origin_that_hangs_up_while_we_send() -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async with Origin(handler) as origin, Rig(origin) as rig:
        connection = await rig.connection()
        connection.send(POST % (64 << 20), bodyless=False, more=True)
        for number in range(64):
            await connection.send_body((bytes(1 << 20),), more=number < 63)  # takes it silently
        with pytest.raises(ConnectionCut):
            await connection.response()


# Dialling.


@pytest.mark.parametrize("ended", ["known", "read", "reset", "spoken to"])
@live
async def test_a_connection_that_ended_before_a_request_took_nothing_of_it(ended: str) -> None:
    """Whether the event loop knows or not: the first write tells, and then any request may be made again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with Rig(f"127.0.0.1:{server.getsockname()[1]}", response="10s") as rig:
            connection = await rig.connection()
            origin, _ = server.accept()
            connection.send(GET, bodyless=False, more=False)
            origin.sendall(ok())
            assert (await connection.response()).status == 200
            await whole(connection)
            rig.pool.release(connection)
            taken = rig.pool.take(True)
            assert taken is connection
            if ended == "reset":
                origin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if ended == "spoken to":
                origin.sendall(b"HTTP/1.1 408 Request Timeout\r\n")
            else:
                origin.close()
            if ended == "known":
                await until(lambda: connection.closed)
            elif ended == "read":
                await until(connection._transport.is_closing)
            elif ended == "spoken to":
                await until(lambda: connection._buffer)
            with pytest.raises(ConnectionCut) as raised:
                connection.send(POST % 4 + b"body", bodyless=False, more=False)
            assert (raised.value.sent, raised.value.reused) == (False, True)
            rig.pool.release(connection)
            assert connection.closed and rig.pool.take(True) is None
            origin.close()


@live
async def test_a_request_that_the_kernel_took_counts_as_sent() -> None:
    """Nobody knows what became of it: the origin had ended, or it had read it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with Rig(f"127.0.0.1:{server.getsockname()[1]}") as rig:
            connection = await rig.connection()
            origin, _ = server.accept()
            connection.send(GET, bodyless=False, more=False)
            origin.sendall(ok())
            await connection.response()
            await whole(connection)
            assert origin.recv(1000) == GET
            origin.close()
            connection.send(POST % 4 + b"body", bodyless=False, more=False)
            with pytest.raises(ConnectionCut) as raised:
                await connection.response()
            assert (raised.value.sent, raised.value.reused) == (True, True)


@live
async def test_a_request_may_leave_with_those_of_other_connections() -> None:
    async with Origin(always(ok())) as origin, Rig(origin) as rig:
        connections = [await rig.connection() for _ in range(3)]
        outgoing_of(asyncio.get_running_loop()).steps = 9  # more are to come, as it seems
        for connection in connections:
            connection.send(GET, bodyless=False, more=False, repeatable=True)
            assert connection._unsent == GET
        for connection in connections:
            assert (await connection.response()).status == 200 and await whole(connection) == b"ok"
            assert connection.is_reusable()


@live
async def test_a_request_that_may_not_be_repeated_leaves_at_once() -> None:
    """Its connection was looked at just now, and nothing ends it in between."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with Rig(f"127.0.0.1:{server.getsockname()[1]}") as rig:
            connection = await rig.connection()
            origin, _ = server.accept()
            with origin:
                outgoing_of(asyncio.get_running_loop()).steps = 9
                connection.send(POST % 4 + b"body", bodyless=False, more=False)
                assert origin.recv(1000) == POST % 4 + b"body"


@pytest.mark.parametrize("end", ["ended", "reset", "spoken to", "given up"])
@live
async def test_a_request_that_could_not_leave_was_not_sent(end: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with Rig(f"127.0.0.1:{server.getsockname()[1]}") as rig:
            connection = await rig.connection()
            origin, _ = server.accept()
            with origin:
                outgoing_of(asyncio.get_running_loop()).steps = 9
                connection.send(GET, bodyless=False, more=False, repeatable=True)
                if end == "spoken to":
                    origin.sendall(ok(b"poison"))
                elif end == "given up":
                    connection.give_up(connection._unfit())
                else:
                    if end == "reset":
                        origin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    origin.close()
                with pytest.raises(ConnectionCut) as raised:
                    await connection.response()
                assert not raised.value.sent and connection.closed
                if end in ("spoken to", "given up"):
                    await asyncio.sleep(0)
                    assert origin.recv(1000) == b""


@live
async def test_nobody_listens() -> None:
    async with Rig(f"127.0.0.1:{closed_port()}") as rig:
        with pytest.raises(ConnectFailed) as raised:
            await rig.pool.acquire()
        assert not raised.value.sent
        assert str(raised.value) == f"{rig.endpoint.name}: cannot connect (Connection refused)"
        assert rig.open == 0


@live
async def test_a_name_that_does_not_resolve() -> None:
    async with Rig("no-such-host.invalid:80") as rig:
        with pytest.raises(ConnectFailed):
            await rig.pool.acquire()


@live
async def test_no_connection_in_time() -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # once its queue is full, it lets further clients wait
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        async with Rig(f"127.0.0.1:{full.getsockname()[1]}", connect="200ms") as rig:
            for within, told in ((None, "0.2 s"), (0.05, "0.05 s"), (10.0, "0.2 s")):
                with pytest.raises(ConnectTimeout, match=f"no connection within {told}$") as raised:
                    await rig.pool.acquire(within)
                assert not raised.value.sent


@live
async def test_over_a_unix_socket(tmp_path: Path) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        await peer.request()
        await peer.send(ok(b"unix"))
        writer.close()

    path = tmp_path / "origin.sock"
    server = await asyncio.start_unix_server(connected, path)
    async with Rig(f"unix:{path}") as rig:
        assert (await exchange(await rig.connection()))[1] == b"unix"
    async with Rig(f"unix:{path}.not") as rig:
        with pytest.raises(ConnectFailed):
            await rig.pool.acquire()
    server.close()
