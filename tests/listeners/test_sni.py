"""TLS connections that go by the name their client asks for."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trustme

from gateway.listeners.sni import Names
from tests.listeners.site import until
from tests.listeners.streams import Streams
from tests.listeners.test_tcp import echo, named
from tests.support.hellos import hello, server_name
from tests.upstream.peer import Origin, Peer, live


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("example.com", "exact"),
        ("www.example.com", "wild"),
        ("a.b.example.com", "wild"),
        ("x.deep.example.com", "longer"),
        ("a.x.deep.example.com", "longer"),
        ("deep.example.com", "wild"),
        ("api.example.com", "exact below"),
        ("example.org", None),
        ("com", None),
        ("badexample.com", None),
        (".example.com", None),
        ("", None),
    ],
)
def test_which_name_leads_where(name: str, place: str | None) -> None:
    names = Names(
        [
            ("*.example.com", "wild"),
            ("example.com", "exact"),
            ("*.deep.example.com", "longer"),
            ("api.example.com", "exact below"),
            ("api.example.com", "too late"),
        ]
    )
    assert names.find(name) == place


def passing(*names: str, to: str = "tls", name: str = "r", **more: Any) -> dict[str, Any]:
    return {"name": name, "sni": list(names), "upstream": to, **more}


@live
async def test_two_origins_with_certificates_of_their_own() -> None:
    """What they say is theirs: nothing is decrypted on the way."""
    authority = trustme.CA()

    def context(name: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(made)
        return made

    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    one = Origin(named(b"one"), context("one.example"))
    two = Origin(named(b"two"), context("*.two.example"))
    async with one, two:
        routes = [passing("one.example", to="one"), passing("*.two.example", to="two", name="s")]
        others = {"one": {"endpoints": [one.address]}, "two": {"endpoints": [two.address]}}
        async with Streams(others=others, routes=routes) as site:
            for name, answer in (("one.example", b"one"), ("www.two.example", b"two")):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", site.port, ssl=trusting, server_hostname=name
                )
                assert await reader.readexactly(3) == answer
                writer.close()
                session = await site.session()
                assert (session.sni, session.upstream) == (name, answer.decode())
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", site.port, ssl=trusting, server_hostname="three.example")
            session = await site.session()
            assert (session.sni, session.reason, session.upstream) == ("three.example", "no_route", "")


@pytest.mark.parametrize("size", [1, 7, 1 << 14])
@live
async def test_a_byte_at_a_time(size: int) -> None:
    data = hello(server_name(b"a.example"), size=size)
    async with Origin(echo) as origin:
        others = {"tls": {"endpoints": [origin.address]}}
        async with Streams(others=others, routes=[passing("a.example")]) as site:
            client = await site.client()
            for at in range(len(data)):
                await client.send(data[at : at + 1])
                if at % 16 == 0:
                    await asyncio.sleep(0)
            assert await client.reader.readexactly(len(data)) == data
            client.close()
            session = await site.session()
            assert (session.sni, session.bytes_in) == ("a.example", len(data))


@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n", hello(), hello(server_name(b"other.example")), b"\x16\x03\x01\0\0"])
@live
async def test_what_no_route_takes(data: bytes) -> None:
    async with Origin(echo) as tls, Origin(echo) as plain:
        others = {"tls": {"endpoints": [tls.address]}}
        async with Streams(plain, others=others, routes=[passing("a.example")]) as site:
            client = await site.client(data)
            assert await client.reader.readexactly(len(data)) == data
            client.close()
            assert (await site.session()).upstream == "app"
        async with Streams(others=others, routes=[passing("a.example")]) as site:
            client = await site.client(data)
            with pytest.raises(ConnectionResetError):
                await client.reader.read()
            assert (await site.session()).reason == "no_route"


@live
async def test_who_waits_for_the_endpoint_to_speak() -> None:
    async with Origin(named(b"220 hello")) as origin:
        others = {"tls": {"endpoints": ["127.0.0.1:1"]}}
        routes = [passing("a.example")]
        async with Streams(origin, others=others, routes=routes, hello_timeout="100ms") as site:
            client = await site.client()
            assert await client.reader.readexactly(9) == b"220 hello"
            client.close()
            assert (await site.session()).reason == ""


@pytest.mark.parametrize(("data", "has_default"), [(b"\x16\x03", True), (b"", False), (b"\x16", False)])
@live
async def test_who_is_too_slow(data: bytes, has_default: bool) -> None:
    async with Origin(echo) as origin:
        others = {"tls": {"endpoints": [origin.address]}}
        origins = [origin] if has_default else []
        async with Streams(*origins, others=others, routes=[passing("a.example")], hello_timeout="100ms") as site:
            client = await site.client(data)
            assert await client.ends() == b""
            session = await site.session()
            assert (session.reason, session.upstream) == ("hello_timeout", "")


@live
async def test_who_ends_before_it_is_whole() -> None:
    heard: list[bytes] = []

    async def handler(peer: Peer) -> None:
        heard.append(await peer.ends())

    async with Origin(handler) as origin:
        others = {"tls": {"endpoints": [origin.address]}}
        async with Streams(origin, others=others, routes=[passing("a.example")]) as site:
            client = await site.client(b"\x16\x03")
            client.writer.write_eof()
            assert await client.ends() == b""
            assert (await site.session()).upstream == "app"
            await until(lambda: heard == [b"\x16\x03"])
            client = await site.client()
            client.close()
            assert (await site.session()).reason == "client_gone"


@live
async def test_who_has_said_nothing_makes_room() -> None:
    async with Origin(echo) as origin:
        others = {"tls": {"endpoints": [origin.address]}}
        routes = [passing("a.example")]
        async with Streams(others=others, routes=routes, max_connections=2) as site:
            silent = [await site.client() for _ in range(2)]
            await until(lambda: len(site.entry.connections) == 2)
            data = hello(server_name(b"a.example"))
            client = await site.client(data)
            assert await client.reader.readexactly(len(data)) == data
            assert await silent[0].ends() == b""
            assert (await site.session()).reason == "connection_limit_reached"
            for one in (client, silent[1]):
                one.close()
                await site.session()
