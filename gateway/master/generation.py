"""One configuration and what it listens on: what a reload makes anew and an abort throws away."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.config.model import Config
from gateway.config.values import Address, TcpAddress
from gateway.documents import Documents
from gateway.findings import Findings
from gateway.log import Files
from gateway.master.bind import targets
from gateway.master.deaths import Deaths
from gateway.master.limits import cpus, nofile, somaxconn, warnings
from gateway.master.sockets import Listening

log = logging.getLogger("gateway")

ADMIN = "the admin listener"  # its name where listeners have theirs; none of them can have this one


@dataclass(slots=True)
class Generation:
    """number: counts up from 1. wanted: how many workers it should have now, unless it is paused."""

    number: int
    config: Config
    files: Files
    listening: dict[str, Listening] = field(default_factory=dict)  # by listener name
    admin: Listening | None = None
    wanted: int = 0
    paused: bool = False  # it has no workers, and its sockets stay open
    findings: Findings = field(default_factory=Findings)
    documents: Documents = field(default_factory=Documents)
    deaths: Deaths = field(default_factory=Deaths)

    @property
    def is_observed(self) -> bool:
        """Whether it needs an observer: somebody to answer, to probe, to look endpoints up or to fetch documents."""
        upstreams = self.config.upstreams.values()
        looks = any(one.health or one.discovery for one in upstreams)
        return looks or self.config.admin is not None or bool(self.documents.wanted)

    def keys(self) -> set[str]:
        """What it listens on, as the master knows it."""
        found = {listening.key for listening in self.listening.values()}
        return found | ({self.admin.key} if self.admin is not None else set())


def key(address: Address, name: str, datagrams: bool = False) -> str:
    """What an address is known by from one generation to the next, however it is spelled.

    With port 0 each listener has a port of its own. UDP has ports of its own, too.
    """
    protocol = "udp:" if datagrams else ""
    if not isinstance(address, TcpAddress):
        return f"{protocol}{address}"
    spelled = TcpAddress(targets(address)[0].host, address.port)
    return f"{protocol}{spelled}" if address.port else f"{protocol}{spelled} of {name}"


def wanted_workers(config: Config) -> int:
    return cpus() if config.process.workers == "auto" else int(config.process.workers)


def open_sockets(
    generation: Generation, open_now: dict[str, Listening], inherited: Mapping[str, Sequence[int]]
) -> list[Listening]:
    """Find or open every address of a generation; returns those that are new. Raises BindError, and then none is open.

    open_now: by key, what the master has open already; it is kept and shared, and gets what is new.
    """
    new: list[Listening] = []
    config = generation.config

    def one(address: Address, name: str, backlog: int, slots: int, datagrams: bool = False) -> Listening:
        known_by = key(address, name, datagrams)
        known = open_now.get(known_by)
        if known is None:
            known = Listening.open(address, backlog, inherited=inherited, datagrams=datagrams)
            known.key = known_by
            open_now[known_by] = known
            new.append(known)
        for slot in range(slots):
            known.socket(slot)
        return known

    try:
        for listener in config.listeners:
            generation.listening[listener.name] = one(
                listener.listen, listener.name, listener.backlog, generation.wanted, listener.DATAGRAMS
            )
        if config.admin is not None:
            generation.admin = one(config.admin.listen, ADMIN, 128, 1)
    except BaseException:
        for listening in new:
            del open_now[listening.key]
            listening.close()
        raise
    return new


def announce(generation: Generation) -> None:
    """Say in the log what is served where, and what this machine can't hold of it."""
    config = generation.config
    where = ", ".join(f"{name} on {listening.bound}" for name, listening in generation.listening.items())
    log.info("generation %d serves with %d workers: %s", generation.number, generation.wanted, where)
    if generation.admin is not None:
        log.info("admin on %s", generation.admin.bound)
    for warning in warnings(
        nofile=nofile(),
        workers=generation.wanted,
        connections_per_worker=sum(listener.most_descriptors for listener in config.listeners),
        upstream_connections_per_worker=sum(
            len(generation.findings.members(name, upstream)) * upstream.pool.max_connections
            for name, upstream in config.upstreams.items()
        )
        + config.most_tunnels,
        backlogs={listener.name: listener.backlog for listener in config.listeners if not listener.DATAGRAMS},
        somaxconn=somaxconn(),
    ):
        log.warning("%s", warning)
