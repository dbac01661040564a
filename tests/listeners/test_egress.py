"""Where clients of a proxy may go: by whatever spelling, judged is the address that is dialled."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address
from time import monotonic_ns
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.listeners import Egress as EgressConfig
from gateway.config.values import TcpAddress
from gateway.errors import EgressDenied, NameUnknown, UpstreamError
from gateway.ledger import Ledger
from gateway.listeners import egress as module
from gateway.listeners import outward, verdict
from gateway.listeners.admission import Admission
from gateway.listeners.egress import Egress, is_ours
from gateway.listeners.outward import Held, connect, reach
from gateway.listeners.resolver import Resolver, by_turns, resolver_of
from gateway.listeners.verdict import KINDS, NOT_ALLOWED, OWN, Verdict, kind_of
from gateway.ranges import UNIX, read, unmapped
from gateway.reasons import EGRESS_RULES
from gateway.scoreboard import Fact, Scoreboard
from gateway.upstream.dial import dial_with
from tests.listeners.site import until
from tests.support.descriptors import descriptors
from tests.support.dns_server import DnsServer
from tests.upstream.peer import Origin, Peer, closed_port, live

NONE = "not a name"
CLIENT = "10.0.0.1"


class Shifting(DnsServer):
    """A name server that answers differently each time: with one of its lists of addresses after the other."""

    def __init__(self, *lists: list[str]) -> None:
        super().__init__()
        self._lists = lists
        self._turn = 0
        self.ttl = 0

    def _answer(self, wire: bytes) -> bytes:
        self.records["shift.test", "A"] = self._lists[self._turn % len(self._lists)]
        answer = super()._answer(wire)
        self._turn = self.asked["shift.test", "A"]
        return answer


@pytest.fixture(scope="module")
def names() -> Iterator[DnsServer]:
    with DnsServer() as server:
        server.ttl = 60
        for name, *addresses in (
            ("inside.test", "10.0.0.1"),
            ("cloud.test", "169.254.169.254"),
            ("home.test", "127.0.0.1"),
            ("mixed.test", "10.0.0.1", "8.8.8.8", "192.168.0.1"),
            ("public.test", "8.8.4.4"),
            ("xn--bcher-kva.test", "8.8.8.8"),
            ("under_score.test", "8.8.8.8"),
        ):
            server.records[name, "A"] = addresses
        server.records["six.test", "AAAA"] = ["2001:4860:4860::8888", "::1"]
        server.records["mapped.test", "AAAA"] = ["::ffff:10.0.0.1"]
        server.records["nat.test", "AAAA"] = ["64:ff9b::a00:1", "64:ff9b::808:808"]
        server.records["alias.test", "CNAME"] = ["inside.test."]
        yield server


@contextmanager
def guard(own: tuple[str, ...] = (), denied: Any = lambda rule: None, **config: Any) -> Iterator[Egress]:
    config.setdefault("ports", ["1-65535"])
    with closing(Ledger.create()) as ledger:
        one = Egress("lan", EgressConfig.model_validate(config), ledger, own, denied)
        yield one
        one.close()


def judged(host: str, port: int = 80, **more: Any) -> tuple[list[str], str]:
    """The addresses that would be dialled, or the rule that forbids them."""
    with guard(**more) as one:
        try:
            found = asyncio.run(one.admit(host, port, CLIENT))
        except EgressDenied as denied:
            assert denied.reason == "egress_denied"
            return [], denied.rule
        except NameUnknown as unknown:
            assert unknown.reason == "dns_error"
            return [], NONE
    assert {address.port for address in found} == {port}
    return [address.host for address in found], ""


# By default everything but what nobody on the internet has.

DENIED = {
    # 127.0.0.1, however it is written.
    "127.0.0.1": "loopback",
    "127.1": "loopback",
    "127.0.1": "loopback",
    "127.255.255.254": "loopback",
    "2130706433": "loopback",
    "0x7f000001": "loopback",
    "0X7F.1": "loopback",
    "0x7f.0x0.0x0.0x1": "loopback",
    "017700000001": "loopback",
    "0177.0.0.01": "loopback",
    "00000000177.1": "loopback",
    "127.0.0.1.": "loopback",
    "\uff11\uff12\uff17.0.0.1": "loopback",  # full-width digits
    "127\u30020\uff0e0\uff611": "loopback",  # ideographic and half-width full stops
    "\u2460\u2461\u2466.1": "loopback",  # digits in circles
    "localhost": "loopback",
    "LocalHost.": "loopback",
    "\uff4c\uff4f\uff43\uff41\uff4chost": "loopback",
    "any.localhost": "loopback",
    "home.test": "loopback",
    "HOME.Test.": "loopback",
    "::1": "loopback",
    "0:0:0:0:0:0:0:1": "loopback",
    "::0001": "loopback",
    "0::127.0.0.1": "loopback",  # IPv4-compatible
    "::ffff:127.0.0.1": "loopback",
    "::FFFF:7f00:1": "loopback",
    "0:0:0:0:0:ffff:7f00:0001": "loopback",
    "::ffff:0:127.0.0.1": "loopback",  # IPv4-translated
    "64:ff9b::127.0.0.1": "loopback",
    "64:ff9b::7f00:1": "loopback",
    "2002:7f00:1::": "loopback",
    "2002:7f00:0001:1234::5678": "loopback",
    "2001:0:7f00:1::": "loopback",  # Teredo: its server
    "2001:0:808:808::80ff:fffe": "loopback",  # Teredo: its client, inverted
    "2606:4700::5efe:7f00:1": "loopback",  # ISATAP
    "2606:4700::200:5efe:7f00:1": "loopback",
    # Others.
    "0": "unspecified",
    "0.0.0.0": "unspecified",
    "0x0": "unspecified",
    "0.1.2.3": "unspecified",
    "::": "unspecified",
    "10.0.0.1": "private",
    "012.1": "private",
    "0xa000001": "private",
    "172.31.255.255": "private",
    "192.168.1": "private",
    "3232235777": "private",
    "inside.test": "private",
    "alias.test": "private",
    "mapped.test": "private",
    "64:ff9b::192.168.0.1": "private",
    "100.64.0.1": "shared",
    "169.254.1.1": "link-local",
    "fe80::1": "link-local",
    "fe80::1%lo": "link-local",
    "fe80::1%1": "link-local",
    "febf::1": "link-local",
    "fec0::1": "site-local",
    "fc00::1": "unique-local",
    "fdff::1": "unique-local",
    "169.254.169.254": "metadata",
    "2852039166": "metadata",
    "0xA9FEA9FE": "metadata",
    "::ffff:a9fe:a9fe": "metadata",
    "64:ff9b::a9fe:a9fe": "metadata",
    "cloud.test": "metadata",
    "fd00:ec2::254": "metadata",
    "FD00:0EC2::0254": "metadata",
    "100.100.100.200": "metadata",
    "168.63.129.16": "metadata",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "ff0e::1": "multicast",
    "255.255.255.255": "broadcast",
    "4294967295": "broadcast",
    "240.0.0.1": "reserved",
    "192.0.0.8": "reserved",
    "192.88.99.1": "reserved",
    "100::1": "reserved",
    "2001:20::1": "reserved",
    "5f00::1": "reserved",
    "::8.8.8.8": "IPv4-compatible",
    "192.0.2.1": "documentation",
    "203.0.113.7": "documentation",
    "2001:db8::1": "documentation",
    "3fff::1": "documentation",
    "198.19.255.255": "benchmark",
    "2001:2::1": "benchmark",
    "64:ff9b:1::808:808": "local NAT64",
    "64:ff9b:1:abcd::": "local NAT64",
    # Neither an address nor a name.
    "": NONE,
    ".": NONE,
    "..": NONE,
    "a..test": NONE,
    ".test": NONE,
    "1.2.3.4.5": NONE,
    "256.1.1.1": NONE,
    "1.2.3.0x": NONE,
    "08.1.1.1": NONE,
    "4294967296": NONE,
    "127.0.0.1 ": NONE,
    " 127.0.0.1": NONE,
    "127.0.0.1\0.public.test": NONE,
    "public.test\0": NONE,
    "public.test/": NONE,
    "user@public.test": NONE,
    "public.test:80": NONE,
    "[::1]": NONE,
    "::1%lo": NONE,
    "::g": NONE,
    "1::2::3": NONE,
    "fe80::1%nowhere": NONE,
    "-a.test": NONE,
    "a-.test": NONE,
    "a b.test": NONE,
    "\N{REPLACEMENT CHARACTER}.test": NONE,
    "a\u202e.test": NONE,
    "a" * 64 + ".test": NONE,
    "\xe4" * 63 + ".test": NONE,
    "a." * 127: NONE,
    "a" * 10_000: NONE,
    "nowhere.test": NONE,
}

# What is dialled for the others.
ALLOWED = {
    "8.8.8.8": ["8.8.8.8"],
    "134744072": ["8.8.8.8"],
    "0x08080808": ["8.8.8.8"],
    "010.8.8.8": ["8.8.8.8"],
    "8.8.2056.": ["8.8.8.8"],
    "::ffff:8.8.8.8": ["8.8.8.8"],
    "::ffff:808:808": ["8.8.8.8"],
    "2001:4860:4860:0::8888": ["2001:4860:4860::8888"],
    "64:ff9b::8.8.8.8": ["64:ff9b::808:808"],
    "2002:808:808::1": ["2002:808:808::1"],
    "11.0.0.1": ["11.0.0.1"],
    "172.32.0.1": ["172.32.0.1"],
    "100.128.0.1": ["100.128.0.1"],
    "public.test": ["8.8.4.4"],
    "PUBLIC.test.": ["8.8.4.4"],
    "mixed.test": ["8.8.8.8"],
    "six.test": ["2001:4860:4860::8888"],
    "nat.test": ["64:ff9b::808:808"],
    "b\xfccher.test": ["8.8.8.8"],
    "B\xdcCHER.TEST": ["8.8.8.8"],
    "bu\u0308cher.test": ["8.8.8.8"],
    "xn--bcher-kva.test": ["8.8.8.8"],
    "under_score.test": ["8.8.8.8"],
}


@pytest.mark.parametrize("host", DENIED, ids=ascii)
def test_what_is_denied(host: str, names: DnsServer) -> None:
    assert judged(host, resolver=names.address) == ([], DENIED[host])


@pytest.mark.parametrize("host", ALLOWED, ids=ascii)
def test_what_is_not(host: str, names: DnsServer) -> None:
    assert judged(host, resolver=names.address) == (ALLOWED[host], "")


def test_an_address_is_read_as_the_system_reads_it() -> None:
    """Each spelling that is one without a look-up: what we dial is what it would have dialled."""
    for host in (*DENIED, *ALLOWED):
        try:
            [system, *_] = socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            continue
        found, rule = judged(host, allow=["0.0.0.0/0", "::/0"])
        if rule != NONE:  # what only begins as an address is refused
            assert rule == NOT_ALLOWED or [unmapped(read(str(system[4][0])))] == [read(one) for one in found], host


@given(st.ip_addresses())
def test_what_is_global_is_given_to_somebody(address: IPv4Address | IPv6Address) -> None:
    """Where Python knows that nobody is, we know it as well."""
    if not kind_of(address):
        assert address.is_global or str(address).startswith(("64:ff9b::", "2001:", "2002:")), address


def test_the_rules_that_can_be_counted() -> None:
    assert set(EGRESS_RULES) >= {"deny", "port", NOT_ALLOWED, OWN, *KINDS}


# Allow, deny, ports.


@pytest.mark.parametrize(
    ("host", "config", "rule"),
    [
        ("10.1.2.3", {"allow": ["10.0.0.0/8"]}, ""),
        ("::ffff:10.1.2.3", {"allow": ["10.0.0.0/8"]}, ""),
        ("10.1.2.3", {"allow": ["::ffff:10.0.0.0/104"]}, ""),
        ("0x0a010203", {"allow": ["10.0.0.0/8"]}, ""),
        ("8.8.8.8", {"allow": ["10.0.0.0/8"]}, NOT_ALLOWED),
        ("169.254.169.254", {"allow": ["169.254.169.254"]}, ""),
        ("10.1.2.3", {"allow": ["::/0"]}, NOT_ALLOWED),
        ("64:ff9b::10.1.2.3", {"allow": ["::/0"]}, NOT_ALLOWED),
        ("64:ff9b::10.1.2.3", {"allow": ["10.0.0.0/8"]}, NOT_ALLOWED),
        ("64:ff9b::10.1.2.3", {"allow": ["64:ff9b::/96", "10.0.0.0/8"]}, ""),
        ("64:ff9b::8.8.8.8", {"allow": ["::/0"]}, ""),
        ("2002:a01:203::1", {"allow": ["2002::/16"]}, NOT_ALLOWED),
        ("64:ff9b:1::a01:203", {"allow": ["64:ff9b:1::/48"]}, ""),
        ("fe80::1%lo", {"allow": ["fe80::/10"]}, ""),
        ("8.8.8.8", {"deny": ["8.8.8.0/24"]}, "deny 8.8.8.0/24"),
        ("8.8.8.8", {"deny": ["1.0.0.0/8", "8.8.8.8", "8.0.0.0/8"]}, "deny 8.8.8.8/32"),
        ("8.8.8.8", {"allow": ["8.8.8.8"], "deny": ["8.0.0.0/8"]}, "deny 8.0.0.0/8"),
        ("8.8.8.8", {"allow": ["public"]}, ""),
        ("2606:4700::1", {"allow": ["public"]}, ""),
        ("127.0.0.1", {"allow": ["public"]}, "loopback"),
        ("64:ff9b::10.1.2.3", {"allow": ["public"]}, "private"),
        ("8.8.8.8", {"allow": ["10.1.0.0/16", "public"]}, ""),
        ("10.1.2.3", {"allow": ["public", "10.1.0.0/16"]}, ""),
        ("::ffff:10.1.2.3", {"allow": ["public", "10.1.0.0/16"]}, ""),
        ("64:ff9b::10.1.2.3", {"allow": ["public", "10.1.0.0/16"]}, ""),
        ("10.2.2.3", {"allow": ["public", "10.1.0.0/16"]}, "private"),
        ("169.254.169.254", {"allow": ["public", "10.1.0.0/16"]}, "metadata"),
        ("2002:a02:203::1", {"allow": ["public", "2002::/16"]}, "private"),
        ("8.8.8.8", {"allow": ["public"], "deny": ["8.0.0.0/8"]}, "deny 8.0.0.0/8"),
        ("64:ff9b::8.8.8.8", {"deny": ["8.0.0.0/8"]}, "deny 8.0.0.0/8"),
        ("2002:808:808::1", {"deny": ["8.0.0.0/8"]}, "deny 8.0.0.0/8"),
        ("::ffff:8.8.8.8", {"deny": ["8.0.0.0/8"]}, "deny 8.0.0.0/8"),
        ("8.8.8.8", {"deny": ["::ffff:8.0.0.0/104"]}, "deny ::ffff:800:0/104"),
        # By each way in which a site may have cut its prefix of NAT64 (RFC 6052, section 2.2).
        ("64:ff9b:1:a01:2:300::", {"allow": ["::/0"], "deny": ["10.1.2.3"]}, "deny 10.1.2.3/32"),
        ("64:ff9b:1:ff0a:1:203::", {"allow": ["::/0"], "deny": ["10.1.2.3"]}, "deny 10.1.2.3/32"),
        ("64:ff9b:1:ffff:a:102:300:0", {"allow": ["::/0"], "deny": ["10.1.2.3"]}, "deny 10.1.2.3/32"),
        ("64:ff9b:1:ffff::a01:203", {"allow": ["::/0"], "deny": ["10.1.2.3"]}, "deny 10.1.2.3/32"),
        ("mixed.test", {"allow": ["192.168.0.0/16"]}, ""),
    ],
)
def test_allow_and_deny(host: str, config: dict[str, Any], rule: str, names: DnsServer) -> None:
    found, by = judged(host, resolver=names.address, **config)
    assert (by, bool(found)) == (rule, not rule)


@pytest.mark.parametrize(("port", "rule"), [(80, ""), (443, ""), (22, "port 22"), (0, "port 0"), (65535, "port 65535")])
def test_ports(port: int, rule: str) -> None:
    assert judged("8.8.8.8", port, ports=["80", "443"])[1] == rule


def test_of_a_port_that_is_denied_no_name_is_looked_up(names: DnsServer) -> None:
    assert judged("never.test", 25, ports=["80"], resolver=names.address)[1] == "port 25"
    assert not names.asked["never.test", "A"]


# The gateway itself.


def addresses_of_this_machine() -> set[str]:
    found = socket.getaddrinfo(socket.gethostname(), None)
    return {"127.0.0.1", "::1"} | {str(one[4][0]) for one in found if is_ours(str(one[4][0]))}


@pytest.mark.parametrize(
    ("host", "own", "is_own"),
    [
        ("127.0.0.1", "127.0.0.1:80", True),
        ("0x7f.1", "127.0.0.1:80", True),
        ("::ffff:127.0.0.1", "127.0.0.1:80", True),
        ("64:ff9b::7f00:1", "127.0.0.1:80", True),
        ("64:ff9b:1::7f00:1", "127.0.0.1:80", True),
        ("64:ff9b:1:7f00:0:100::", "127.0.0.1:80", True),
        ("home.test", "127.0.0.1:80", True),
        ("0.0.0.0", "127.0.0.1:80", True),
        ("::", "[::1]:80", True),
        ("::1", "[::1]:80", True),
        ("127.0.0.2", "127.0.0.1:80", False),
        ("127.9.9.9", "0.0.0.0:80", True),
        ("127.9.9.9", "[::]:80", True),
        ("::1", "[::]:80", True),
        ("::1", "0.0.0.0:80", False),
        ("127.0.0.1", "0.0.0.0:81", False),
        ("8.8.8.8", "[::]:80", False),
        ("8.8.8.8", "8.8.8.8:80", True),
        ("127.0.0.1", "unix:/run/gateway:80", False),
    ],
)
def test_the_gateway_is_never_a_target(host: str, own: str, is_own: bool, names: DnsServer) -> None:
    found, rule = judged(host, own=(own,), allow=["0.0.0.0/0", "::/0"], resolver=names.address)
    assert (rule == OWN) is is_own
    assert bool(found) is not is_own


def test_a_listener_everywhere_is_at_each_address_of_this_machine() -> None:
    for address in addresses_of_this_machine():
        assert judged(address, own=("[::]:80",), allow=["0.0.0.0/0", "::/0"])[1] == OWN


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_addresses_that_are_ours(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_ours(address)
    monkeypatch.setattr(module, "_binds_anything", lambda is_six: True)
    assert is_ours(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "10.255.255.254", "fe80::1%1"])
def test_addresses_that_are_not(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_ours(address)
    monkeypatch.setattr(module, "_binds_anything", lambda is_six: True)
    assert not is_ours(address)


@live
async def test_what_was_judged_before_is_judged_anew_where_it_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the configuration says of an address is remembered, and not whether it is ours, nor for which port."""
    ours: list[str] = []
    monkeypatch.setattr(module, "is_ours", lambda address: address in ours)
    monkeypatch.setattr(verdict, "_MOST_KNOWN", 1)
    with guard(own=("0.0.0.0:80",), ports=["80", "81"]) as one:
        for _ in range(2):
            for host in ("8.8.8.8", "8.8.4.4", "64:ff9b::808:808"):
                for port in (80, 81):
                    assert len(await one.admit(host, port, CLIENT)) == len(one.known(host, port) or ()) == 1
        ours.append("8.8.8.8")
        for host in ("8.8.8.8", "64:ff9b::808:808"):
            with pytest.raises(EgressDenied) as denied:
                one.known(host, 80)
            assert denied.value.rule == OWN
            assert one.known(host, 81)
        assert len(one._verdict._known) == 1


