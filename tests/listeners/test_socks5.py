"""A SOCKS listener, byte for byte: handshakes good and bad, replies, tunnels, datagrams, and what is left of them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway import socks
from gateway.errors import ConnectFailed, ConnectTimeout, DescriptorsExhausted, NameUnknown, UpstreamError
from gateway.listeners import association, socks5
from gateway.listeners.socks5 import Socks5Entry, _code
from gateway.proxy_protocol import Header
from gateway.session import Session
from tests.listeners.site import until
from tests.listeners.streams import Streams
from tests.middleware.hashes import user_line
from tests.support.descriptors import descriptors
from tests.support.dns_server import DnsServer
from tests.support.hellos import hello, server_name
from tests.upstream.peer import Origin, Peer, closed_port, live

LOOPBACK = {"allow": ["127.0.0.0/8", "::1"], "ports": ["1-65535"]}
HELLO = b"\x05\x01\x00"
OK = b"\x05\x00"


def site(**more: Any) -> Streams:
    egress = {**LOOPBACK, **more.pop("egress", {})}
    return Streams(kind="socks5", egress=egress, **more)


def to(host: str, port: int, command: int = socks.CONNECT) -> bytes:
    try:
        raw = ip_address(host)
    except ValueError:
        name = host.encode()
        where = bytes((3, len(name))) + name
    else:
        where = bytes((1 if raw.version == 4 else 4,)) + raw.packed
    return bytes((5, command, 0)) + where + port.to_bytes(2, "big")


def password(user: bytes, secret: bytes) -> bytes:
    return bytes((1, len(user))) + user + bytes((len(secret),)) + secret


async def reply(client: Peer) -> tuple[int, str, int]:
    """Code, address and port of a reply."""
    head = await client.reader.readexactly(4)
    assert head[0] == 5 and head[2] == 0
    raw = await client.reader.readexactly(4 if head[3] == 1 else 16)
    return head[1], str(ip_address(raw)), int.from_bytes(await client.reader.readexactly(2), "big")


async def told(client: Peer) -> bytes:
    """All that a client still hears; then it closes, so that nobody lingers for it."""
    heard = await client.ends()
    client.close()
    return heard


async def echo(peer: Peer) -> None:
    while data := await peer.reader.read(1 << 16):
        await peer.send(data)


@pytest.fixture
def users(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "htpasswd"
    path.write_bytes(user_line(b"ann", b"secret") + user_line("Zoë".encode(), b"\xff\xfe"))
    return {"htpasswd": str(path)}


# Tunnels.


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "::ffff:127.0.0.1"])
@live
async def test_a_tunnel(host: str) -> None:
    async with Origin(echo) as origin, site() as one:
        client = await one.client(HELLO)
        assert await client.reader.readexactly(2) == OK
        await client.send(to(host, origin.port))
        code, address, port = await reply(client)
        assert (code, address) == (socks.SUCCEEDED, "127.0.0.1")
        [far] = origin.peers
        assert far.writer.get_extra_info("peername") == (address, port)
        assert one.cells[one.entry.tunnels_cell] == 1
        await client.send(b"x" * 300_000)
        assert await client.reader.readexactly(300_000) == b"x" * 300_000
        client.writer.write_eof()
        assert await told(client) == b""
        session = await one.session()
        assert (session.reason, session.rule, session.bytes_in, session.bytes_out) == ("", "", 300_000, 300_000)
        assert session.endpoint == origin.address and session.connect_time > 0
        assert session.destination == {"::ffff:127.0.0.1": "[::ffff:7f00:1]"}.get(host, host) + f":{origin.port}"
        assert session.port == client.writer.get_extra_info("sockname")[1]


@live
async def test_the_name_that_a_client_asks_for_in_a_tunnel() -> None:
    asked = hello(server_name(b"a.example"))
    async with Origin(echo) as origin, site() as one:
        for data, sni in ((asked, "a.example"), (b"no hello" + asked, "")):
            client = await one.client(HELLO + to("127.0.0.1", origin.port) + data)
            assert await client.reader.readexactly(2) == OK
            assert (await reply(client))[0] == socks.SUCCEEDED
            assert await client.reader.readexactly(len(data)) == data
            client.reset()
            assert (await one.session()).sni == sni


@live
async def test_a_tunnel_over_ipv6() -> None:
    async with Origin(echo, host="::1") as origin, site(host="::1") as one:
        reader, writer = await asyncio.open_connection("::1", one.port)
        writer.write(HELLO + to("::1", origin.port) + b"hi")
        client = Peer(reader, writer)
        assert await client.reader.readexactly(2) == OK
        assert (await reply(client))[:2] == (0, "::1")
        assert await client.reader.readexactly(2) == b"hi"
        writer.close()
        assert (await one.session()).client == "::1"


@live
async def test_all_at_once_and_a_byte_at_a_time() -> None:
    """What comes behind a request is for the tunnel, also half of it and its end."""
    async with Origin(echo) as origin, site() as one:
        data = HELLO + to("localhost", origin.port) + b"early" * 1000
        client = await one.client(data)
        client.writer.write_eof()
        heard = await told(client)
        assert heard[:4] == OK + b"\x05\x00" and heard.endswith(b"early" * 1000)
        slow = await one.client()
        for byte in data[:40]:
            await slow.send(bytes((byte,)))
            await asyncio.sleep(0)
        slow.writer.write_eof()
        heard = await slow.ends()
        assert heard[:4] == OK + b"\x05\x00" and heard.endswith(data[len(HELLO + to("localhost", 1)) : 40])
        assert [(await one.session()).reason for _ in range(2)] == ["", ""]


@live
async def test_the_origin_speaks_first_and_ends() -> None:
    async def handler(peer: Peer) -> None:
        await peer.send(b"220 hello")

    async with Origin(handler) as origin, site() as one:
        client = await one.client(HELLO + to("127.0.0.1", origin.port))
        assert (await told(client))[12:] == b"220 hello"
        client.close()
        assert (await one.session()).bytes_out == 9


@live
async def test_a_reset_stays_a_reset() -> None:
    async def handler(peer: Peer) -> None:
        await peer.reader.readexactly(2)
        peer.reset()

    async with Origin(handler) as origin, site() as one:
        client = await one.client(HELLO + to("127.0.0.1", origin.port) + b"go")
        await client.reader.readexactly(12)
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
        assert (await one.session()).reason == "tunnel_reset"


@live
async def test_who_the_proxy_in_front_has_told_of() -> None:
    async with Origin(echo) as origin, site(told=Header(("192.0.2.7", 1234), None)) as one:
        client = await one.client(HELLO + to("127.0.0.1", origin.port))
        await client.reader.readexactly(12)
        client.close()
        session = await one.session()
        assert (session.client, session.port) == ("192.0.2.7", 1234)


# Who the client is.


@live
async def test_a_user(users: dict[str, str]) -> None:
    async with Origin(echo) as origin, site(auth=users) as one:
        for user, secret in ((b"ann", b"secret"), (b"ann", b"secret")):
            client = await one.client(b"\x05\x02\x00\x02")
            assert await client.reader.readexactly(2) == b"\x05\x02"
            await client.send(password(user, secret))
            assert await client.reader.readexactly(2) == b"\x01\x00"
            await client.send(to("127.0.0.1", origin.port))
            assert (await reply(client))[0] == 0
            client.close()
            assert (await one.session()).user == "ann"
        client = await one.client(b"\x05\x01\x02" + password(b"ann", b"secret") + to("127.0.0.1", origin.port) + b"!")
        assert (await client.reader.readexactly(15))[-1:] == b"!"
        client.close()
        assert (await one.session()).user == "ann"


@pytest.mark.parametrize(
    ("user", "secret"),
    [
        (b"ann", b"Secret"),
        (b"ann", b""),
        (b"ann", b"secret\0"),
        (b"bob", b"secret"),
        (b"", b""),
        (b"", b"secret"),
        (b"\xff\xfe", b"secret"),
        ("Zoë".encode(), b"\xff"),
        (b"ann\0", b"secret"),
        (b"a" * 255, b"b" * 255),
    ],
)
@live
async def test_a_wrong_password(user: bytes, secret: bytes, users: dict[str, str]) -> None:
    async with site(auth=users) as one:
        client = await one.client(b"\x05\x01\x02" + password(user, secret) + to("127.0.0.1", 1))
        assert await told(client) == b"\x05\x02\x01\x01"
        session = await one.session()
        assert (session.reason, session.user, session.destination) == ("credentials_wrong", "", "")


@pytest.mark.parametrize(("address", "is_served"), [("192.0.2.7", True), ("198.51.100.7", False), (None, False)])
@live
async def test_only_the_clients_that_are_listed(address: str | None, is_served: bool) -> None:
    """Judged by what a PROXY header says, where there was one; others are closed and hear nothing."""
    header = Header((address, 1234), None) if address else None
    async with Origin(echo) as origin, site(told=header, clients=["192.0.2.0/24"]) as one:
        client = await one.client(HELLO + to("127.0.0.1", origin.port))
        if is_served:
            assert await client.reader.readexactly(2) == OK
            assert (await reply(client))[0] == socks.SUCCEEDED
            client.close()
        session = await one.session()
        assert (session.reason, session.client) == ("" if is_served else "client_not_allowed", address or "127.0.0.1")
        if not is_served:
            with suppress(ConnectionError):  # what it has sent was not read
                assert await told(client) == b""
            assert origin.accepted == 0


@live
async def test_a_password_is_not_checked_when_too_many_wait(
    users: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(auth=users) as one:
        assert isinstance(one.entry, Socks5Entry)
        monkeypatch.setattr(one.entry.users, "_room", 0)
        client = await one.client(b"\x05\x01\x02" + password(b"ann", b"secret"))
        assert await told(client) == b"\x05\x02\x01\x01"
        assert (await one.session()).reason == "auth_busy"


# Handshakes that are none. What is heard, and why it ended.

BAD: dict[str, tuple[bytes, bytes, str]] = {
    "socks 4": (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"", "socks_version"),
    "socks 4a": (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00localhost\x00", b"", "socks_version"),
    "http": (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"", "socks_version"),
    "http connect": (b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"", "socks_version"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00", b"", "socks_version"),
    "ssh": (b"SSH-2.0-x\r\n", b"", "socks_version"),
    "zeros": (bytes(100), b"", "socks_version"),
    "version 6": (b"\x06\x01\x00", b"", "socks_version"),
    "a proxy header": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", b"", "socks_version"),
    "no methods": (b"\x05\x00", b"\x05\xff", "socks_method"),
    "only gssapi": (b"\x05\x01\x01", b"\x05\xff", "socks_method"),
    "only a password": (b"\x05\x01\x02", b"\x05\xff", "socks_method"),
    "254 methods of our own": (b"\x05\x7f" + bytes(range(128, 255)), b"\x05\xff", "socks_method"),
    "no method fits, and more": (b"\x05\x01\x80" + to("127.0.0.1", 1) * 100, b"\x05\xff", "socks_method"),
    "half a greeting": (b"\x05", b"", "client_gone"),
    "methods missing": (b"\x05\x05\x00", b"", "client_gone"),
    "nothing": (b"", b"", "client_gone"),
    "no request": (HELLO, OK, "client_gone"),
    "half a request": (HELLO + b"\x05\x01", OK, "client_gone"),
    "half an address": (HELLO + to("127.0.0.1", 1)[:6], OK, "client_gone"),
    "half a port": (HELLO + to("127.0.0.1", 1)[:-1], OK, "client_gone"),
    "half a name": (HELLO + to("localhost", 1)[:9], OK, "client_gone"),
    "request of version 4": (HELLO + b"\x04\x01\x00\x01", OK + socks.reply(1), "socks_malformed"),
    "request of version 0": (HELLO + b"\x00", OK + socks.reply(1), "socks_malformed"),
    "http for a request": (HELLO + b"GET / HTTP/1.1\r\n\r\n", OK + socks.reply(1), "socks_malformed"),
    "reserved byte": (HELLO + b"\x05\x01\x01\x01\x7f\0\0\1\0\1", OK + socks.reply(1), "socks_malformed"),
    "empty name": (HELLO + b"\x05\x01\x00\x03\x00\x00\x50", OK + socks.reply(1), "socks_malformed"),
    "address type 0": (HELLO + b"\x05\x01\x00\x00\x00\x50", OK + socks.reply(8), "socks_address_type"),
    "address type 2": (HELLO + b"\x05\x01\x00\x02\x00\x50", OK + socks.reply(8), "socks_address_type"),
    "address type 255": (HELLO + b"\x05\x01\x00\xff", OK + socks.reply(8), "socks_address_type"),
    "bind": (HELLO + to("127.0.0.1", 1, socks.BIND), OK + socks.reply(7), "socks_command"),
    "udp": (HELLO + to("0.0.0.0", 0, socks.UDP_ASSOCIATE), OK + socks.reply(7), "socks_command"),
    "command 0": (HELLO + to("127.0.0.1", 1, 0), OK + socks.reply(7), "socks_command"),
    "resolve, as Tor has it": (HELLO + to("localhost", 0, 0xF0), OK + socks.reply(7), "socks_command"),
    "command 255": (HELLO + to("127.0.0.1", 1, 255), OK + socks.reply(7), "socks_command"),
    "a port that is denied": (HELLO + to("127.0.0.1", 0), OK + socks.reply(2), "egress_denied"),
    "an address that is denied": (HELLO + to("10.0.0.1", 80), OK + socks.reply(2), "egress_denied"),
    "a name with a NUL": (HELLO + to("127.0.0.1\0.test", 80), OK + socks.reply(4), "dns_error"),
    "a name of dots": (HELLO + to("...", 80), OK + socks.reply(4), "dns_error"),
    "a name that is too long": (HELLO + to("a" * 255, 80), OK + socks.reply(4), "dns_error"),
    "a name that is not UTF-8": (HELLO + b"\5\1\0\3\2\xff\xfe\0\x50", OK + socks.reply(4), "dns_error"),
    "a name with line ends": (HELLO + to("a\r\nb.test", 80), OK + socks.reply(4), "dns_error"),
    "an address in brackets": (HELLO + to("[::1]", 80), OK + socks.reply(4), "dns_error"),
}


@pytest.mark.parametrize("pieces", ["at once", "one by one"])
@pytest.mark.parametrize("case", BAD)
@live
async def test_handshakes_that_are_none(case: str, pieces: str) -> None:
    data, heard, reason = BAD[case]
    async with site() as one:
        client = await one.client()
        if pieces == "at once":
            await client.send(data)
        else:
            for at in range(len(data)):
                if client.writer.transport.is_closing():
                    break  # it need not listen to the end
                client.writer.write(data[at : at + 1])
                await asyncio.sleep(0)
        if not client.writer.transport.is_closing():
            client.writer.write_eof()
        assert await told(client) == heard
        assert (await one.session()).reason == reason


BAD_PASSWORDS: dict[str, tuple[bytes, bytes, str]] = {
    "no password is offered": (HELLO, b"\x05\xff", "socks_method"),
    "version 5": (b"\x05\x01\x02\x05\x01a\x01b", b"\x05\x02", "socks_malformed"),
    "version 0": (b"\x05\x01\x02\x00", b"\x05\x02", "socks_malformed"),
    "a request instead": (b"\x05\x01\x02" + to("127.0.0.1", 1), b"\x05\x02", "socks_malformed"),
    "half": (b"\x05\x01\x02" + password(b"ann", b"secret")[:-1], b"\x05\x02", "client_gone"),
    "a user only": (b"\x05\x01\x02\x01\x03ann", b"\x05\x02", "client_gone"),
}


@pytest.mark.parametrize("case", BAD_PASSWORDS)
@live
async def test_passwords_that_are_none(case: str, users: dict[str, str]) -> None:
    data, heard, reason = BAD_PASSWORDS[case]
    async with site(auth=users) as one:
        client = await one.client(data)
        client.writer.write_eof()
        assert await told(client) == heard
        assert (await one.session()).reason == reason


@pytest.mark.parametrize(
    "sent", [b"", b"\x05", b"\x05\x02\x00", HELLO, HELLO + b"\x05", HELLO + to("localhost", 80)[:-1]]
)
@live
async def test_steps_that_take_too_long(sent: bytes) -> None:
    async with site(handshake_timeout="100ms") as one:
        client = await one.client(sent)
        assert await told(client) == (OK if sent[:3] == HELLO else b"")
        assert (await one.session()).reason == "handshake_timeout"


@live
async def test_each_step_has_its_own_time(users: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is armed, step by step: a client that is slow in one can't use up the time of another."""
    armed: list[float] = []
    async with Origin(echo) as origin, site(auth=users, handshake_timeout="40s") as one:
        arm = one.entry.wheel.arm

        def noted(timed: Any, at: float) -> None:
            armed.append(at)
            arm(timed, at)

        monkeypatch.setattr(one.entry.wheel, "arm", noted)
        client = await one.client(b"\x05\x01\x02")
        await client.reader.readexactly(2)
        await client.send(password(b"ann", b"secret"))
        await client.reader.readexactly(2)
        assert len(armed) == 3 and armed == sorted(set(armed))
        await client.send(to("127.0.0.1", origin.port))
        await client.reader.readexactly(10)
        [connection] = one.entry.connections
        assert connection.deadline == 0
        client.close()
        await one.session()


