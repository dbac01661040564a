"""Endpoints by name: addresses (A, AAAA), or services (SRV) with their priorities and weights.

A resolver that is ill must not empty an upstream. While it is silent or says SERVFAIL the last answer holds; that a
name does not exist, or has no such records any more, is believed when it was said three times in a row. Each question
is looked after by itself, so what holds for one address family or one target does not depend on the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.resolver

from gateway.config.upstreams import Endpoint, Upstream
from gateway.errors import DiscoveryError
from gateway.upstream.discovery.discovery import Discovery, Found
from gateway.upstream.nameservers import NameServers

_PATIENCE = 1.0  # seconds with one resolver before the next is asked
_LIFETIME = 5.0  # seconds for one question, all resolvers and repetitions together
_CONFIRMED = 3  # times in a row that a name is gone before it is believed
_CONFIRM = 5.0  # seconds between two questions while something holds that was not confirmed just now
_FIRST = 1.0  # seconds after which to ask again when nothing was ever answered; doubled each time
_SOONEST = 1.0
_MOST_UNDER_WAY = 32  # questions at once
_KINDS = {"any": ("A", "AAAA"), "ipv4": ("A",), "ipv6": ("AAAA",)}
_LOOPBACK = {"A": "127.0.0.1", "AAAA": "::1"}
_HOSTS = Path("/etc/hosts")

_Record = tuple[int, int, int, str]  # priority, weight, port and name of a service; of an address the last one only


@dataclass(slots=True)
class _Question:
    """What is known about one question."""

    records: tuple[_Record, ...] | None = None  # None: nothing yet
    missed: int = 0  # times in a row that there was none


@dataclass(slots=True)
class _Round:
    """What comes out of one look."""

    ttls: list[float] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # why something holds that was not confirmed just now
    unknown: list[str] = field(default_factory=list)  # why something is not known at all
    missing: list[str] = field(default_factory=list)  # what is known not to be there


class Dns(Discovery):
    def __init__(self, upstream: Upstream, hosts: Path = _HOSTS) -> None:
        """hosts: the file that goes before any resolver, as it does for other programs of the machine."""
        config = upstream.discovery
        assert config is not None
        self._config = config
        self._refresh = max(_SOONEST, config.refresh)
        self._hosts_file = hosts
        self._hosts: dict[str, list[str]] = {}
        self._servers = NameServers(config.resolver)
        self._questions: dict[tuple[str, str], _Question] = {}
        self._asked: set[tuple[str, str]] = set()
        self._turn = asyncio.Semaphore(_MOST_UNDER_WAY)
        self._failures = 0  # looks in a row without any answer

    async def find(self) -> Found:
        resolver = self._resolver()
        self._hosts = _read_hosts(self._hosts_file)
        self._asked = set()
        now = _Round()
        config = self._config
        if config.srv is not None:
            services = sorted(await self._ask(resolver, config.srv, "SRV", now))
        else:
            services = [(0, 1, config.port or 0, config.name or "")]
        hosts = dict.fromkeys(target for _, _, _, target in services)
        found = await asyncio.gather(*(self._addresses(resolver, host, now) for host in hosts))
        addresses = dict(zip(hosts, found, strict=True))
        self._questions = {key: known for key, known in self._questions.items() if key in self._asked}
        endpoints: dict[str, Endpoint] = {}
        for priority, weight, port, target in services:
            for address in addresses[target]:
                text = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
                if text not in endpoints:  # the first has the better priority
                    endpoints[text] = _endpoint(text, weight, priority > services[0][0])
        return self._found(tuple(endpoints[text] for text in sorted(endpoints)), now)

    def _found(self, endpoints: tuple[Endpoint, ...], now: _Round) -> Found:
        if endpoints:
            self._failures = 0
            wrong = now.kept + now.unknown
            if wrong:
                return Found(endpoints, min(self._refresh, _CONFIRM), wrong[0])
            again = min(now.ttls, default=None)
            trouble = now.missing[0] if now.missing else ""
            return Found(endpoints, None if again is None else min(self._refresh, max(_SOONEST, again)), trouble)
        again = min(self._refresh, _FIRST * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        if now.unknown or now.kept:
            raise DiscoveryError((now.unknown + now.kept)[0], again)
        return Found((), again, now.missing[0] if now.missing else "there is nothing to look up")

    async def _addresses(self, resolver: dns.asyncresolver.Resolver, host: str, now: _Round) -> Iterable[str]:
        """The addresses of a host."""
        kinds = _KINDS[self._config.family]
        local = self._local(host, now)
        if local is not None:
            records = [address for address in local if ("AAAA" if ":" in address else "A") in kinds]
            if not records:
                now.missing.append(f"{host} has no address of the family {self._config.family}")
            return records
        rounds = [_Round() for _ in kinds]
        answers = await asyncio.gather(
            *(self._ask(resolver, host, kind, one) for kind, one in zip(kinds, rounds, strict=True))
        )
        addresses = sorted({record[3] for records in answers for record in records})
        for one in rounds:
            now.ttls += one.ttls
            now.kept += one.kept
            if not addresses:  # a family that is missing is no trouble while there is another
                now.unknown += one.unknown
                now.missing += one.missing
        return addresses

    def _local(self, host: str, now: _Round) -> list[str] | None:
        """The addresses of a name that no resolver is asked for; None when one is."""
        name = host.lower().rstrip(".")
        try:
            return [str(ip_address(name))]
        except ValueError:
            pass
        if name in self._hosts:
            now.ttls.append(self._refresh)
            return self._hosts[name]
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, section 6.3
            return list(_LOOPBACK.values())
        return None

    async def _ask(
        self, resolver: dns.asyncresolver.Resolver, name: str, kind: str, now: _Round
    ) -> tuple[_Record, ...]:
        """What holds for a question, and in `now` why."""
        question = self._questions.setdefault((name, kind), _Question())
        self._asked.add((name, kind))
        try:
            async with self._turn:
                answer, ttl = await self._servers.ask(resolver, name, kind, _LIFETIME)
        except dns.resolver.NXDOMAIN:
            return _missed(question, f"{name} does not exist", now)
        except dns.exception.Timeout:
            return _failed(question, f"no resolver answers within {_LIFETIME:g} s for {name}", now)
        except (dns.exception.DNSException, OSError, ValueError) as error:
            why = "no resolver has an answer" if isinstance(error, dns.resolver.NoNameservers) else str(error)
            return _failed(question, f"{why} for {name}", now)
        records = tuple(_record(kind, data) for data in answer.rrset or ())
        records = tuple(record for record in records if record[3])
        if not records:
            return _missed(question, f"{name} has no {kind} record", now)
        question.records, question.missed = records, 0
        now.ttls.append(ttl)
        return records

    def _resolver(self) -> dns.asyncresolver.Resolver:
        """Raises DiscoveryError."""
        try:
            return self._servers.resolver(_PATIENCE)
        except dns.resolver.NoResolverConfiguration:
            raise DiscoveryError("/etc/resolv.conf names no resolver", min(self._refresh, _CONFIRM)) from None


def _missed(question: _Question, sentence: str, now: _Round) -> tuple[_Record, ...]:
    """There is no such thing: believed when it was said often enough."""
    question.missed += 1
    if question.missed >= _CONFIRMED:
        question.records = ()
    if question.records:
        now.kept.append(sentence)
    elif question.records is None:
        now.unknown.append(sentence)
    else:
        now.missing.append(sentence)
    return question.records or ()


def _failed(question: _Question, sentence: str, now: _Round) -> tuple[_Record, ...]:
    """Nobody knows: what was known holds."""
    question.missed = 0
    (now.kept if question.records else now.unknown).append(sentence)
    return question.records or ()


def _record(kind: str, data: Any) -> _Record:
    if kind != "SRV":
        return 0, 0, 0, str(data.address)
    # The target "." says that there is no such service (RFC 2782); a port that nobody can connect to is as good.
    target = data.target.to_text(omit_final_dot=True) if data.port else ""
    return data.priority, data.weight or 1, data.port, "" if target == "." else target


def _endpoint(address: str, weight: int, backup: bool) -> Endpoint:
    return Endpoint.model_validate({"address": address, "weight": weight, "backup": backup})


def _read_hosts(path: Path) -> dict[str, list[str]]:
    """The addresses by name of a file like /etc/hosts; what can't be read is not there."""
    hosts: dict[str, list[str]] = {}
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return hosts
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        try:
            address = str(ip_address(address))
        except ValueError:
            continue
        for name in names:
            known = hosts.setdefault(name.lower().rstrip("."), [])
            if address not in known:
                known.append(address)
    return hosts