# Names.


@live
async def test_the_address_that_passed_is_the_one_that_is_dialled() -> None:
    """The name server answers with another address each time, and there is somebody at both."""

    async def handler(peer: Peer) -> None:
        await peer.ends()

    async with Origin(handler) as good, Origin(handler, host="127.0.0.2", port=good.port) as bad:
        server = Shifting(["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2", "127.0.0.1"])
        with server, guard(allow=["127.0.0.1"], resolver=server.address) as one:
            outcomes = []
            for _ in range(9):
                try:
                    held, address = await reach(one, CLIENT, "shift.test", good.port, 10.0, room())
                    assert held.transport.get_extra_info("peername")[0] == address.host
                    held.transport.abort()
                    outcomes.append(address.host)
                except EgressDenied as denied:
                    outcomes.append(denied.rule)
        await until(lambda: good.accepted == 6)
        assert outcomes == ["127.0.0.1", NOT_ALLOWED, "127.0.0.1"] * 3
        assert bad.accepted == 0


@live
async def test_a_name_is_looked_up_once_for_all_who_ask(names: DnsServer) -> None:
    before = names.asked["public.test", "A"]
    with guard(resolver=names.address) as one:
        asked = [asyncio.ensure_future(one.admit(name, 80, CLIENT)) for name in ("public.test", "Public.TEST.") * 10]
        asked[0].cancel()  # the one for whom it was begun
        found = await asyncio.gather(*asked[1:])
        assert found == [[TcpAddress("8.8.4.4", 80)]] * 19
        assert await one.admit("public.test", 81, CLIENT)
    assert names.asked["public.test", "A"] == before + 1