# Replies.


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectFailed("", "", errno=errno.ECONNREFUSED), 5),
        (ConnectFailed("", "", errno=errno.ENETUNREACH), 3),
        (ConnectFailed("", "", errno=errno.EHOSTUNREACH), 4),
        (ConnectFailed("", "", errno=errno.ETIMEDOUT), 6),
        (ConnectFailed("", "", errno=errno.EPERM), 1),
        (ConnectFailed("", ""), 1),
        (ConnectTimeout("", ""), 6),
        (NameUnknown("", ""), 4),
        (DescriptorsExhausted("", ""), 1),
    ],
)
def test_what_is_replied(error: UpstreamError, code: int) -> None:
    assert _code(error) == code


@live
async def test_nobody_is_there() -> None:
    async with site() as one:
        client = await one.client(HELLO + to("127.0.0.1", port := closed_port()))
        assert await told(client) == OK + socks.reply(socks.REFUSED)
        session = await one.session()
        assert (session.reason, session.destination) == ("connection_refused", f"127.0.0.1:{port}")


@live
async def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            async with site(connect_timeout="100ms") as one:
                client = await one.client(HELLO + to("127.0.0.1", port))
                assert await told(client) == OK + socks.reply(socks.EXPIRED)
                assert (await one.session()).reason == "connection_timeout"


