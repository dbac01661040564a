"""Endpoints by name, from a server that answers what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import DiscoveryError
from gateway.upstream.discovery import Found, dns
from gateway.upstream.discovery.dns import Dns
from tests.support.dns_server import DnsServer
from tests.upstream.discovery import addresses, looked_up


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as one:
        yield one


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    return tmp_path / "hosts"


class Asker:
    """A discovery of one upstream, asked from outside of any event loop."""

    def __init__(self, server: DnsServer, hosts: Path = Path("/nonexistent"), **config: Any) -> None:
        given = config if "srv" in config else {"name": "app.test", "port": 80} | config
        self.dns = Dns(looked_up(kind="dns", resolver=[server.address], **given), hosts)

    def find(self) -> Found:
        return asyncio.run(self.dns.find())

    def names(self) -> list[str]:
        return addresses(self.find().endpoints)

    def fails(self) -> str:
        with pytest.raises(DiscoveryError) as caught:
            self.find()
        return str(caught.value)


def test_addresses_of_both_families_in_one_order(server: DnsServer) -> None:
    server.records["app.test", "A"] = ["10.0.0.2", "10.0.0.1"]
    server.records["app.test", "AAAA"] = ["2001:db8::1"]
    server.ttl = 7
    found = Asker(server).find()
    assert addresses(found.endpoints) == ["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"]
    assert (found.again, found.trouble) == (7, "")
    server.records["app.test", "A"].reverse()
    assert Asker(server).find() == found


@pytest.mark.parametrize(("family", "kind", "expected"), [("ipv4", "A", "10.0.0.1:80"), ("ipv6", "AAAA", "[::2]:80")])
def test_one_family(server: DnsServer, family: str, kind: str, expected: str) -> None:
    server.records["app.test", "A"] = ["10.0.0.1"]
    server.records["app.test", "AAAA"] = ["::2"]
    assert Asker(server, family=family).names() == [expected]
    assert server.asked == {("app.test", kind): 1}


@pytest.mark.parametrize(("ttl", "refresh", "again"), [(0, "30s", 1), (20, "30s", 20), (300, "30s", 30), (9, "1ms", 1)])
def test_an_answer_holds_as_long_as_it_says_within_bounds(
    server: DnsServer, ttl: int, refresh: str, again: float
) -> None:
    server.records["app.test", "A"] = ["10.0.0.1"]
    server.ttl = ttl
    assert Asker(server, refresh=refresh).find().again == again


@pytest.mark.parametrize("follows", [True, False])
def test_aliases_are_followed(server: DnsServer, follows: bool) -> None:
    server.follows = follows
    server.records["app.test", "CNAME"] = ["front.test."]
    server.records["front.test", "CNAME"] = ["pods.test."]
    server.records["pods.test", "A"] = ["10.0.0.1"]
    assert Asker(server).names() == ["10.0.0.1:80"]
    if not follows:
        server.records["pods.test", "CNAME"] = ["app.test."]
        del server.records["pods.test", "A"]
        assert Asker(server).fails() == "app.test has no A record"


def test_an_answer_that_is_too_long_for_udp(server: DnsServer) -> None:
    many = [f"10.0.{number}.1" for number in range(200)]
    server.records["app.test", "A"] = many
    assert Asker(server, family="ipv4").names() == sorted(f"{address}:80" for address in many)


def test_services(server: DnsServer) -> None:
    server.records["_http._tcp.test", "SRV"] = [
        "10 3 8001 a.test.",
        "10 0 8002 b.test.",
        "20 9 8003 c.test.",
        "20 9 8001 a.test.",  # the same as a backup: it is none
        "10 1 0 a.test.",
    ]
    server.records["a.test", "A"] = ["10.0.0.1"]
    server.records["b.test", "AAAA"] = ["::2"]
    server.records["c.test", "A"] = ["10.0.0.3", "10.0.0.4"]
    found = Asker(server, srv="_http._tcp.test").find()
    assert [(str(one.address), one.weight, one.backup) for one in found.endpoints] == [
        ("10.0.0.1:8001", 3, False),
        ("10.0.0.3:8003", 9, True),
        ("10.0.0.4:8003", 9, True),
        ("[::2]:8002", 1, False),
    ]
    assert found.trouble == ""
    server.says["c.test"] = "SERVFAIL"
    asker = Asker(server, srv="_http._tcp.test")
    found = asker.find()
    assert addresses(found.endpoints) == ["10.0.0.1:8001", "[::2]:8002"]
    assert found.trouble == "no resolver has an answer for c.test"


def test_a_service_that_says_that_there_is_none(server: DnsServer) -> None:
    server.records["_http._tcp.test", "SRV"] = ["0 0 0 ."]
    asker = Asker(server, srv="_http._tcp.test")
    assert asker.fails() == asker.fails() == "_http._tcp.test has no SRV record"
    assert asker.find().endpoints == ()


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ("SERVFAIL", "no resolver has an answer for app.test"),
        ("REFUSED", "no resolver has an answer for app.test"),
        ("", "no resolver answers within 0.3 s for app.test"),
    ],
)
def test_the_last_answer_holds_while_a_resolver_is_ill(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch, says: str, sentence: str
) -> None:
    monkeypatch.setattr(dns, "_LIFETIME", 0.3)
    asker = Asker(server)
    server.says["app.test"] = says
    assert asker.fails() == sentence
    del server.says["app.test"]
    server.records["app.test", "A"] = ["10.0.0.1"]
    assert asker.names() == ["10.0.0.1:80"]
    server.says["app.test"] = says
    for _ in range(5):
        found = asker.find()
        assert (addresses(found.endpoints), found.trouble) == (["10.0.0.1:80"], sentence)
        assert found.again == 5
    del server.says["app.test"]
    server.records["app.test", "A"] = ["10.0.0.2"]
    assert (asker.find().trouble, asker.names()) == ("", ["10.0.0.2:80"])


def test_nobody_listens_where_a_resolver_should_be(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "_LIFETIME", 0.3)
    server.stop()
    assert Asker(server).fails() == "no resolver answers within 0.3 s for app.test"


def test_a_name_is_gone_when_that_was_said_three_times_in_a_row(server: DnsServer) -> None:
    server.records["app.test", "A"] = ["10.0.0.1"]
    asker = Asker(server)
    assert asker.names() == ["10.0.0.1:80"]
    kept = server.records.pop(("app.test", "A"))
    for _ in range(2):
        found = asker.find()
        assert (addresses(found.endpoints), found.trouble) == (["10.0.0.1:80"], "app.test does not exist")
    server.says["app.test"] = "SERVFAIL"  # then it is not in a row
    assert asker.names() == ["10.0.0.1:80"]
    del server.says["app.test"]
    assert asker.names() == asker.names() == ["10.0.0.1:80"]
    found = asker.find()
    assert (found.endpoints, found.trouble) == ((), "app.test does not exist")
    server.records["app.test", "A"] = kept
    assert asker.names() == ["10.0.0.1:80"]


def test_one_family_goes_while_the_other_stays(server: DnsServer) -> None:
    server.records["app.test", "A"] = ["10.0.0.1"]
    server.records["app.test", "AAAA"] = ["::1"]
    asker = Asker(server)
    both = asker.names()
    del server.records["app.test", "AAAA"]
    assert asker.names() == asker.names() == both
    found = asker.find()
    assert (addresses(found.endpoints), found.trouble) == (["10.0.0.1:80"], "")


def test_a_name_that_never_was_is_asked_for_less_and_less_often(server: DnsServer) -> None:
    asker = Asker(server, refresh="10s")
    waits = []
    for _ in range(2):
        with pytest.raises(DiscoveryError, match=r"^app\.test does not exist$") as caught:
            asker.find()
        waits.append(caught.value.again)
    for _ in range(3):
        found = asker.find()
        assert (found.endpoints, found.trouble) == ((), "app.test does not exist")
        waits.append(found.again or 0)
    assert waits == [1, 2, 4, 8, 10]


@pytest.mark.parametrize(
    ("name", "family", "expected", "again"),
    [
        ("10.1.2.3", "any", ["10.1.2.3:80"], None),
        ("2001:DB8::1", "any", ["[2001:db8::1]:80"], None),
        ("localhost", "any", ["127.0.0.1:80", "[::1]:80"], None),
        ("App.LocalHost.", "ipv4", ["127.0.0.1:80"], None),
        ("here.test", "any", ["10.9.9.1:80", "10.9.9.2:80", "[::9]:80"], 30),
        ("alias", "ipv4", ["10.9.9.1:80"], 30),
    ],
)
def test_names_that_no_resolver_is_asked_for(
    server: DnsServer, hosts: Path, name: str, family: str, expected: list[str], again: float | None
) -> None:
    hosts.write_text(
        "# ours\n10.9.9.1 Here.test alias # and so on\n::9\there.test\n10.9.9.2 here.test\nnonsense here.test\n\n"
    )
    found = Asker(server, hosts, name=name, family=family).find()
    assert (addresses(found.endpoints), found.again, found.trouble) == (expected, again, "")
    assert not server.asked


def test_an_address_of_the_other_family(server: DnsServer) -> None:
    found = Asker(server, name="10.0.0.1", family="ipv6").find()
    assert (found.endpoints, found.trouble) == ((), "10.0.0.1 has no address of the family ipv6")


def test_a_name_that_can_not_be_one(server: DnsServer) -> None:
    assert Asker(server, name="a..test").fails().endswith("for a..test")


def test_the_first_resolver_that_answers(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "_PATIENCE", 0.1)
    server.records["app.test", "A"] = ["10.0.0.1"]
    with DnsServer() as dead:
        pass
    config = looked_up(kind="dns", name="app.test", port=80, resolver=[dead.address, server.address])
    assert addresses(asyncio.run(Dns(config).find()).endpoints) == ["10.0.0.1:80"]