@live
async def test_how_long_an_answer_is_remembered(names: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = resolver_of(names.address)
    before = names.asked["public.test", "A"]
    now = 1000.0
    monkeypatch.setattr("gateway.listeners.resolver.monotonic", lambda: now)
    for later, asked in ((0.0, 1), (4.9, 1), (5.1, 2)):
        now = 1000.0 + later
        assert await resolver.addresses("public.test") == ("8.8.4.4",)
        assert names.asked["public.test", "A"] == before + asked
    for later, asked in ((0.0, 1), (0.9, 1), (1.1, 2)):
        now = 2000.0 + later
        with pytest.raises(NameUnknown, match="does not exist"):
            await resolver.addresses("gone.test")
        assert names.asked["gone.test", "A"] == asked
    names.says["gone.test"] = "SERVFAIL"
    now = 3000.0
    with pytest.raises(NameUnknown, match="no name server has an answer"):
        await resolver.addresses("gone.test")


class Counted:
    """A source of addresses that answers when it is told to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked: list[str] = []

    async def addresses(self, name: str) -> tuple[list[str], float]:
        self.asked.append(name)
        await self.gate.wait()
        return ["8.8.8.8"], 60.0


@live
async def test_no_more_than_so_many_names_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners.resolver._WAITING", 3)
    source = Counted()
    resolver = Resolver(source)
    asks = [asyncio.ensure_future(resolver.addresses(f"{number}.test")) for number in range(3)]
    await until(lambda: len(source.asked) == 3)
    with pytest.raises(NameUnknown, match="too many names"):
        await resolver.addresses("3.test")
    again = asyncio.ensure_future(resolver.addresses("0.test"))
    source.gate.set()
    assert await asyncio.gather(*asks, again) == [("8.8.8.8",)] * 4
    assert await resolver.addresses("3.test") == ("8.8.8.8",)


@live
async def test_a_name_that_nobody_waits_for_leaves_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners.resolver._WAITING", 2)
    source = Counted()
    resolver = Resolver(source, at_once=1)
    one, two = (asyncio.ensure_future(resolver.addresses("a.test")) for _ in range(2))
    other = asyncio.ensure_future(resolver.addresses("b.test"))
    await until(lambda: len(resolver._lookups) == 2)
    one.cancel()
    other.cancel()
    await until(lambda: one.done() and other.done())
    third = asyncio.ensure_future(resolver.addresses("c.test"))  # there is room again for one
    await until(lambda: len(resolver._lookups) == 2)
    with pytest.raises(NameUnknown, match="too many names"):
        await resolver.addresses("b.test")
    source.gate.set()
    assert [await two, await third] == [("8.8.8.8",)] * 2  # "a.test" was still waited for
    assert source.asked == ["a.test", "c.test"]


@live
async def test_what_was_asked_takes_its_place_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners.resolver._WAITING", 1)
    source = Counted()
    resolver = Resolver(source)
    ask = asyncio.ensure_future(resolver.addresses("a.test"))
    await until(lambda: source.asked)
    ask.cancel()
    await until(ask.done)
    with pytest.raises(NameUnknown, match="too many names"):
        await resolver.addresses("b.test")
    again = asyncio.ensure_future(resolver.addresses("a.test"))
    await asyncio.sleep(0)
    source.gate.set()
    assert await again == await resolver.addresses("b.test") == ("8.8.8.8",)
    assert source.asked == ["a.test", "b.test"]


@live
async def test_one_client_has_so_many_names_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that it has begun, until they are over: to leave them, or to wait for what others have begun, changes
    nothing."""
    monkeypatch.setattr("gateway.listeners.resolver._OF_CLIENT", 2)
    source = Counted()
    with guard() as one:
        one._resolver = Resolver(source, at_once=2)

        async def asks(*names: str, client: str = CLIENT) -> list[asyncio.Task[list[TcpAddress]]]:
            begun = [asyncio.ensure_future(one.admit(name, 80, client)) for name in names]
            await asyncio.sleep(0)
            return begun

        left, kept = await asks("a.test", "b.test", client="2001:db8::1")
        await until(lambda: len(source.asked) == 2)
        left.cancel()
        for client in ("2001:db8::1", "2001:db8::2"):
            with pytest.raises(NameUnknown, match="too many names"):
                await one.admit("c.test", 80, client)
        others = await asks("c.test", "d.test")
        shared = await asks("a.test", "c.test", "d.test", client="2001:db8::1")
        others += await asks(*(f"{number}.test" for number in range(9)), client=UNIX)
        [in_line] = await asks("e.test", client="2001:db8:0:1::1")
        in_line.cancel()
        await until(in_line.done)
        others += await asks("f.test", "g.test", client="2001:db8:0:1::1")
        source.gate.set()
        assert await asyncio.gather(kept, *others, *shared) == [[TcpAddress("8.8.8.8", 80)]] * 17
        assert await one.admit("h.test", 80, "2001:db8::1")
        assert not one._resolver._begun


@live
async def test_a_thread_that_nobody_waits_for_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners.resolver._THREADS", 1)
    begun, gate = [], threading.Event()

    def slowly(name: str, port: None, **more: Any) -> list[Any]:
        begun.append(name)
        gate.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    resolver = resolver_of(None)
    first = asyncio.ensure_future(resolver.addresses("a.test"))
    await until(lambda: begun)
    first.cancel()
    second = asyncio.ensure_future(resolver.addresses("b.test"))
    await asyncio.sleep(0)
    assert begun == ["a.test"]
    gate.set()
    with pytest.raises(NameUnknown, match="not known"):
        await second
    assert begun == ["a.test", "b.test"]


@live
async def test_of_a_name_with_many_addresses_some_are_tried() -> None:
    with DnsServer() as server:
        server.records["many.test", "A"] = [f"8.8.{number}.1" for number in range(30)]
        with guard(resolver=server.address) as one:
            assert len(await one.admit("many.test", 80, CLIENT)) == 16


@live
async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.listeners.resolver._MOST_KEPT", 10)
    source = Counted()
    source.gate.set()
    resolver = Resolver(source)
    for number in range(100):
        await resolver.addresses(f"{number}.test")
        assert len(resolver._known) <= 10


@live
async def test_a_resolver_that_ends() -> None:
    source = Counted()
    resolver = Resolver(source, at_once=1)
    asked, in_line = (asyncio.ensure_future(resolver.addresses(name)) for name in ("a.test", "b.test"))
    await until(lambda: source.asked and len(resolver._lookups) == 2)
    resolver.close()
    with pytest.raises(NameUnknown, match="not looked up to the end"):
        await in_line
    source.gate.set()
    assert await asked and source.asked == ["a.test"]


@live
async def test_this_machine_s_own_way() -> None:
    with guard(allow=["127.0.0.0/8", "::1"]) as one:
        assert TcpAddress("127.0.0.1", 80) in await one.admit("localhost", 80, CLIENT)
        with pytest.raises(NameUnknown):
            await one.admit("does-not-exist.invalid", 80, CLIENT)


@given(st.lists(st.sampled_from(["1.1.1.1", "2.2.2.2", "3.3.3.3", "::1", "::2", "::3"])))
def test_families_take_turns(addresses: list[str]) -> None:
    turns = by_turns(addresses)
    assert sorted(turns) == sorted(set(addresses))
    assert turns[:1] == tuple(addresses[:1])
    sixes = [":" in one for one in turns]
    while sixes and any(one != sixes[0] for one in sixes):
        assert sixes[0] is not sixes[1]
        sixes.pop(0)


# Dialling.


def room(descriptors: int = 1000) -> Admission:
    """So many are left."""
    one = Admission(memoryview(bytearray(8 * Fact.SERIES)).cast("Q"), 0)
    one.limit(descriptors, ())
    return one


@contextmanager
def silence() -> Iterator[socket.socket]:
    """Somebody at every address of this machine who answers nobody: the queue is full."""
    with socket.create_server(("0.0.0.0", 0), backlog=0) as full, socket.create_connection(full.getsockname()):
        yield full


def at(sock: socket.socket, count: int) -> list[TcpAddress]:
    return [TcpAddress(f"127.0.0.{number + 1}", sock.getsockname()[1]) for number in range(count)]


def attempts() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "attempt"]