@live
async def test_a_name_that_is_not_looked_up_in_time() -> None:
    with DnsServer() as server:
        server.says["slow.test"] = ""
        async with site(connect_timeout="100ms", egress={"resolver": server.address}) as one:
            client = await one.client(HELLO + to("slow.test", 80))
            assert await told(client) == OK + socks.reply(socks.EXPIRED)
            assert (await one.session()).reason == "connection_timeout"


@live
async def test_one_client_has_so_many_names_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners.resolver._OF_CLIENT", 1)
    with DnsServer() as server:
        server.says["slow.test"] = ""
        async with site(egress={"resolver": server.address}) as one:
            first = await one.client(HELLO + to("slow.test", 80))
            await until(lambda: server.asked["slow.test", "A"])
            second = await one.client(HELLO + to("other.test", 80))
            assert await told(second) == OK + socks.reply(socks.HOST_UNREACHABLE)
            assert (await one.session()).reason == "dns_error"
            first.reset()
            assert (await one.session()).reason == "client_gone"
            assert not server.asked["other.test", "A"]


@pytest.mark.parametrize(
    ("host", "egress", "rule"),
    [
        ("169.254.169.254", {}, "not in allow"),
        ("127.0.0.1", {"deny": ["127.0.0.0/8"]}, "deny 127.0.0.0/8"),
        ("127.0.0.1", {"allow": []}, "loopback"),
        ("0x7f.1", {"allow": []}, "loopback"),
        ("localhost", {"allow": []}, "loopback"),
        ("127.0.0.1", {"ports": ["443"]}, "port 80"),
    ],
)
@live
async def test_what_is_denied_is_told_with_its_rule(host: str, egress: dict[str, Any], rule: str) -> None:
    async with site(egress=egress) as one:
        client = await one.client(HELLO + to(host, 80))
        assert await told(client) == OK + socks.reply(socks.NOT_ALLOWED)
        session = await one.session()
        assert (session.reason, session.rule, session.endpoint) == ("egress_denied", rule, "")
        family = rule.partition(" ")[0] if rule.startswith(("deny", "port")) else rule
        assert one.cells[one.plan.block("denial", "lan", family)] == 1


