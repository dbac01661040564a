"""The example of everything below HTTP and the other way round, taken as it is: each line of it does what it says."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.support import access_log
from tests.support.endpoints import condition
from tests.support.gateway_process import Gateway, Start
from tests.upstream.peer import Origin, Peer, dial, live

EXAMPLE = Path(__file__).parents[3] / "shared/examples/streams.toml"
DENIED = "10.255.255.1"  # nobody is asked: it is not in the list of what is allowed


class Database:
    """An endpoint that says its name, and then whatever it is told."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.origin = Origin(self)
        self._is_up = False

    async def start(self) -> None:
        await self.origin.__aenter__()
        self._is_up = True

    async def stop(self) -> None:
        if self._is_up:
            self._is_up = False
            await self.origin.__aexit__(None, None, None)

    async def __call__(self, peer: Peer) -> None:
        await peer.send(self.name + b"\n")
        while data := await peer.reader.read(1 << 16):
            await peer.send(data)
        peer.writer.write_eof()


async def page(peer: Peer) -> None:
    while True:
        request = await peer.request()
        body = b"via " + b", ".join(request.all(b"via")) + b", " + request[b"host"]
        assert not request.all(b"proxy-authorization")
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


class Names(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data[::-1], address)


class Example:
    def __init__(self, gateway: Gateway, databases: list[Database], web: Origin) -> None:
        self.gateway = gateway
        self.databases = databases
        self.web = web
        self.peers: list[Peer] = []
        self._before: list[dict[str, Any]] = []

    async def dial(self, listener: str) -> Peer:
        peer = await dial(self.port(listener))
        self.peers.append(peer)
        return peer

    def port(self, listener: str) -> int:
        return int(self.gateway.address(listener).rpartition(":")[2])

    async def until(self, look: Callable[[], object]) -> None:
        while not await asyncio.to_thread(look):  # noqa: ASYNC110 (a process of its own; it tells nobody)
            await asyncio.sleep(0.05)

    def logged(self, listener: str) -> list[dict[str, Any]]:
        """What it said of this check, in the order of the workers and not of time."""
        lines = access_log.lines(self.gateway.folder / "stdout.txt")
        return [line for line in lines if line["listener"] == listener and line not in self._before]

    async def over(self) -> None:
        """A check is over: what was connected for it is closed, and told of."""
        for peer in self.peers:
            peer.close()
        self.peers.clear()
        # A session of datagrams is one for half a minute more.
        await self.until(lambda: self.gateway.status()["tunnels"].keys() <= {"udp"})
        self._before = access_log.lines(self.gateway.folder / "stdout.txt")

    async def curl(self, *arguments: str) -> tuple[int, str]:
        """Its exit code, and what it printed."""
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--max-time", "10", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()


Check = Callable[[Example], Awaitable[None]]


async def tcp(example: Example) -> None:
    peers, names = [], Counter[bytes]()
    for number in range(6):
        peer = await example.dial("tcp")
        await peer.send(b"query %d\n" % number)  # no PROXY header
        names[await peer.reader.readline()] += 1
        peers.append(peer)
    assert names == {b"db1\n": 3, b"db2\n": 3}  # the fewest connections, of all workers together
    for number, peer in enumerate(peers):
        assert await peer.reader.readline() == b"query %d\n" % number
        peer.writer.write_eof()
        assert await peer.reader.read() == b""
    await example.until(lambda: len(example.logged("tcp")) == 6)
    for line in example.logged("tcp"):
        assert (line["client"], line["upstream"], line["bytes_in"], line["bytes_out"], line["reason"]) == (
            "127.0.0.1", "db", 8, 12, "",
        )  # fmt: skip
        assert line["endpoint"] in {one.origin.address for one in example.databases}


async def a_proxy_in_front(example: Example) -> None:
    peer = await example.dial("tcp")
    await peer.send(b"PROXY TCP4 203.0.113.7 203.0.113.1 4711 5432\r\nquery\n")
    assert (await peer.reader.readline()).startswith(b"db") and await peer.reader.readline() == b"query\n"
    peer.close()
    await example.until(lambda: example.logged("tcp"))
    assert example.logged("tcp")[0]["client"] == "203.0.113.7"


async def probes(example: Example) -> None:
    first, second = example.databases
    await first.stop()
    await example.until(lambda: condition(example.gateway, first.origin.address) == "down")
    for _ in range(4):
        peer = await example.dial("tcp")
        await peer.send(b"query\n")
        assert await peer.reader.readline() == second.name + b"\n"
        peer.close()


async def udp(example: Example) -> None:
    loop = asyncio.get_running_loop()
    for number in range(5):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", example.port("udp")))
            client.send(b"%d ask" % number)
            assert await loop.sock_recv(client, 100) == b"ksa %d" % number