async def stay(peer: Peer) -> None:
    await peer.ends()


@live
async def test_the_next_address_is_tried() -> None:
    async def handler(peer: Peer) -> None:
        await peer.send(b"here")

    async with Origin(handler) as origin:
        dead = [TcpAddress("127.0.0.1", closed_port()), TcpAddress("::1", closed_port())]
        held, address = await connect([*dead, TcpAddress("127.0.0.1", origin.port)], 60.0, room())
        assert str(address) == origin.address
        await until(lambda: held.closed or held._before)
        assert held.detach()[1] == b"here"
        held.transport.abort()
        with pytest.raises(UpstreamError) as failure:
            await connect(dead, 60.0, room())
        assert failure.value.reason == "connection_refused" and failure.value.endpoint == str(dead[-1])


@live
async def test_who_does_not_answer_takes_no_part_of_the_time() -> None:
    """A half of it would be more than this test has."""
    with silence() as silent:
        async with Origin(stay) as origin:
            held, address = await connect([*at(silent, 1), TcpAddress("127.0.0.1", origin.port)], 60.0, room())
            assert str(address) == origin.address
            held.transport.abort()


@pytest.mark.parametrize("count", [1, 3])
@live
async def test_nobody_answers(count: int) -> None:
    with silence() as silent:
        with pytest.raises(UpstreamError, match=r"no connection within 0\.1 s") as failure:
            await connect(at(silent, count), 0.1, room())
        assert failure.value.reason == "connection_timeout"