@live
async def test_its_own_listeners_are_no_target() -> None:
    async with Origin(echo) as origin, site(own=(f"[::]:{origin.port}",)) as one:
        client = await one.client(HELLO + to("127.3.2.1", origin.port))
        assert await told(client) == OK + socks.reply(socks.NOT_ALLOWED)
        assert (await one.session()).rule == "own listener"
        assert not origin.accepted


# Bounds.


@live
async def test_a_client_has_so_many_tunnels() -> None:
    async with Origin(echo) as origin, site(egress={"max_tunnels_per_client": 2}) as one:
        for _ in range(2):
            held = [await one.client(HELLO + to("127.0.0.1", origin.port)) for _ in range(2)]
            for client in held:
                await client.reader.readexactly(12)
            client = await one.client(HELLO + to("127.0.0.1", origin.port))
            assert await told(client) == OK + socks.reply(socks.NOT_ALLOWED)
            session = await one.session()
            assert (session.reason, session.rule) == ("tunnel_limit", "max_tunnels_per_client")
            for client in held:
                client.close()
                assert (await one.session()).reason == ""


@live
async def test_a_client_has_so_many_connections() -> None:
    async with site(max_connections_per_client=1) as one:
        first = await one.client(HELLO)
        assert await first.reader.readexactly(2) == OK
        second = await one.client(HELLO)
        assert await told(second) == b""
        assert (await one.session()).reason == "connection_limit_reached"
        first.close()
        assert (await one.session()).reason == "client_gone"