async def forward(example: Example) -> None:
    proxy, there = f"http://127.0.0.1:{example.port('forward')}", example.web.address
    anonymous = await example.curl("-o", "/dev/null", "-w", "%{http_code}", "-x", proxy, f"http://{there}/")
    assert anonymous == (0, "407")
    wrong = ("-x", proxy, "--proxy-user", "ann:no", "-o", "/dev/null", "-w", "%{http_code}")
    assert await example.curl(*wrong, f"http://{there}/") == (0, "407")
    known = ("-x", proxy, "--proxy-user", "ann:secret")
    code, text = await example.curl(*known, f"http://{there}/page")
    assert code == 0 and text.startswith("via 1.1 gateway-") and text.endswith(there)
    assert await example.curl(*known, "--proxytunnel", f"http://{there}/page") == (0, f"via , {there}")
    assert await example.curl(*known, "-o", "/dev/null", "-w", "%{http_code}", f"http://{DENIED}/") == (0, "403")
    code, text = await example.curl(*known, "--proxytunnel", f"http://{DENIED}/")
    assert code == 56 and "403" in text
    await example.until(lambda: len(example.logged("forward")) == 6)
    said = Counter((line["user"], line["status"], line["reason"]) for line in example.logged("forward"))
    assert said["ann", 403, "egress_denied"] == 2
    assert "secret" not in str(example.logged("forward"))


async def socks(example: Example) -> None:
    there = example.web.address
    proxy = ("--socks5-hostname", f"127.0.0.1:{example.port('socks')}")
    assert (await example.curl(*proxy, f"http://{there}/"))[0] == 97
    known = (*proxy, "--proxy-user", "ann:secret")
    assert await example.curl(*known, f"http://{there}/") == (0, f"via , {there}")
    code, text = await example.curl(*known, f"http://{DENIED}/")
    assert code == 97 and "(2)" in text  # not allowed by the ruleset
    await example.until(lambda: len(example.logged("socks")) == 3)
    [good], [denied] = (
        [line for line in example.logged("socks") if line["user"] and line["destination"].startswith(host)]
        for host in ("127.", DENIED)
    )
    assert (good["user"], good["destination"], good["endpoint"], good["reason"]) == ("ann", there, there, "")
    assert (denied["destination"], denied["reason"], denied["rule"]) == (
        f"{DENIED}:80", "egress_denied", "not in allow",
    )  # fmt: skip


async def socks_datagrams(example: Example) -> None:
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(Names, ("127.0.0.1", 0))
    control = await example.dial("socks")
    await control.send(b"\5\1\2")
    assert await control.reader.readexactly(2) == b"\5\2"
    await control.send(b"\1\3ann\6secret")
    assert await control.reader.readexactly(2) == b"\1\0"
    await control.send(b"\5\3\0\1" + bytes(6))
    answer = await control.reader.readexactly(10)
    assert answer[:4] == b"\5\0\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", int.from_bytes(answer[8:], "big")))
        head = b"\0\0\0\1" + socket.inet_aton("127.0.0.1") + names.port.to_bytes(2, "big")
        client.send(head + b"ask")
        assert await loop.sock_recv(client, 100) == head + b"ksa"
    control.close()
    transport.close()


async def as_many_tunnels_as_allowed(example: Example) -> None:
    host, port = example.web.address.rpartition(":")[::2]
    head = b"CONNECT %b HTTP/1.1\r\nhost: %b\r\nproxy-authorization: Basic YW5uOnNlY3JldA==\r\n\r\n"
    peers = []
    for _ in range(64):
        peer = await example.dial("forward")
        await peer.send(head % (f"{host}:{port}".encode(), host.encode()))
        assert (await peer.head()).status == 200
        peers.append(peer)
    peer = await example.dial("forward")
    await peer.send(head % (f"{host}:{port}".encode(), host.encode()))
    refused = await peer.response()
    assert refused.status in (403, 429) and b"tunnel_limit" in refused[b"proxy-status"]
    peers[0].close()
    await example.until(lambda: len(example.logged("forward")) >= 2)
    peer = await example.dial("forward")
    await peer.send(head % (f"{host}:{port}".encode(), host.encode()))
    assert (await peer.head()).status == 200


@pytest.mark.parametrize(
    "checks", [(tcp, a_proxy_in_front, probes), (udp, forward), (socks, socks_datagrams), (as_many_tunnels_as_allowed,)]
)
def test_the_example(gateway: Start, tmp_path: Path, checks: tuple[Check, ...]) -> None:
    users = tmp_path / "htpasswd"
    users.write_text("ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")

    @live
    async def run() -> None:
        async with AsyncExitStack() as stack:
            databases = [Database(b"db1"), Database(b"db2")]
            for one in databases:
                await one.start()
                stack.push_async_callback(one.stop)
            web = await stack.enter_async_context(Origin(page))
            transport, names = await asyncio.get_running_loop().create_datagram_endpoint(Names, ("127.0.0.1", 0))
            stack.callback(transport.close)
            env = dict.fromkeys(("TCP", "UDP", "FORWARD", "SOCKS"), "127.0.0.1:0")
            env |= {"DB_1": databases[0].origin.address, "DB_2": databases[1].origin.address}
            env |= {"DNS_1": f"127.0.0.1:{names.port}", "RUN_DIR": str(tmp_path / "g0"), "HTPASSWD": str(users)}
            env["EGRESS_ALLOW"] = "127.0.0.0/8"
            started = await asyncio.to_thread(gateway, EXAMPLE.read_text(), tmp_path / "g0", env=env)
            example = Example(started, databases, web)
            for check in checks:
                await check(example)
                await example.over()

    run()
