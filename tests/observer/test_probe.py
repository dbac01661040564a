"""Probes over real sockets: where they go, what passes, over TLS too, and what a failure is told as."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import trustme

from gateway.config.load import load
from gateway.config.model import Config
from gateway.errors import DescriptorsExhausted, PortsExhausted, StartError, UpstreamError
from gateway.findings import Findings
from gateway.metrics.plan import Plan
from gateway.observer import probe
from gateway.observer.probe import Probes
from gateway.scoreboard import Condition, Mark, Scoreboard
from gateway.tls import client_context
from gateway.truth import Truth
from gateway.upstream.endpoint import Endpoint
from gateway.worker.assembly import check, running_wheel
from tests.upstream.peer import Message, Origin, Peer, always, closed_port, live, noting, ok

DOWN, PROBATION, UP = Condition.DOWN, Condition.PROBATION, Condition.UP


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return str(file)


def served(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """What a server needs to be these, by name or address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def config(endpoint: str, host: str = "preserve", **health: Any) -> Config:
    probed = {"interval": "10ms", "timeout": "5s", "unhealthy_after": 1, "healthy_after": 1, **health}
    return Config.model_validate(
        {
            "listeners": [{"name": "web", "listen": ":8080"}],
            "upstreams": {"app": {"endpoints": [endpoint], "host": host, "health": probed}},
        }
    )


class Probed:
    """The probes of one endpoint while they go on. An async context manager."""

    def __init__(self, endpoint: str, host: str = "preserve", **health: Any) -> None:
        plan, board = Plan(), Scoreboard.create()
        asked = config(endpoint, host, **health)
        plan.cover(asked)
        truth = Truth(board)
        self.record = truth.record(plan.block("endpoint", "app", endpoint))
        self._probes = Probes(asked, plan, truth, board.take(1, []), running_wheel(), Findings())

    async def __aenter__(self) -> Probed:
        self._probes.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._probes.stop()

    async def becomes(self, condition: Condition) -> None:
        await until(lambda: self.record[Mark.CONDITION] == condition)

    async def passes(self, times: int = 2) -> None:
        await until(lambda: self.record[Mark.PROBES_PASSED] >= times)


async def until(look: Callable[[], bool]) -> None:
    while not look():  # noqa: ASYNC110  nobody tells when a cell changes
        await asyncio.sleep(0.005)


def cause(caplog: pytest.LogCaptureFixture) -> str:
    """Why it went down, as the log has it."""
    [record] = [record for record in caplog.records if "is down" in record.getMessage()]
    return record.getMessage().partition("was up: ")[2]


@live
async def test_an_answer_passes_and_the_connection_is_kept() -> None:
    seen: list[Message] = []
    async with (
        Origin(noting(seen, lambda request: ok())) as origin,
        Probed(origin.address, path="/health") as probed,
    ):
        await probed.passes(3)
        assert origin.accepted == 1
        assert probed.record[Mark.CONDITION] == UP
    assert seen[0].start == b"GET /health HTTP/1.1"
    assert seen[0][b"host"] == origin.address.encode()