@live
async def test_the_one_that_has_said_nothing_makes_room() -> None:
    async with site(max_connections=2) as one:
        first = await one.client(HELLO)
        assert await first.reader.readexactly(2) == OK
        idle = await one.client()
        await until(lambda: len(one.entry.connections) == 2)
        third = await one.client(HELLO)
        assert await third.reader.readexactly(2) == OK
        assert await idle.ends() == b""
        assert (await one.session()).reason == "connection_limit_reached"
        for client in (first, third):
            client.close()
            await one.session()


@live
async def test_one_that_has_said_nothing_is_closed_by_the_drain() -> None:
    async with site() as one:
        idle = await one.client()
        await until(lambda: len(one.entry.connections) == 1)
        one.drain()
        [connection] = one.entry.connections
        assert connection.close_if_idle()
        assert await idle.ends() == b""
        assert (await one.session()).reason == "drain_timeout"


@pytest.mark.parametrize(
    ("bounds", "listener", "reason"),
    [
        ({"max_bytes": "10kB"}, {}, "tunnel_too_large"),
        ({"max_duration": "100ms"}, {}, "tunnel_too_long"),
        ({"bytes_per_client": "10kB"}, {}, "quota_exhausted"),
        ({}, {"idle_timeout": "100ms"}, "tunnel_idle_timeout"),
    ],
)
@live
async def test_the_bounds_of_a_tunnel(bounds: dict[str, str], listener: dict[str, str], reason: str) -> None:
    async with Origin(echo) as origin, site(egress=bounds, **listener) as one:
        client = await one.client(HELLO + to("127.0.0.1", origin.port) + b"x" * 20_000)
        await told(client)
        assert (await one.session()).reason == reason
        if reason == "quota_exhausted":
            client = await one.client(HELLO + to("127.0.0.1", origin.port))
            assert await told(client) == OK + socks.reply(socks.NOT_ALLOWED)
            session = await one.session()
            assert (session.reason, session.rule) == (reason, "bytes_per_client")


# A worker that leaves.


@live
async def test_a_tunnel_lives_on_to_the_end_of_the_drain() -> None:
    async with Origin(echo) as origin, site() as one:
        client = await one.client(HELLO + to("127.0.0.1", origin.port))
        await client.reader.readexactly(12)
        one.drain()
        await client.send(b"still")
        assert await client.reader.readexactly(5) == b"still"
        one.abort()
        with pytest.raises(ConnectionResetError):
            await client.reader.read()
        assert (await one.session()).reason == "drain_timeout"


@live
async def test_a_tunnel_is_closed_at_once_when_that_is_wanted() -> None:
    async with Origin(echo) as origin, site(on_reload="close", udp_associate=True) as one:
        client = await one.client(HELLO + to("127.0.0.1", origin.port))
        await client.reader.readexactly(12)
        other = await one.client(HELLO + to("0.0.0.0", 0, socks.UDP_ASSOCIATE))
        await other.reader.readexactly(12)
        one.drain()
        for _ in range(2):
            assert (await one.session()).reason == "drain_timeout"
        await told(client)
        await other.ends()


@live
async def test_a_client_that_goes_while_it_is_connected() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            async with site(connect_timeout="60s") as one:
                client = await one.client(HELLO + to("127.0.0.1", port))
                await client.reader.readexactly(2)
                await until(lambda: one.cells[one.entry.tunnels_cell])
                client.reset()
                assert (await one.session()).reason == "client_gone"


