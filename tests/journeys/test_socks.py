"""Real clients through a SOCKS listener: curl, and PySocks with streams and datagrams, over a reload."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import socks
import trustme

from tests.middleware.hashes import user_line
from tests.support import access_log
from tests.support.gateway_process import Gateway, Start
from tests.support.metrics import Metrics
from tests.support.pages import serving
from tests.support.waiting import eventually

BODY = b"x" * 100_000


@pytest.fixture
def config(tmp_path: Path) -> str:
    users = tmp_path / "htpasswd"
    users.write_bytes(user_line(b"ann", b"secret"))
    listener = """
[[listeners]]
name = "%s"
kind = "socks5"
listen = "127.0.0.1:0"
egress = "lan"
"""
    return f"""
[process]
workers = 2
control = "control.sock"
drain_timeout = "20s"
[log]
access = "access.log"
[admin]
listen = "127.0.0.1:0"
{listener % "open"}
udp_associate = true
{listener % "closed"}
auth = {{ htpasswd = "{users}" }}
[egress.lan]
allow = ["127.0.0.0/8"]
deny = ["127.0.0.9"]
ports = ["1-65535"]
"""


@contextmanager
def echo(kind: socket.SocketKind) -> Iterator[int]:
    """Somebody who says everything again, to one client: his port."""
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))

    def serve() -> None:
        if kind == socket.SOCK_STREAM:
            client, _ = sock.accept()
            with client:
                while data := client.recv(1 << 16):
                    client.sendall(data)
            return
        while True:
            data, source = sock.recvfrom(1 << 16)
            if data == b"end":
                return
            sock.sendto(data, source)

    if kind == socket.SOCK_STREAM:
        sock.listen()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = sock.getsockname()[1]
    yield port
    if kind == socket.SOCK_DGRAM:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", ("127.0.0.1", port))
    thread.join(10)
    sock.close()
    assert not thread.is_alive()


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "-sS", "--max-time", "30", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, env={"PATH": os.environ["PATH"]})


def proxied(one: Gateway, kind: socket.SocketKind = socket.SOCK_STREAM, listener: str = "open", **more: Any) -> Any:
    host, _, port = one.address(listener).rpartition(":")
    sock = socks.socksocket(socket.AF_INET, kind)
    sock.set_proxy(socks.SOCKS5, host, int(port), **more)
    sock.settimeout(30)
    return sock


def lines(one: Gateway, count: int) -> list[dict[str, Any]]:
    file = one.folder / "access.log"
    return eventually(lambda: found if len(found := access_log.lines(file)) >= count else [], f"{count} lines")


def test_curl(gateway: Start, config: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(tls)
    one = gateway(config.replace("workers = 2", "workers = 1"))  # so that lines are in order
    way, secret = one.address("open"), one.address("closed")
    with serving(BODY) as plain, serving(BODY, tls) as safe:
        ca = ("--cacert", str(tmp_path / "ca.pem"))
        for arguments in (
            ("--socks5-hostname", way, f"http://localhost:{plain}/"),
            ("--socks5", way, f"http://127.0.0.1:{plain}/"),
            ("--socks5-hostname", way, *ca, f"https://localhost:{safe}/"),
            ("--socks5", way, *ca, f"https://127.0.0.1:{safe}/"),
            ("--socks5-hostname", secret, "--proxy-user", "ann:secret", f"http://localhost:{plain}/"),
        ):
            done = curl(*arguments)
            assert (done.returncode, done.stdout) == (0, BODY), done.stderr
        # What is refused, by its reply code; and by none, where nobody is let in.
        for target, code in (
            (f"127.0.0.9:{plain}", 2),
            ("10.0.0.1:80", 2),
            (one.address("open"), 2),
            (one.address("closed"), 2),
            (one.admin, 2),
            ("does-not-exist.invalid:80", 4),
            ("127.0.0.1:1", 5),
        ):
            done = curl("--socks5-hostname", way, f"http://{target}/")
            assert done.returncode == 97 and f"({code})" in done.stderr.decode(), (target, done.stderr)
        for who in (("--proxy-user", "ann:Secret"), ()):
            assert curl("--socks5-hostname", secret, *who, f"http://localhost:{plain}/").returncode == 97
        told = lines(one, 14)
        assert [line["destination"] for line in told[:2]] == [f"localhost:{plain}", f"127.0.0.1:{plain}"]
        assert all(line["bytes_out"] > len(BODY) and not line["reason"] for line in told[:5])
        assert told[4]["user"] == "ann"
        assert [(line["reason"], line["rule"]) for line in told[5:]] == [
            ("egress_denied", "deny 127.0.0.9/32"),
            ("egress_denied", "not in allow"),
            *[("egress_denied", "own listener")] * 3,
            ("dns_error", ""),
            ("connection_refused", ""),
            ("credentials_wrong", ""),
            ("socks_method", ""),
        ]
        metrics = Metrics(one.admin)
        assert metrics("gateway_egress_denials_total", egress="lan", rule="own listener") == 3
        assert metrics("gateway_session_endings_total", listener="open", reason="egress_denied") == 5


def test_tunnels_and_datagrams_over_a_reload(gateway: Start, config: str) -> None:
    one = gateway(config)
    with echo(socket.SOCK_STREAM) as stream, echo(socket.SOCK_DGRAM) as packets:
        tunnel, datagrams = proxied(one), proxied(one, socket.SOCK_DGRAM)
        tunnel.connect(("localhost", stream))
        datagrams.bind(("127.0.0.1", 0))

        def said() -> None:
            for number in range(50):
                data = b"%d" % number * 1000
                tunnel.sendall(data)
                heard = b""
                while len(heard) < len(data):
                    heard += tunnel.recv(1 << 16)
                assert heard == data
                datagrams.sendto(data[:1200], ("localhost", packets))
                heard, source = datagrams.recvfrom(1 << 16)
                assert heard == data[:1200] and source == ("127.0.0.1", packets)

        said()
        assert Metrics(one.admin)("gateway_tunnels_open", listener="open") == 2
        one.signal(signal.SIGHUP)
        eventually(lambda: one.generation() > 1, "the reload is done", 60)
        said()
        tunnel.close()
        datagrams.close()
        told = {line["destination"]: line for line in lines(one, 2)}
        assert {where.rpartition(":")[0] for where in told} == {"localhost"}
        assert not any(line["reason"] for line in told.values())
        assert told[f"localhost:{packets}"]["endpoint"] == f"127.0.0.1:{packets}"
    one.settled(2)
