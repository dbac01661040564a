"""Real clients through a forward proxy: curl with plain requests and with tunnels, over a reload, and over a kill."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.middleware.hashes import user_line
from tests.support import access_log
from tests.support.gateway_process import Gateway, Start
from tests.support.http import connect
from tests.support.metrics import Metrics
from tests.support.origin import CHUNKS, HELLO, Origin
from tests.support.pages import serving
from tests.support.talker import Talker
from tests.support.waiting import eventually

USER, PASSWORD = "ann", "open sesame"
WHO = ("--proxy-user", f"{USER}:{PASSWORD}")


@pytest.fixture
def config(tmp_path: Path) -> str:
    users = tmp_path / "htpasswd"
    users.write_bytes(user_line(USER.encode(), PASSWORD.encode()))
    return f"""
[process]
workers = 1
control = "control.sock"
drain_timeout = "20s"
[log]
access = "access.log"
[admin]
listen = "127.0.0.1:0"
[[listeners]]
name = "out"
kind = "forward"
listen = "127.0.0.1:0"
auth = {{ htpasswd = "{users}" }}
egress = "lan"
[egress.lan]
allow = ["127.0.0.0/8"]
deny = ["127.0.0.9"]
ports = ["1-65535"]
"""


def curl(one: Gateway, *arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "-sS", "--max-time", "30", "-x", f"http://{one.address('out')}", *arguments]
    return subprocess.run(command, input=data, capture_output=True, timeout=60, env={"PATH": os.environ["PATH"]})


def fetched(one: Gateway, *arguments: str, data: bytes | None = None) -> bytes:
    done = curl(one, *WHO, *arguments, data=data)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(one: Gateway, count: int) -> list[dict[str, Any]]:
    """The access log once it has so many lines."""
    file = one.folder / "access.log"
    return eventually(lambda: found if len(found := access_log.lines(file)) >= count else [], f"{count} lines")


def open_tunnels(one: Gateway) -> float:
    return Metrics(one.admin)("gateway_tunnels_open", listener="out")


@contextmanager
def tls_origin(folder: Path) -> Iterator[tuple[str, str]]:
    """An origin that speaks HTTPS: its URL, and the file with who vouches for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    with serving(HELLO, context, keeps=True) as port:
        yield f"https://127.0.0.1:{port}/", str(folder / "ca.pem")