@live
async def test_nothing_is_left() -> None:
    """Each way to end, in one process: no descriptor, no task, no hold."""
    async with Origin(echo) as origin, site(udp_associate=True, egress={"max_tunnels_per_client": 50}) as one:
        before = descriptors()
        for _ in range(2):
            clients = [await one.client(data) for data, _, _ in BAD.values()]
            clients += [await one.client(HELLO + to("localhost", origin.port) + b"x") for _ in range(5)]
            clients += [await one.client(HELLO + to("0.0.0.0", 0, socks.UDP_ASSOCIATE)) for _ in range(5)]
            for number, client in enumerate(clients):
                if client.writer.transport.is_closing():
                    continue
                if number % 3:
                    client.writer.write_eof()
                else:
                    client.reset()
            for client in clients:
                with suppress(OSError):
                    await told(client)
                client.close()
            for _ in clients:
                await one.session()
        await until(lambda: descriptors() <= before)
        assert asyncio.all_tasks() - {asyncio.current_task()} == set(origin._tasks) & asyncio.all_tasks()


# Datagrams.


class Talker(asyncio.DatagramProtocol):
    """A socket for datagrams: `heard` has what comes. echoes: it answers."""

    def __init__(self, echoes: bool = False) -> None:
        self.heard: asyncio.Queue[tuple[bytes, tuple[Any, ...]]] = asyncio.Queue()
        self._echoes = echoes
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, source: tuple[Any, ...]) -> None:
        self.heard.put_nowait((data, source))
        if self._echoes:
            self.transport.sendto(data or b"(empty)", source)

    @property
    def port(self) -> int:
        return int(self.transport.get_extra_info("sockname")[1])


async def talker(host: str = "127.0.0.1", echoes: bool = False) -> Talker:
    _, one = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Talker(echoes), local_addr=(host, 0))
    return one


class Associated:
    """A client with an association and a socket of its own."""

    def __init__(self, one: Streams) -> None:
        self._one = one

    async def open(self, host: str = "0.0.0.0", port: int = 0, told: str = "127.0.0.1") -> Associated:
        self.peer = await self._one.client(HELLO + to(host, port, socks.UDP_ASSOCIATE))
        assert await self.peer.reader.readexactly(2) == OK
        code, address, self.port = await reply(self.peer)
        assert (code, address) == (0, told) and self.port
        self.talker = await talker()
        return self

    def send(self, head: bytes, data: bytes, by: Talker | None = None) -> None:
        (by or self.talker).transport.sendto(head + data, ("127.0.0.1", self.port))

    async def hear(self) -> tuple[str, int, bytes]:
        data, source = await self.talker.heard.get()
        assert source == ("127.0.0.1", self.port)
        _, host, port, start = socks.read_datagram(data)
        return host, port, data[start:]

    async def close(self) -> Session:
        self.peer.close()
        self.talker.transport.abort()
        return await self._one.session()


def headed(host: str, port: int, fragment: int = 0) -> bytes:
    return bytes((0, 0, fragment)) + to(host, port)[3:]


def with_datagrams(**more: Any) -> Streams:
    return site(udp_associate=True, **more)


@live
async def test_datagrams_and_their_answers() -> None:
    async with with_datagrams() as one:
        server = await talker(echoes=True)
        client = await Associated(one).open()
        for host in ("127.0.0.1", "localhost", "127.1"):
            for data in (b"one", b"", b"x" * 40_000):
                client.send(headed(host, server.port), data)
                assert await client.hear() == ("127.0.0.1", server.port, data or b"(empty)")
        server.transport.abort()
        session = await client.close()
        assert (session.reason, session.bytes_in, session.bytes_out) == ("", 120_009, 120_030)
        assert session.endpoint == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
@live
async def test_the_address_that_clients_are_told_to_send_to(address: str) -> None:
    """Behind a NAT, which the test is by leading to where the socket really is."""
    async with with_datagrams(udp_address=address) as one:
        server = await talker(echoes=True)
        client = await Associated(one).open(told=address)
        client.send(headed("127.0.0.1", server.port), b"here")
        assert await client.hear() == ("127.0.0.1", server.port, b"here")
        server.transport.abort()
        assert (await client.close()).bytes_out == 4


@live
async def test_datagrams_over_ipv6() -> None:
    async with with_datagrams() as one:
        server = await talker("::1", echoes=True)
        client = await Associated(one).open()
        client.send(headed("::1", server.port), b"six")
        assert await client.hear() == ("::1", server.port, b"six")
        server.transport.abort()
        await client.close()


@live
async def test_who_may_use_an_association() -> None:
    """Only the client's address; and its port, once that is known."""
    async with with_datagrams() as one:
        server = await talker()
        client = await Associated(one).open()
        other, elsewhere = await talker(), await talker("127.0.0.2")
        client.send(headed("127.0.0.1", server.port), b"1", elsewhere)
        client.send(headed("127.0.0.1", server.port), b"2")
        client.send(headed("127.0.0.1", server.port), b"3", other)
        client.send(headed("127.0.0.1", server.port), b"4")
        assert [(await server.heard.get())[0] for _ in range(2)] == [b"2", b"4"]
        await client.close()
        named = await Associated(one).open("127.0.0.1", other.port)
        named.send(headed("127.0.0.1", server.port), b"5")
        named.send(headed("127.0.0.1", server.port), b"6", other)
        assert (await server.heard.get())[0] == b"6"
        await named.close()
        for each in (server, other, elsewhere):
            each.transport.abort()


@live
async def test_answers_of_strangers() -> None:
    async with with_datagrams() as one:
        server, stranger = await talker(), await talker()
        client = await Associated(one).open()
        client.send(headed("127.0.0.1", server.port), b"question")
        _, relay = await server.heard.get()
        stranger.transport.sendto(b"mine", relay)
        server.transport.sendto(b"answer", relay)
        assert await client.hear() == ("127.0.0.1", server.port, b"answer")
        assert client.talker.heard.empty()
        for each in (server, stranger):
            each.transport.abort()
        await client.close()