@live
async def test_the_first_may_win_after_others_have_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outward, "_DELAY", 0.001)
    with silence() as slow, silence() as silent:
        race = asyncio.ensure_future(connect([*at(slow, 1), *at(silent, 2)], 60.0, room()))
        await until(lambda: len(attempts()) == 3)
        slow.accept()[0].close()  # and the kernel asks again after a second
        held, address = await race
        assert [address] == at(slow, 1)
        held.transport.abort()
        await until(lambda: not attempts())


@pytest.mark.parametrize(("left", "most"), [(1000, 4), (2, 3)])
@live
async def test_so_many_addresses_at_a_time(left: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each beside one is counted; who is silent gives way where there is no room for another."""
    monkeypatch.setattr(outward, "_DELAY", 0.01)
    seen = []

    async def watched(*args: Any) -> Held:
        seen.append((len(attempts()), admission._more))
        return await dial_with(*args)

    monkeypatch.setattr(outward, "dial_with", watched)
    admission = room(left)
    with silence() as silent:
        async with Origin(stay) as origin:
            held, address = await connect([*at(silent, 9), TcpAddress("127.0.0.1", origin.port)], 60.0, admission)
            assert str(address) == origin.address
            held.transport.abort()
    assert seen == [(min(number, most), min(number, most) - 1) for number in range(1, 11)]
    assert admission._more == 0


@live
async def test_nothing_is_left_of_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wins, or gives up, however many come in at the same time."""
    monkeypatch.setattr(outward, "_DELAY", 0.0)
    with silence() as silent:
        async with Origin(stay) as one, Origin(stay, host="127.0.0.2") as two:
            there = [*at(silent, 1), TcpAddress("127.0.0.1", one.port), TcpAddress("127.0.0.2", two.port)]
            admission = room()

            async def race(turns: int) -> str:
                asked = asyncio.ensure_future(connect(there, 60.0, admission))
                for _ in range(turns):
                    await asyncio.sleep(0)
                asked.cancel()
                try:
                    held, address = await asked
                except asyncio.CancelledError:
                    return ""
                held.transport.abort()
                return address.host

            before = descriptors()
            winners = [await race(turns) for turns in (1000, *range(60))]
            assert "" in winners and any(winners)
            await until(lambda: not attempts() and descriptors() <= before)
            assert admission._more == 0


@live
async def test_looking_up_is_part_of_the_time() -> None:
    with guard() as one:
        one._resolver = Resolver(Counted())
        with pytest.raises(UpstreamError, match="not looked up within") as failure:
            await reach(one, CLIENT, "slow.test", 80, 0.05, room())
        assert failure.value.reason == "connection_timeout"
        one._resolver.close()


# Caps.

SECOND = 10**9


def denial(one: Egress, client: str = CLIENT, user: str = "") -> tuple[str, str]:
    with pytest.raises(EgressDenied) as found:
        one.enter(client, user)
    return found.value.reason, found.value.rule


def test_tunnels_at_a_time() -> None:
    told: list[str] = []
    with guard(denied=told.append, max_tunnels_per_client=2, max_tunnels_per_user=3) as one:
        tickets = [one.enter("10.0.0.1", "ann"), one.enter("10.0.0.1", "ann")]
        assert denial(one, "10.0.0.1", "ann") == ("tunnel_limit", "max_tunnels_per_client")
        with one.enter("10.0.0.2", "ann"):
            assert denial(one, "10.0.0.2", "ann") == ("tunnel_limit", "max_tunnels_per_user")
            one.enter("10.0.0.2").close()  # what the refused one held of the client was given back
        tickets.pop().close()
        with one.enter("10.0.0.1", "ann"):
            assert denial(one, "::ffff:10.0.0.1", "bob")[1] == "max_tunnels_per_client"
        tickets.pop().close()
    assert told == ["max_tunnels_per_client", "max_tunnels_per_user", "max_tunnels_per_client"]


def test_of_ipv6_a_client_is_a_network() -> None:
    with guard(max_tunnels_per_client=1) as one, one.enter("2001:db8::1"):
        assert denial(one, "2001:db8::ffff")[0] == "tunnel_limit"
        one.enter("2001:db8:0:1::1").close()


def test_caps_of_one_egress_are_no_others_business() -> None:
    config = EgressConfig(max_tunnels_per_client=1)
    with closing(Ledger.create()) as ledger, Egress("a", config, ledger).enter("10.0.0.1"):
        Egress("b", config, ledger).enter("10.0.0.1").close()
        assert denial(Egress("a", config, ledger))[0] == "tunnel_limit"


def test_without_caps_nothing_is_held_and_nothing_charged() -> None:
    with guard() as one, one.enter("10.0.0.1", "ann") as ticket:
        assert ticket.bounds() == (float("inf"), float("inf"), float("inf"), None)
        assert ticket.charge(1 << 60, 1e9)


def test_bounds_of_a_tunnel() -> None:
    with guard(max_bytes="1MiB", max_duration="1h", bytes_per_user="1GiB") as one:
        ticket = one.enter("10.0.0.1", "ann")
        assert ticket.bounds(1000.0)[:3] == (3600.0, 1000.0, 1 << 20)
        assert ticket.bounds().charge == ticket.charge


@pytest.mark.parametrize("whom", ["client", "user"])
def test_a_quota_of_bytes(whom: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = monotonic_ns()
    monkeypatch.setattr("gateway.ledger.monotonic_ns", lambda: now)
    monkeypatch.setattr(module, "monotonic_ns", lambda: now)
    quota: dict[str, Any] = {f"bytes_per_{whom}": "1000B"}
    with guard(window="100s", **quota) as one:
        other = ("10.0.0.2", "ann") if whom == "client" else ("10.0.0.1", "bob")
        with one.enter("10.0.0.1", "ann") as first, one.enter("10.0.0.1", "ann") as second:
            assert first.charge(400, 7.0) and second.charge(600, 7.0)  # to the last byte
            assert denial(one, user="ann") == ("quota_exhausted", f"bytes_per_{whom}")
            assert not first.charge(500, 1.0)  # and what went before it was told counts, too
            one.enter(*other).close()
            now += 50 * SECOND
            assert denial(one, user="ann")[0] == "quota_exhausted"
            now += SECOND // 10
            with one.enter("10.0.0.1", "ann") as third:
                assert third.charge(1, 0.1) and not third.charge(1, 0.1)


def test_a_quota_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = monotonic_ns()
    monkeypatch.setattr("gateway.ledger.monotonic_ns", lambda: now)
    monkeypatch.setattr(module, "monotonic_ns", lambda: now)
    with guard(time_per_client="10s", window="1h") as one, one.enter("10.0.0.1") as ticket:
        assert ticket.charge(1 << 40, 9.5)
        assert not ticket.charge(0, 1.0)
        assert denial(one) == ("quota_exhausted", "time_per_client")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_processes_share_the_caps() -> None:
    """Four workers open tunnels as fast as they can, and charge them."""
    config = EgressConfig.model_validate({"max_tunnels_per_client": 3, "bytes_per_client": "1MiB", "window": "8760h"})
    board, ledger = Scoreboard.create(), Ledger.create()
    pipes = begun, go, tickets, counted, done, end = (*os.pipe(), *os.pipe(), *os.pipe())
    pids = []
    for number in range(1, 5):
        seat = board.take(number, [])
        seat[Fact.STARTED] = number
        pid = os.fork()
        if not pid:
            try:
                signal.alarm(30)
                ledger.sit(board, number)
                one = Egress("lan", config, ledger)
                os.read(begun, 1)
                held = []
                for _ in range(4):
                    with suppress(EgressDenied):
                        held.append(one.enter("10.0.0.1"))
                        held[-1].charge(1 << 18, 1.0)
                os.write(counted, bytes((len(held),)))
                os.read(done, 1)  # they are open until all have tried
            finally:
                os._exit(0)
        seat[Fact.PID] = pid
        pids.append(pid)
    os.write(go, b"1234")
    opened = [os.read(tickets, 1) for _ in pids]
    ledger.sit(board, 5)
    here = Egress("lan", config, ledger)
    refused = denial(here)
    os.write(end, b"1234")
    for pid in pids:
        os.waitpid(pid, 0)
    assert sum(map(ord, opened)) == 3
    assert refused == ("tunnel_limit", "max_tunnels_per_client")
    for number in range(1, 5):
        board.seat(number)[Fact.PID] = 0  # as the master buries them
    with here.enter("10.0.0.1") as last:
        assert last.charge((1 << 18) - 1000, 1.0)
        assert not last.charge(2000, 1.0)
    assert denial(here) == ("quota_exhausted", "bytes_per_client")
    for fd in pipes:
        os.close(fd)
    board.close()
    ledger.close()


def test_a_verdict_needs_an_address() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        Verdict(EgressConfig()).on_address("nowhere", 80, is_ours)