def tunnel(one: Gateway, to: str) -> socket.socket:
    """A tunnel to somebody who says everything again, by hand."""
    sock = connect(one.address("out"))
    who = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    sock.sendall(f"CONNECT {to} HTTP/1.1\r\nhost: {to}\r\nproxy-authorization: Basic {who}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    return sock


def says(sock: socket.socket, data: bytes) -> bool:
    """Whether what is said comes back."""
    try:
        sock.sendall(data)
        return sock.recv(len(data), socket.MSG_WAITALL) == data
    except OSError:
        return False


def reload(one: Gateway) -> None:
    before = one.generation()
    one.signal(signal.SIGHUP)
    eventually(lambda: one.generation() > before, "the reload is done", 60)


def test_curl(gateway: Start, origin: Origin, config: str) -> None:
    one = gateway(config)
    url = f"http://{origin.address}"
    assert fetched(one, f"{url}/hello", f"{url}/chunked") == HELLO + b"".join(CHUNKS)
    assert fetched(one, f"{url}/echo", "--data-binary", "@-", data=b"x" * 100_000) == b"x" * 100_000
    assert fetched(one, f"{url}/echo", "-T", "-", data=b"y" * 100_000) == b"y" * 100_000  # chunked
    assert fetched(one, "-I", f"{url}/hello").startswith(b"HTTP/1.1 200 Some\r\n")
    assert fetched(one, "-0", f"{url}/close") == HELLO
    assert fetched(one, "-w", "%{http_code}", "-o", "/dev/null", f"{url}/status/404") == b"404"
    found = lines(one, 7)
    assert [line["status"] for line in found] == [200] * 6 + [404]
    assert {line["user"] for line in found} == {USER}
    assert {line["upstream"] for line in found} == {origin.address}
    assert {line["host"] for line in found} == {origin.address}
    assert found[1]["reused"] and not found[0]["reused"]
    log = (one.folder / "access.log").read_text() + one.log()
    assert PASSWORD not in log and b64encode(f"{USER}:{PASSWORD}".encode()).decode() not in log


def test_curl_through_tunnels(gateway: Start, origin: Origin, config: str, tmp_path: Path) -> None:
    one = gateway(config)
    with tls_origin(tmp_path) as (url, ca):
        assert fetched(one, "-p", f"http://{origin.address}/hello") == HELLO
        assert fetched(one, "--proxytunnel", "--cacert", ca, url, url) == HELLO * 2  # in one tunnel
        assert fetched(one, "--proxy1.0", one.address("out"), "--cacert", ca, url) == HELLO
        found = lines(one, 3)
    secure = url.removeprefix("https://").rstrip("/")
    assert [line["target"] for line in found] == [origin.address, secure, secure]
    for line in found:
        assert (line["method"], line["status"], line["reason"], line["user"]) == ("CONNECT", 200, "", USER)
        assert line["upstream"] == line["host"] == line["target"]
        assert line["bytes_in"] > 0 and line["bytes_out"] > 0 and line["duration_us"] > 0
    assert found[1]["bytes_out"] > 1000  # a certificate
    assert open_tunnels(one) == 0


def test_whoever_is_refused_hears_why(gateway: Start, origin: Origin, config: str) -> None:
    one = gateway(config)
    url, code = f"http://{origin.address}/hello", ("-o", "/dev/null", "-w", "%{http_code} %{http_connect}")
    assert curl(one, *code, url).stdout == b"407 000"
    assert curl(one, *code, "-p", url).stdout == b"000 407"
    assert curl(one, *code, "--proxy-user", f"{USER}:wrong", url).stdout == b"407 000"
    assert curl(one, *code, *WHO, "http://127.0.0.9/").stdout == b"403 000"
    assert curl(one, *code, *WHO, "https://127.0.0.9/").stdout == b"000 403"
    assert curl(one, *code, *WHO, f"http://{one.address('out')}/").stdout == b"403 000"
    assert curl(one, *code, *WHO, f"http://{one.admin}/metrics").stdout == b"403 000"
    found = lines(one, 7)
    assert [line["reason"] for line in found] == [
        "proxy_auth_required",
        "proxy_auth_required",
        "proxy_credentials_invalid",
        *["egress_denied"] * 4,
    ]
    assert [line.get("rule") for line in found] == [
        *[None] * 3,
        "deny 127.0.0.9/32",
        "deny 127.0.0.9/32",
        "own listener",
        "own listener",
    ]
    assert not origin.requests


@pytest.mark.parametrize("on_reload", ["drain", "close"])
def test_a_tunnel_over_a_reload(gateway: Start, config: str, on_reload: str) -> None:
    one = gateway(config.replace('kind = "forward"', f'kind = "forward"\non_reload = "{on_reload}"'))
    with Talker() as talker, tunnel(one, talker.address) as old:
        assert says(old, b"before") and open_tunnels(one) == 1
        reload(one)
        with tunnel(one, talker.address) as new:
            assert says(new, b"new")
            assert says(old, b"after") is (on_reload == "drain")
            if on_reload == "drain":
                assert len(one.all_workers()) == 2
                old.close()
            one.settled(1)
            assert says(new, b"still") and open_tunnels(one) == 1
        found = lines(one, 2)
        assert [line["reason"] for line in found] == ["" if on_reload == "drain" else "drain_timeout", ""]


def test_who_is_killed_takes_only_its_own_tunnels_along(gateway: Start, config: str) -> None:
    one = gateway(config.replace("workers = 1", "workers = 2"))
    with Talker() as talker, ExitStack() as stack:
        tunnels = [stack.enter_context(tunnel(one, talker.address)) for _ in range(12)]
        assert all(says(sock, b"hello") for sock in tunnels)
        victim, other = eventually(lambda: one.workers() if sum(w.connections for w in one.workers()) == 12 else [])
        os.kill(victim.pid, signal.SIGKILL)
        eventually(lambda: victim.pid not in one.pids() and len(one.pids()) == 2)
        assert sum(says(sock, b"again") for sock in tunnels) == other.connections
        assert says(stack.enter_context(tunnel(one, talker.address)), b"new")
        eventually(lambda: open_tunnels(one) == other.connections + 1)