@live
async def test_datagrams_that_go_nowhere() -> None:
    """And those after them go on."""
    with DnsServer() as names:
        names.records["ok.test", "A"] = ["127.0.0.1"]
        async with with_datagrams(egress={"resolver": names.address}) as one:
            server = await talker()
            client = await Associated(one).open()
            good = headed("127.0.0.1", server.port)
            for head in (
                b"",
                b"\0",
                b"\0\0\0",
                good[:-1],
                b"\1" + good[1:],
                b"\0\1" + good[2:],
                headed("127.0.0.1", server.port, 1),
                headed("127.0.0.1", server.port, 0x80),
                b"\0\0\0\2\0\0",
                b"\0\0\0\3\0\0\x50",
                headed("10.0.0.1", 53),
                headed("169.254.169.254", 80),
                headed("nowhere.test", 80),
                headed("127.0.0.1\0", 80),
                headed("127.0.0.1", 0),
            ):
                client.send(head, b"")
            client.send(headed("ok.test", server.port), b"through")
            assert (await server.heard.get())[0] == b"through"
            assert server.heard.empty()
            server_port = server.port
            server.transport.abort()
            session = await client.close()
            assert (session.reason, session.rule, session.bytes_in) == ("", "", 7)
            assert session.destination == f"ok.test:{server_port}"


@live
async def test_where_an_association_went_is_told() -> None:
    async with with_datagrams() as one:
        server = await talker(echoes=True)
        client = await Associated(one).open()
        client.send(headed("10.0.0.1", 53), b"denied")
        for host in ("localhost", "127.1", "localhost", "127.0.0.1"):
            client.send(headed(host, server.port), b"?")
            await client.hear()
        destination = f"localhost:{server.port} and 2 more"
        server.transport.abort()
        session = await client.close()
        assert (session.destination, session.reason, session.rule) == (destination, "", "")
        silent = await (await Associated(one).open()).close()
        assert (silent.destination, silent.reason) == ("", "")


@live
async def test_an_association_that_was_allowed_nothing_is_told_as_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = asyncio.Event()
    async with with_datagrams() as one:
        monkeypatch.setattr(one.entry.egress, "_denied", lambda rule: denied.set())  # type: ignore[attr-defined]
        client = await Associated(one).open()
        client.send(headed("10.0.0.1", 53), b"?")
        await denied.wait()
        session = await client.close()
        assert (session.destination, session.endpoint) == ("10.0.0.1:53", "")
        assert (session.reason, session.rule) == ("egress_denied", "not in allow")


@live
async def test_a_name_is_looked_up_once_for_an_association() -> None:
    with DnsServer() as names:
        names.records["ok.test", "A"] = ["127.0.0.1"]
        names.ttl = 0
        async with with_datagrams(egress={"resolver": names.address}) as one:
            server = await talker(echoes=True)
            client = await Associated(one).open()
            for number in range(5):  # all before the answer
                client.send(headed("ok.test", server.port), b"%d" % number)
            assert [(await client.hear())[2] for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
            names.records["ok.test", "A"] = ["10.0.0.1"]
            client.send(headed("ok.test", server.port), b"5")
            assert await client.hear() == ("127.0.0.1", server.port, b"5")
            assert names.asked["ok.test", "A"] == 1
            server.transport.abort()
            await client.close()


@live
async def test_a_name_with_addresses_of_which_one_can_be_reached() -> None:
    """Without its interface there is no way to a link-local address."""
    with DnsServer() as names:
        names.records["both.test", "AAAA"] = ["fe80::1"]
        names.records["both.test", "A"] = ["127.0.0.1"]
        allow = ["127.0.0.0/8", "fe80::/10"]
        async with with_datagrams(egress={"resolver": names.address, "allow": allow}) as one:
            found = await one.entry.egress.admit("both.test", 9, "127.0.0.1")  # type: ignore[attr-defined]
            assert [each.host for each in found] == ["fe80::1", "127.0.0.1"]
            server = await talker(echoes=True)
            client = await Associated(one).open()
            client.send(headed("both.test", server.port), b"here")
            assert await client.hear() == ("127.0.0.1", server.port, b"here")
            server.transport.abort()
            await client.close()


@live
async def test_destinations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(association, "_MOST", 2)
    async with with_datagrams() as one:
        servers = [await talker() for _ in range(3)]
        client = await Associated(one).open()
        relays = []
        for server in servers:
            client.send(headed("127.0.0.1", server.port), b"")
            relays.append((await server.heard.get())[1])
        servers[0].transport.sendto(b"forgotten", relays[0])
        servers[2].transport.sendto(b"known", relays[2])
        assert (await client.hear())[2] == b"known"
        client.send(headed("127.0.0.1", servers[0].port), b"")
        servers[0].transport.sendto(b"known again", (await servers[0].heard.get())[1])
        assert (await client.hear())[2] == b"known again"
        for server in servers:
            server.transport.abort()
        await client.close()


@live
async def test_an_association_dies_with_its_connection() -> None:
    async with with_datagrams() as one:
        server = await talker()
        client = await Associated(one).open()
        await client.peer.send(b"what is said here means nothing")
        client.send(headed("127.0.0.1", server.port), b"")
        await server.heard.get()
        client.peer.close()
        assert (await one.session()).reason == ""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", client.port))
            probe.send(b"")
            await until(lambda: probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED)
        for each in (server, client.talker):
            each.transport.abort()


@pytest.mark.parametrize(
    ("bounds", "listener", "reason"),
    [
        ({"max_bytes": "10kB"}, {}, "tunnel_too_large"),
        ({"max_duration": "100ms"}, {}, "tunnel_too_long"),
        ({"bytes_per_client": "1kB"}, {}, "quota_exhausted"),
        ({}, {"idle_timeout": "100ms"}, "tunnel_idle_timeout"),
    ],
)
@live
async def test_the_bounds_of_an_association(bounds: dict[str, str], listener: dict[str, str], reason: str) -> None:
    async with with_datagrams(egress=bounds, **listener) as one:
        server = await talker()
        client = await Associated(one).open()
        for _ in range(3):
            client.send(headed("127.0.0.1", server.port), b"x" * 4000)
        assert await client.peer.ends() == b""
        assert (await one.session()).reason == reason
        for each in (server, client.talker):
            each.transport.abort()


@live
async def test_an_association_is_charged_to_its_last_datagram() -> None:
    async with with_datagrams(egress={"bytes_per_client": "10kB", "max_bytes": "12kB"}) as one:
        server = await talker()
        for _ in range(2):
            client = await Associated(one).open()
            client.send(headed("127.0.0.1", server.port), b"x" * 6000)
            await server.heard.get()
            assert (await client.close()).reason == ""
        refused = await one.client(HELLO + to("0.0.0.0", 0, socks.UDP_ASSOCIATE))
        assert await told(refused) == OK + socks.reply(socks.NOT_ALLOWED)
        assert (await one.session()).rule == "bytes_per_client"
        server.transport.abort()


@live
async def test_no_descriptor_is_left_for_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Any, where: Any, received: Any) -> Any:
        raise DescriptorsExhausted("", os.strerror(errno.EMFILE))

    monkeypatch.setattr(association.Association, "_opened", none)
    async with with_datagrams() as one:
        client = await one.client(HELLO + to("0.0.0.0", 0, socks.UDP_ASSOCIATE))
        assert await told(client) == OK + socks.reply(socks.FAILURE)
        assert (await one.session()).reason == "descriptors_exhausted"