@pytest.mark.parametrize(
    ("health", "response", "said"),
    [
        ({}, b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "probe: answered 503"),
        ({"expect_status": ["204"]}, ok(), "probe: answered 200"),
        ({"expect_body": "fine"}, ok(b"bad"), "probe: the body does not hold 'fine'"),
        ({}, b"nonsense\r\n\r\n", "probe: sent a malformed response (status_line_malformed)"),
    ],
)
def test_what_fails_is_told_in_words(
    health: dict[str, Any], response: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    @live
    async def judged() -> None:
        async with Origin(always(response)) as origin, Probed(origin.address, **health) as probed:
            await probed.becomes(DOWN)

    judged()
    assert cause(caplog) == said


@live
async def test_who_answers_again_is_on_probation() -> None:
    answers = iter([b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"])
    async with (
        Origin(noting([], lambda request: next(answers, ok()))) as origin,
        Probed(origin.address) as probed,
    ):
        await probed.becomes(PROBATION)


@pytest.mark.parametrize(
    ("host", "sent"),
    [("preserve", "127.0.0.1:{probed}"), ("endpoint", "127.0.0.1:{probed}"), ("app.example", "app.example")],
)
def test_probes_go_to_a_port_of_their_own(host: str, sent: str) -> None:
    """Nobody listens where requests go, and nothing is asked there."""
    seen: list[Message] = []

    @live
    async def probed() -> None:
        async with Origin(noting(seen, lambda request: ok())) as origin:
            async with Probed(f"127.0.0.1:{closed_port()}", host, port=origin.port) as probed:
                await probed.passes()
            assert seen[0][b"host"].decode() == sent.format(probed=origin.port)

    probed()


def test_a_failure_there_names_the_port(caplog: pytest.LogCaptureFixture) -> None:
    port = closed_port()

    @live
    async def probed() -> None:
        async with Origin(always(ok())) as origin, Probed(origin.address, port=port) as probed:
            await probed.becomes(DOWN)
            assert origin.accepted == 0

    probed()
    assert cause(caplog) == f"probe of port {port}: cannot connect (Connection refused)"


@live
async def test_a_unix_socket_has_no_other_port(tmp_path: Path) -> None:
    """One that discovery found, say: it is asked where it is."""
    path = str(tmp_path / "app.sock")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Peer(reader, writer).request()
        writer.write(ok())
        writer.close()

    async with (
        await asyncio.start_unix_server(answer, path),
        Probed(f"unix:{path}", port=closed_port()) as probed,
    ):
        await probed.passes()


# TLS.


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_over_tls(kind: str, authority: trustme.CA, ca: str) -> None:
    """The certificate is for the endpoint's address."""

    @live
    async def probed() -> None:
        async with (
            Origin(always(ok()), served(authority, "127.0.0.1")) as origin,
            Probed(origin.address, kind=kind, tls={"ca": ca}) as probed,
        ):
            await probed.passes(3)
            assert kind == "tcp" or origin.accepted == 1

    probed()


@live
async def test_over_tls_at_another_port_and_by_another_name(authority: trustme.CA, ca: str) -> None:
    names: list[str | None] = []
    context = served(authority, "app.example")

    def note(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        names.append(name)

    context.sni_callback = note
    async with (
        Origin(always(ok()), context) as origin,
        Probed(f"127.0.0.1:{closed_port()}", port=origin.port, tls={"ca": ca, "server_name": "app.example"}) as probed,
    ):
        await probed.passes()
    assert set(names) == {"app.example"}


@pytest.mark.parametrize("kind", ["http", "tcp"])
@pytest.mark.parametrize(
    ("names", "tls", "said"),
    [
        (["127.0.0.1"], {}, "certificate verify failed: unable to get local issuer certificate"),
        (
            ["127.0.0.1"],
            {"ca": "CA", "server_name": "app.example"},
            "certificate verify failed: Hostname mismatch, certificate is not valid for 'app.example'",
        ),
        (
            ["app.example"],
            {"ca": "CA"},
            "certificate verify failed: IP address mismatch, certificate is not valid for '127.0.0.1'",
        ),
    ],
    ids=["unknown", "name", "address"],
)
def test_a_certificate_that_is_not_the_right_one_is_a_failure(
    kind: str,
    names: list[str],
    tls: dict[str, str],
    said: str,
    authority: trustme.CA,
    ca: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @live
    async def probed() -> None:
        options = {key: value.replace("CA", ca) for key, value in tls.items()}
        async with (
            Origin(always(ok()), served(authority, *names)) as origin,
            Probed(origin.address, kind=kind, tls=options) as probed,
        ):
            await probed.becomes(DOWN)

    probed()
    assert cause(caplog) == f"probe: {said}"


def test_unless_it_is_not_looked_at(authority: trustme.CA) -> None:
    @live
    async def probed() -> None:
        async with (
            Origin(always(ok()), served(authority, "other.example")) as origin,
            Probed(origin.address, tls={"verify": False}) as probed,
        ):
            await probed.passes()

    probed()


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_who_speaks_no_tls_fails(kind: str, ca: str, caplog: pytest.LogCaptureFixture) -> None:
    async def plain(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await peer.ends()

    @live
    async def probed() -> None:
        async with Origin(plain) as origin, Probed(origin.address, kind=kind, tls={"ca": ca}) as probed:
            await probed.becomes(DOWN)

    probed()
    assert cause(caplog) == "probe: TLS handshake failed: wrong version number"


def test_a_handshake_that_never_ends_is_out_of_time(ca: str, caplog: pytest.LogCaptureFixture) -> None:
    async def silent(peer: Peer) -> None:
        await peer.ends()

    @live
    async def probed() -> None:
        async with (
            Origin(silent) as origin,
            Probed(origin.address, kind="tcp", timeout="100ms", tls={"ca": ca}) as probed,
        ):
            await probed.becomes(DOWN)

    probed()
    assert "within 0.1 s" in cause(caplog)


# The PROXY protocol.


@pytest.mark.parametrize("over_tls", [False, True])
@pytest.mark.parametrize("kind", ["http", "tcp"])
@pytest.mark.parametrize(
    ("version", "header"),
    [("v1", b"PROXY UNKNOWN\r\n"), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")],
)
def test_an_endpoint_that_requires_a_header_gets_one(
    version: str, header: bytes, kind: str, over_tls: bool, authority: trustme.CA, ca: str
) -> None:
    """Once in each connection, before TLS as well; who is told nothing else first is well."""
    begun: list[bytes] = []

    async def answer(peer: Peer) -> None:
        begun.append(await peer.reader.readexactly(len(header)))
        if over_tls:
            await peer.writer.start_tls(served(authority, "127.0.0.1"))
        if kind == "http":
            await always(ok())(peer)
        else:
            assert await peer.reader.read() == b""

    @live
    async def probed() -> None:
        tls: dict[str, Any] = {"tls": {"ca": ca}} if over_tls else {}
        async with (
            Origin(answer) as origin,
            Probed(origin.address, kind=kind, proxy_protocol=version, **tls) as probed,
        ):
            await probed.passes(3)
            await until(lambda: header in begun)
            assert kind == "tcp" or origin.accepted == 1

    probed()
    assert set(begun) == {header}


@live
async def test_a_header_goes_to_a_unix_socket_too(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"PROXY UNKNOWN\r\n":
            await Peer(reader, writer).request()
            writer.write(ok())
        writer.close()

    async with (
        await asyncio.start_unix_server(answer, path),
        Probed(f"unix:{path}", proxy_protocol="v1") as probed,
    ):
        await probed.passes()


def test_nobody_there_is_a_failure_with_a_header_too(caplog: pytest.LogCaptureFixture) -> None:
    @live
    async def probed() -> None:
        async with Probed(f"127.0.0.1:{closed_port()}", proxy_protocol="v2") as probed:
            await probed.becomes(DOWN)

    probed()
    assert cause(caplog) == "probe: cannot connect (Connection refused)"


# What this process is short of says nothing about endpoints.


@pytest.mark.parametrize("short", [DescriptorsExhausted, PortsExhausted])
def test_a_shortage_of_its_own_is_told_once_and_judged_never(
    short: type[UpstreamError], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def none_left(endpoint: Endpoint, *_: object) -> None:
        nonlocal asked
        asked += 1
        raise short(endpoint.name, "cannot connect (none left)")

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "none left" in record.getMessage()]

    @live
    async def probed() -> None:
        nonlocal asked
        async with Origin(always(ok())) as origin:
            with monkeypatch.context() as patched:
                patched.setattr(probe, "dial", none_left)
                async with Probed(origin.address, kind="tcp") as probed:
                    await until(lambda: asked > 3)
                    assert probed.record[Mark.CONDITION] == UP
                    assert probed.record[Mark.PROBES_FAILED] == 0
                    assert len(told()) == 1
                    patched.undo()
                    await probed.passes()
                    patched.setattr(probe, "dial", none_left)
                    asked = 0
                    await until(lambda: asked > 3)
                    assert len(told()) == 2, "another shortage"

    probed()
    assert told()[0].startswith("probes are not possible, and nothing is judged by them: 127.0.0.1:")


# What is wrong is said before anything starts.


def ca_of(kind: str, folder: Path) -> Path:
    file = folder / "ca.pem"
    match kind:
        case "empty":
            file.touch()
        case "text":
            file.write_text("no certificate")
        case "folder":
            file.mkdir()
    return file


UNUSABLE = [
    ("missing", "can't be read: No such file or directory"),
    ("empty", "holds no certificates in PEM form"),
    ("text", "holds no certificates in PEM form"),
    ("folder", "is not a file"),
]


@pytest.mark.parametrize(("kind", "said"), UNUSABLE)
def test_a_ca_that_can_not_be_used_is_one_sentence(kind: str, said: str, tmp_path: Path) -> None:
    file = ca_of(kind, tmp_path)
    with pytest.raises(StartError) as raised:
        check(config("127.0.0.1:1", tls={"ca": str(file)}))
    assert str(raised.value) == f"upstreams.app.health.tls.ca: {file} {said}"


@live
async def test_the_observer_says_the_same(tmp_path: Path) -> None:
    """It may be gone when the observer starts, or not for its user to read."""
    with pytest.raises(StartError, match=r"upstreams\.app\.health\.tls\.ca: .* can't be read"):
        Probed("127.0.0.1:1", tls={"ca": str(tmp_path / "none.pem")})


def test_a_ca_is_found_beside_the_configuration(authority: trustme.CA, tmp_path: Path) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    file = tmp_path / "gateway.toml"
    file.write_text(
        """
        listeners = [{ name = "web", listen = ":8080" }]
        [upstreams.app]
        endpoints = ["127.0.0.1:1"]
        health = { tls = { ca = "ca.pem" } }
        """
    )
    read = load(file, {})
    health = read.upstreams["app"].health
    assert health is not None and health.tls is not None and health.tls.ca == str(tmp_path / "ca.pem")
    check(read)


def test_without_a_ca_the_system_s_are_trusted() -> None:
    context = client_context("", None, True)
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert len(context.get_ca_certs()) == len(ssl.create_default_context().get_ca_certs())


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway")
