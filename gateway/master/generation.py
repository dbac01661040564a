"""One configuration and what it listens on: what a reload makes anew and an abort throws away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.config import Config
from gateway.log import Files
from gateway.master.limits import cpus
from gateway.master.sockets import Listening

ADMIN = "admin"  # the key of the observer's socket among a generation's; listener names can't clash: they have kinds


@dataclass(slots=True)
class Generation:
    """number: counts up from 1. wanted: how many workers it should have now."""

    number: int
    config: Config
    files: Files
    listening: dict[str, Listening] = field(default_factory=dict)  # by listener name
    admin: Listening | None = None
    wanted: int = 0

    def addresses(self) -> set[str]:
        found = {str(listening.address) for listening in self.listening.values()}
        return found | ({str(self.admin.address)} if self.admin is not None else set())


def wanted_workers(config: Config) -> int:
    return cpus() if config.process.workers == "auto" else int(config.process.workers)


def open_sockets(
    generation: Generation, open_now: dict[str, Listening], inherited: Mapping[str, Sequence[int]]
) -> list[Listening]:
    """Find or open every address of a generation; returns those that are new. Raises BindError, and then none is open.

    open_now: by address, what the master has open already; it is kept and shared, and gets what is new.
    """
    new: list[Listening] = []
    config = generation.config

    def one(address: object, backlog: int, slots: int) -> Listening:
        key = str(address)
        known = open_now.get(key)
        if known is None:
            known = Listening.open(address, backlog, inherited=inherited)  # type: ignore[arg-type]
            open_now[key] = known
            new.append(known)
        for slot in range(slots):
            known.socket(slot)
        return known

    try:
        for listener in config.listeners:
            generation.listening[listener.name] = one(listener.listen, listener.backlog, generation.wanted)
        if config.admin is not None:
            generation.admin = one(config.admin.listen, 128, 1)
    except BaseException:
        for listening in new:
            del open_now[str(listening.address)]
            listening.close()
        raise
    return new