@live
async def test_each_socket_for_datagrams_needs_room() -> None:
    """The client's connection and its way out have theirs; then comes what it sends to, then its second way out."""
    async with with_datagrams() as one:
        four, six = await talker(echoes=True), await talker("::1", echoes=True)
        admission = one.entry.admission
        admission.limit(2, one.state.connections)
        refused = await one.client(HELLO + to("0.0.0.0", 0, socks.UDP_ASSOCIATE))
        assert await told(refused) == OK + socks.reply(socks.FAILURE)
        assert (await one.session()).reason == "descriptors_exhausted"
        admission.limit(3, one.state.connections)
        client = await Associated(one).open()
        client.send(headed("127.0.0.1", four.port), b"one")
        assert (await client.hear())[2] == b"one"
        client.send(headed("::1", six.port), b"lost")
        client.send(headed("127.0.0.1", four.port), b"two")
        assert (await client.hear())[2] == b"two"
        admission.limit(4, one.state.connections)
        client.send(headed("::1", six.port), b"three")
        assert (await client.hear())[2] == b"three"
        await client.close()
        admission.limit(3, one.state.connections)
        await (await Associated(one).open()).close()  # all was given back
        for each in (four, six):
            each.transport.abort()


@live
async def test_many_destinations_at_once_share_one_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[Any, ...]] = []
    plain = association.Association._opened

    def counted(self: Any, where: Any, received: Any) -> Any:
        opened.append(where)
        return plain(self, where, received)

    monkeypatch.setattr(association.Association, "_opened", counted)
    async with with_datagrams() as one:
        server = await talker()
        client = await Associated(one).open()
        for number in range(1, 51):
            client.send(headed(f"127.0.1.{number}", 9), b"")
        client.send(headed("127.0.0.1", server.port), b"last")
        assert (await server.heard.get())[0] == b"last"
        assert len(opened) == 2, "one to the client, one to all others"
        server.transport.abort()
        await client.close()


@live
async def test_what_waits_to_be_judged_is_bounded() -> None:
    with DnsServer() as names:
        names.says["slow.test"] = ""
        async with with_datagrams(egress={"resolver": names.address}) as one:
            client = await Associated(one).open()
            for port in range(1, 200):
                client.send(headed("slow.test", port), b"x" * 10_000)
            await until(lambda: names.asked["slow.test", "A"])
            [connection] = one.entry.connections
            held = connection._association
            await until(lambda: held._held)
            assert held._held <= 64 * 1024 and held._judging <= 64
            await client.close()
            await until(lambda: not held._judging and not held._held)


@live
async def test_what_breaks_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*given: Any) -> Any:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(socks5, "reach", broken)
    async with site() as one:
        client = await one.client(HELLO + to("127.0.0.1", 80))
        assert await told(client) == OK
        assert (await one.session()).reason == "proxy_internal_error"
    assert "a mistake" in caplog.text
