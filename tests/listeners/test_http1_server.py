"""One conversation after the other: keep-alive, pipelining, and how bodies are delimited towards client and origin."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.outgoing import Held, Outgoing
from tests.listeners.site import Site, chunked, get, post, until
from tests.upstream.peer import Message, Origin, Peer, always, answering, live, noting, ok

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def echo(request: Message) -> bytes:
    return ok(b"%b %b" % (request.start, request.body))


@live
async def test_requests_follow_each_other_on_one_connection_on_both_sides() -> None:
    async with Origin(answering(echo)) as origin, Site(origin) as site:
        client = await site.client()
        for number in range(5):
            await client.send(get(b"/%d" % number))
            response = await client.response()
            assert response.start == b"HTTP/1.1 200 OK"
            assert response.body == b"GET /%d HTTP/1.1 " % number
            assert b"connection" not in response
            exchange = await site.exchange()
            assert (exchange.status, exchange.reason, exchange.reused) == (200, "", number > 0)
        assert origin.accepted == 1


@live
async def test_pipelined_requests_are_answered_in_order() -> None:
    async with Origin(answering(echo)) as origin, Site(origin) as site:
        requests = [get(b"/0"), post(b"first"), get(b"/2"), post(b""), get(b"/4"), get(b"/5")]
        client = await site.client(b"".join(requests))
        bodies = [(await client.response()).body for _ in requests]
        assert bodies == [
            b"GET /0 HTTP/1.1 ",
            b"POST / HTTP/1.1 first",
            b"GET /2 HTTP/1.1 ",
            b"POST / HTTP/1.1 ",
            b"GET /4 HTTP/1.1 ",
            b"GET /5 HTTP/1.1 ",
        ]


@live
async def test_pipelined_requests_that_come_byte_by_byte() -> None:
    async with Origin(answering(echo)) as origin, Site(origin) as site:
        client = await site.client()
        data = get(b"/a") + post(b"body") + get(b"/c", b"transfer-encoding: chunked\r\n", b"PUT") + chunked(b"x", b"yz")
        for index in range(len(data)):
            await client.send(data[index : index + 1])
            await asyncio.sleep(0)
        assert (await client.response()).body == b"GET /a HTTP/1.1 "
        assert (await client.response()).body == b"POST / HTTP/1.1 body"
        assert (await client.response()).body == b"PUT /c HTTP/1.1 xyz"


@live
async def test_many_pipelined_requests_wait_without_being_lost() -> None:
    async with Origin(answering(echo)) as origin, Site(origin) as site:
        client = await site.client()
        count = 1500  # more than may be kept back here, less than the sockets hold
        requests = b"".join(get(b"/%d" % number, b"x: %070d\r\n" % number) for number in range(count))
        sending = asyncio.ensure_future(client.send(requests))
        for number in range(count):
            assert (await client.response()).body == b"GET /%d HTTP/1.1 " % number
        await sending


_IN_ONE_TURN = [
    ([get(b"/0"), get(b"/1"), get(b"/2")], [200, 200, 200]),
    ([get(b"/0"), get(b"/1", b"connection: close\r\n")], [200, 200]),
    ([get(b"/0"), get(b"/1", method=b"HEAD"), post(b"body")], [200, 200, 200]),
    ([get(b"/0"), b"nonsense\r\n\r\n"], [200, 400]),
    ([get(b"/0"), get(b"/1", b"expect: nonsense\r\n")], [200, 417]),
    ([get(b"/0"), get(b"/large")], [200, 200]),
    ([b"GET / HTTP/1.0\r\n\r\n"], [200]),
]
_EARLY = ([get(b"/0"), get(b"/early", b"content-length: 9\r\n", b"POST")], [200, 200])


@pytest.mark.parametrize(
    ("requests", "statuses", "half_closes"),
    [(*case, False) for case in (*_IN_ONE_TURN, _EARLY)] + [(*case, True) for case in _IN_ONE_TURN],
    ids=lambda value: "-".join(str(one) for one in value) if isinstance(value, list) and value[0] == 200 else "",
)
@live
async def test_answers_that_leave_in_one_turn_of_the_loop(
    monkeypatch: pytest.MonkeyPatch, requests: list[bytes], statuses: list[int], half_closes: bool
) -> None:
    """Those of many clients at once are held for a moment; each gets its own, whole and in order."""
    held: list[Held] = []
    hold = Outgoing.hold

    def noted(outgoing: Outgoing, one: Held) -> None:
        held.append(one)
        hold(outgoing, one)

    async def handler(peer: Peer) -> None:
        while True:
            head = await peer.head()
            if b"content-length" in head and b"/early" not in head.start:
                await peer.reader.readexactly(int(head[b"content-length"]))
            if head.start.startswith(b"HEAD"):
                await peer.send(ok(b""))
            else:
                await peer.send(ok(head.start + bytes(300_000 if b"/large" in head.start else 0)))

    monkeypatch.setattr(Outgoing, "hold", noted)
    async with Origin(handler) as origin, Site(origin) as site:
        clients = [await site.client() for _ in range(6)]
        for client in clients:
            client.writer.write(b"".join(requests))
            if half_closes:
                client.writer.write_eof()
        for client in clients:
            for request, status in zip(requests, statuses, strict=True):
                answer = await client.response(request.partition(b" ")[0])
                while answer.status == 100:  # who has finished sending is asked whether he is there
                    answer = await client.response(request.partition(b" ")[0])
                assert answer.status == status
                if status == 200 and not request.startswith(b"HEAD"):
                    assert answer.body.rstrip(b"\0") == (request.partition(b"\r\n")[0].replace(b"1.0", b"1.1"))
            if half_closes:
                assert await client.ends() == b""
        assert held


@live
async def test_an_answer_that_is_held_when_its_client_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = Outgoing.hold

    def finished(outgoing: Outgoing, one: Held) -> None:
        hold(outgoing, one)
        client.shutdown(socket.SHUT_WR)

    monkeypatch.setattr(Outgoing, "hold", finished)
    async with Site() as site:
        site.entry.outgoing.steps = 9  # more are to come, as it seems
        with socket.create_connection(("127.0.0.1", site.port)) as client:
            client.setblocking(False)
            client.send(get(b"/none"))
            heard = b""
            while part := await asyncio.get_running_loop().sock_recv(client, 1000):
                heard += part
            assert heard.startswith(b"HTTP/1.1 404 ")


@live
async def test_an_answer_before_a_request_that_will_never_be_whole() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await until(lambda: all(connection._half_closed for connection in site.entry.connections))
        site.entry.outgoing.steps = 9
        await peer.send(ok())

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get() + post(b"body")[:-1])
        client.writer.write_eof()
        answers = await client.ends()
        assert answers.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"").startswith(b"HTTP/1.1 200 OK")


@live
async def test_empty_lines_before_a_request_are_forgiven() -> None:
    async with Origin(answering(echo)) as origin, Site(origin) as site:
        client = await site.client(b"\r\n" + get(b"/a"))
        assert (await client.response()).status == 200
        await client.send(b"\r")
        await client.send(b"\n\r\n" + get(b"/b"))
        assert (await client.response()).body == b"GET /b HTTP/1.1 "


@live
async def test_endless_empty_lines_are_not_forgiven() -> None:
    async with Origin(answering(echo)) as origin, Site(origin) as site:
        client = await site.client(b"\r\n" * 20_000)
        heard = await client.ends()
        assert heard == b"" or heard.startswith(b"HTTP/1.1 400 ")


@live
async def test_connection_close_is_honoured_and_told() -> None:
    async with Origin(answering(echo)) as origin, Site(origin) as site:
        client = await site.client(get(b"/", b"connection: close\r\n"))
        response = await client.response()
        assert response[b"connection"] == b"close"
        assert await client.ends() == b""


# Towards the origin.


@live
async def test_a_body_with_content_length_goes_on_with_content_length() -> None:
    seen: list[Message] = []
    async with Origin(noting(seen, lambda request: ok())) as origin, Site(origin) as site:
        client = await site.client(post(b"0123456789")[:-5])
        await until(lambda: origin.accepted)
        await client.send(b"56789")
        assert (await client.response()).status == 200
        assert seen[0].body == b"0123456789"
        assert seen[0][b"content-length"] == b"10"
        exchange = await site.exchange()
        assert exchange.bytes_in == 10


@live
async def test_a_chunked_body_goes_on_chunked_without_its_extensions_and_with_its_trailers() -> None:
    raw = bytearray()

    async def handler(peer: Peer) -> None:
        raw.extend(await peer.reader.readuntil(b"0\r\nx-trailer: passed\r\n\r\n"))
        await peer.send(ok())

    async with Origin(handler) as origin, Site(origin) as site:
        body = b"5;ext=1\r\nhello\r\n7\r\n, world\r\n0\r\nx-trailer: passed\r\nhost: not\r\n\r\n"
        response = await site.ask(get(b"/", b"transfer-encoding: chunked\r\ntrailer: x-trailer\r\n", b"POST") + body)
        assert response.status == 200
        head, _, rest = bytes(raw).partition(b"\r\n\r\n")
        assert b"\r\ntransfer-encoding: chunked" in head
        assert b"\r\ntrailer: x-trailer" in head and b"passed" not in head
        assert b"content-length" not in head
        sizes, content = _unchunked(rest.replace(b"x-trailer: passed\r\n", b""))
        assert content == b"hello, world" and sizes
        assert b"ext" not in rest
        assert (await site.exchange()).bytes_in == 12


def _unchunked(data: bytes) -> tuple[list[int], bytes]:
    sizes: list[int] = []
    body = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            return sizes, body
        sizes.append(size)
        body += data[:size]
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]


@live
async def test_a_request_without_body_goes_on_without_framing() -> None:
    seen: list[Message] = []
    async with Origin(noting(seen, lambda request: ok())) as origin, Site(origin) as site:
        await site.ask(get())
        await site.ask(post(b""))
        assert b"content-length" not in seen[0] and b"transfer-encoding" not in seen[0]
        assert seen[1][b"content-length"] == b"0"


@live
async def test_a_refused_upgrade_has_its_body_read_as_a_body() -> None:
    seen: list[Message] = []
    hidden = get(b"/admin/hidden")
    async with Origin(noting(seen, lambda request: ok())) as origin, Site(origin) as site:
        client = await site.client()
        fields = b"connection: upgrade\r\nupgrade: websocket\r\ncontent-length: %d\r\n" % len(hidden)
        await client.send(get(b"/public", fields, b"POST"))
        await until(lambda: origin.accepted)
        await client.send(hidden)
        assert (await client.response()).status == 200
        await client.send(get(b"/next"))
        assert (await client.response()).status == 200
        assert [request.start for request in seen] == [b"POST /public HTTP/1.1", b"GET /next HTTP/1.1"]
        assert seen[0].body == hidden
        assert b"upgrade" not in seen[0] and b"connection" not in seen[0]


@live
async def test_the_body_is_asked_for_when_the_origin_asks_for_it() -> None:
    asked = asyncio.Event()

    async def handler(peer: Peer) -> None:
        for _ in range(2):
            head = await peer.head()
            assert head[b"expect"] == b"100-continue"
            await asked.wait()
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await peer.send(ok(await peer.reader.readexactly(4)))

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get(b"/", b"expect: 100-continue\r\ncontent-length: 4\r\n", b"POST"))
        await until(lambda: origin.accepted)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readexactly(1), 0.2)
        asked.set()
        assert (await client.head()).start == b"HTTP/1.1 100 Continue"
        await client.send(b"body")
        response = await client.response()
        assert (response.status, response.body) == (200, b"body")
        # Without waiting for it: a client may.
        await client.send(get(b"/", b"expect: 100-Continue\r\ncontent-length: 4\r\n", b"POST") + b"more")
        response = await client.response()
        while response.status == 100:
            response = await client.response()
        assert response.body == b"more"


@live
async def test_an_origin_may_refuse_the_body_before_it_is_sent() -> None:
    async def handler(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno")
        assert await peer.ends() == b""

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get(b"/", b"expect: 100-continue\r\ncontent-length: 4\r\n", b"POST"))
        response = await client.response()
        assert (response.status, response.body, response[b"connection"]) == (413, b"no", b"close")


@live
async def test_of_an_old_origin_we_ask_the_client_ourselves() -> None:
    """It knows no 100 (RFC 9110, section 10.1.1), once we know that it is old."""

    async def handler(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(request.body), request.body))
        assert b"expect" not in request

    async with Origin(handler) as origin, Site(origin) as site:
        assert (await site.ask(get())).status == 200
        client = await site.client(get(b"/", b"expect: 100-continue\r\ncontent-length: 4\r\n", b"POST"))
        assert (await client.head()).start == b"HTTP/1.1 100 Continue"
        await client.send(b"body")
        assert (await client.response()).body == b"body"


@live
async def test_interim_responses_pass_in_order() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: x\r\nX: y\r\n\r\n"
    async with Origin(always(answer + b"HTTP/1.1 102 Processing\r\n\r\n" + ok(b"x"))) as origin, Site(origin) as site:
        client = await site.client(get())
        assert (await client.head()).head == b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
        assert (await client.head()).status == 102
        assert (await client.response()).body == b"x"
        old = await site.client(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
        assert (await old.response()).status == 200


@live
async def test_no_interim_response_for_http_1_0() -> None:
    async with Origin(answering(echo)) as origin, Site(origin) as site:
        client = await site.client(b"POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        await until(lambda: origin.accepted)
        await client.send(b"body")
        assert (await client.head()).status == 200


@live
async def test_another_expectation_is_refused() -> None:
    async with Origin(answering(echo)) as origin, Site(origin) as site:
        response = await site.ask(get(b"/", b"expect: the-unexpected\r\n"))
        assert response.status == 417
        assert origin.accepted == 0


@live
async def test_expect_is_not_answered_by_a_route_that_does_not_read_the_body() -> None:
    async with Site(routes=[{"name": "fixed", "respond": {"status": 403, "body": "no\n"}}]) as site:
        client = await site.client(get(b"/", b"expect: 100-continue\r\ncontent-length: 4\r\n", b"POST"))
        response = await client.response()
        assert (response.status, response.body) == (403, b"no\n")
        assert response[b"connection"] == b"close"  # whether the body comes now can't be known
        assert await client.ends() == b""


# Towards the client.


@live
async def test_a_chunked_response_stays_chunked() -> None:
    body = b"3;x=y\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    async with Origin(always(CHUNKED + body)) as origin, Site(origin) as site:
        client = await site.client()
        for _ in range(2):
            await client.send(get())
            response = await client.response()
            assert response.body == b"abcdefg"
            assert response[b"transfer-encoding"] == b"chunked"
            assert (await site.exchange()).bytes_out == 7
        assert origin.accepted == 1


@live
async def test_trailers_stay_behind_the_body() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: X-Sum, Set-Cookie\r\n\r\n"
    body = b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\nX-More: 2\r\n\r\n"
    async with Origin(always(head + body)) as origin, Site(origin) as site:
        client = await site.client(get(b"/", b"te: trailers\r\nconnection: te\r\n"))
        response = await client.head()
        assert response[b"trailer"] == b"x-sum" and b"x-sum" not in response
        assert await client.reader.readuntil(b"\r\n\r\n") == b"3\r\nabc\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n"
        await client.send(get())
        assert (await client.head()).status == 200
        await client.reader.readuntil(b"\r\n\r\n")
        assert origin.accepted == 1
        old = await site.client(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
        assert (await old.response()).body == b"abc"


@live
async def test_a_response_that_ends_with_its_connection() -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client()
        for _ in range(2):
            await client.send(get())
            response = await client.response()
            assert response.body == b"all of it"
            assert response[b"transfer-encoding"] == b"chunked"  # so our connection goes on
        assert origin.accepted == 2


@live
async def test_a_response_of_http_1_0() -> None:
    async with Origin(always(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok")) as origin, Site(origin) as site:
        client = await site.client()
        for _ in range(2):
            await client.send(get())
            response = await client.response()
            assert response.start.startswith(b"HTTP/1.1 200")
            assert response.body == b"ok"
        assert origin.accepted == 2  # 1.0 without keep-alive: one response for each connection


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n"),
        (b"POST", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ],
)
@live
async def test_responses_without_body_leave_both_connections_whole(method: bytes, head: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        await peer.request()
        await peer.send(ok(b"next"))

    async with Origin(handler) as origin, Site(origin) as site:
        client = await site.client(get(b"/", b"", method))
        response = await client.response(method)
        assert response.start == head.partition(b"\r\n")[0]
        for value in Message(head, b"", ()).all(b"content-length"):
            assert response[b"content-length"] == value
        if b"content-length: 1000" in head:
            assert response[b"content-length"] == b"1000"  # it describes what a GET would get (RFC 9110, section 8.6)
        assert b"connection" not in response
        await client.send(get())
        assert (await client.response()).body == b"next"
        assert origin.accepted == 1


@live
async def test_no_framing_on_a_204() -> None:
    async with Origin(always(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n")) as origin, Site(origin) as site:
        response = await site.ask(get())
        assert b"content-length" not in response and b"transfer-encoding" not in response


@live
async def test_a_client_of_http_1_0_gets_its_body_up_to_the_end_of_the_connection() -> None:
    async with Origin(always(CHUNKED + chunked(b"abc", b"def"))) as origin, Site(origin) as site:
        client = await site.client(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
        response = await client.response()
        assert b"transfer-encoding" not in response
        assert response[b"connection"] == b"close"
        assert response.body == b"abcdef"


@live
async def test_a_client_of_http_1_0_may_keep_its_connection() -> None:
    async with Origin(always(ok())) as origin, Site(origin) as site:
        client = await site.client()
        for _ in range(2):
            await client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            response = await client.response()
            assert response.body == b"ok"
            assert response[b"connection"] == b"keep-alive"
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.response())[b"connection"] == b"close"
        assert await client.ends() == b""


@live
async def test_a_client_of_http_1_0_without_host_reaches_the_origin_with_one() -> None:
    seen: list[Message] = []
    async with Origin(noting(seen, lambda request: ok())) as origin, Site(origin) as site:
        await site.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert seen[0].start == b"GET / HTTP/1.1"
        assert seen[0][b"host"] == origin.address.encode()


@live
async def test_fields_of_the_response_come_as_they_were_sent() -> None:
    fields = (
        b"Set-Cookie: a=1; Path=/\r\nX-Mixed-Case:  spaced  \r\nset-cookie: b=2\r\nServer: origin\r\n"
        b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    )
    dropped = (
        b"connection: x-private\r\nx-private: secret\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n"
        b"upgrade: h2c\r\n"
    )
    async with Origin(always(ok(b"ok", fields + dropped))) as origin, Site(origin) as site:
        response = await site.ask(get())
        assert response.all(b"set-cookie") == [b"a=1; Path=/", b"b=2"]
        assert response[b"x-mixed-case"] == b"spaced"
        assert response[b"server"] == b"origin"
        assert response[b"date"] == b"Sun, 06 Nov 1994 08:49:37 GMT"
        for name in (b"x-private", b"keep-alive", b"proxy-authenticate", b"upgrade"):
            assert name not in response, name


@live
async def test_a_date_is_added_when_the_origin_has_none() -> None:
    async with Origin(always(ok())) as origin, Site(origin) as site:
        assert (await site.ask(get()))[b"date"].endswith(b" GMT")


@live
async def test_interim_responses_of_the_origin_do_not_pass_for_the_answer() -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ok(b"final")
    async with Origin(always(answer)) as origin, Site(origin) as site:
        client = await site.client(get())
        while (response := await client.response()).status < 200:
            pass
        assert response.body == b"final"


@live
async def test_requests_per_connection() -> None:
    async with Origin(always(ok())) as origin, Site(origin, limits={"requests_per_connection": 3}) as site:
        client = await site.client(get() * 4)
        assert [b"connection" in await client.response() for _ in range(3)] == [False, False, True]
        assert await client.ends() == b""


@live
async def test_a_draining_listener_answers_once_more_and_closes() -> None:
    async with Origin(always(ok())) as origin, Site(origin) as site:
        client = await site.client(get())
        assert b"connection" not in await client.response()
        site.entry.draining = True
        await client.send(get())
        assert (await client.response())[b"connection"] == b"close"
        assert await client.ends() == b""


@live
async def test_a_fixed_answer() -> None:
    fixed = {"status": 418, "body": "tea\n", "headers": {"x-pot": "short"}}
    async with Site(routes=[{"name": "fixed", "respond": fixed}]) as site:
        client = await site.client(get())
        response = await client.response()
        assert (response.status, response.body, response[b"x-pot"]) == (418, b"tea\n", b"short")
        await client.send(get(b"/", b"", b"HEAD"))
        head = await client.response(b"HEAD")
        assert head[b"content-length"] == b"4"
        await client.send(post(b"whatever"))
        assert (await client.response()).body == b"tea\n"


@pytest.mark.parametrize("status", [204, 304])
@live
async def test_a_fixed_answer_without_body(status: int) -> None:
    async with Site(routes=[{"name": "fixed", "respond": {"status": status, "body": "not to be seen"}}]) as site:
        client = await site.client(get() + get())
        assert (await client.response()).status == status
        assert (await client.response()).status == status
