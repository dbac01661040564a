"""Asking name servers: those that are named, or those of /etc/resolv.conf. The door to dnspython, with
`discovery/dns.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver

from gateway.errors import NameUnknown

_MOST_ALIASES = 8


class NameServers:
    def __init__(self, addresses: Sequence[str] = ()) -> None:
        """addresses: as the configuration writes them. None: those of this machine, with its search domains."""
        self._servers = [_server(text) for text in addresses]

    def resolver(self, patience: float) -> dns.asyncresolver.Resolver:
        """Made anew each time, so that another /etc/resolv.conf is followed. patience: seconds with one server before
        the next is asked. Raises dns.resolver.NoResolverConfiguration."""
        resolver = dns.asyncresolver.Resolver(configure=not self._servers)
        if self._servers:
            resolver.nameservers = self._servers
        resolver.timeout = patience
        return resolver

    async def ask(
        self, resolver: dns.asyncresolver.Resolver, name: str, kind: str, lifetime: float
    ) -> tuple[dns.resolver.Answer, float]:
        """The answer, and for how many seconds it holds. A resolver follows aliases (CNAME) itself, a name server does
        not. lifetime: seconds for all servers and repetitions together. Raises dns.exception.DNSException."""
        asked: dns.name.Name | str = name
        ttl = float("inf")
        for _ in range(_MOST_ALIASES):
            answer = await resolver.resolve(
                asked, kind, raise_on_no_answer=False, lifetime=lifetime, search=not self._servers
            )
            ttl = min(ttl, answer.chaining_result.minimum_ttl)
            if answer.rrset is not None or answer.canonical_name == answer.qname:
                break
            asked = answer.canonical_name
        return answer, ttl

    async def addresses(self, name: str, patience: float, lifetime: float) -> tuple[list[str], float]:
        """The addresses of a name, IPv6 and IPv4, and for how many seconds they hold. Raises NameUnknown."""
        try:
            resolver = self.resolver(patience)
        except dns.resolver.NoResolverConfiguration:
            raise NameUnknown(name, "/etc/resolv.conf names no resolver") from None
        kinds = ("AAAA", "A")
        answers = await asyncio.gather(
            *(self.ask(resolver, name, kind, lifetime) for kind in kinds), return_exceptions=True
        )
        found: list[str] = []
        least = float("inf")
        why = "has no address"
        for answer in answers:
            if isinstance(answer, BaseException):
                why = _trouble(answer)
                continue
            records, ttl = answer
            found += [str(data.address) for data in records.rrset or ()]
            least = min(least, ttl)
        if not found:
            raise NameUnknown(name, why)
        return found, least


def _trouble(error: BaseException) -> str:
    match error:
        case dns.resolver.NXDOMAIN():
            return "does not exist"
        case dns.exception.Timeout():
            return "no name server answers in time"
        case dns.resolver.NoNameservers():
            return "no name server has an answer"
        case dns.exception.DNSException() | OSError() | ValueError():
            return str(error)
        case _:
            raise error


def _server(text: str) -> dns.nameserver.Nameserver:
    """A name server as the configuration writes it."""
    address, _, port = text.rpartition(":") if text.startswith("[") or text.count(":") == 1 else (text, "", "")
    return dns.nameserver.Do53Nameserver(address.removeprefix("[").removesuffix("]"), int(port or 53))
