"""What discovery has found, as one process knows it: who belongs to each upstream now.

The observer finds, the master keeps and places, every child is told (`child.learn`) or inherits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.config.model import Config
from gateway.config.upstreams import Endpoint, Upstream

MOST = 512  # endpoints of one upstream that are taken


class Findings:
    """By upstream: `found`, the list that holds, and `trouble`, why it can't be looked up just now, while that is so.

    An upstream whose endpoints were never found is not in `found`.
    """

    __slots__ = ("found", "trouble")

    def __init__(self, found: dict[str, tuple[Endpoint, ...]] | None = None) -> None:
        self.found = {} if found is None else found
        self.trouble: dict[str, str] = {}

    def members(self, name: str, upstream: Upstream) -> tuple[Endpoint, ...]:
        """The endpoints of an upstream, listed or found."""
        return upstream.endpoints if upstream.discovery is None else self.found.get(name, ())

    def kept(self, old: Config, new: Config) -> Findings:
        """What of it is still true under another configuration: where the same is looked up in the same way."""
        stays = {
            name
            for name, upstream in new.upstreams.items()
            if upstream.discovery is not None
            and name in old.upstreams
            and old.upstreams[name].discovery == upstream.discovery
        }
        kept = Findings({name: found for name, found in self.found.items() if name in stays})
        kept.trouble = {name: trouble for name, trouble in self.trouble.items() if name in stays}
        return kept

    def rows(self, config: Config) -> list[dict[str, Any]]:
        """For people: how looking up fares."""
        return [
            {
                "upstream": name,
                "endpoints": len(self.found.get(name, ())),
                "trouble": self.trouble.get(name, "" if name in self.found else "nothing was found yet"),
            }
            for name, upstream in config.upstreams.items()
            if upstream.discovery is not None
        ]


def written(endpoints: Iterable[Endpoint]) -> list[dict[str, Any]]:
    """As in a message; `read` takes it."""
    return [one.model_dump(exclude_defaults=True) for one in endpoints]


def read(rows: Iterable[dict[str, Any]]) -> tuple[Endpoint, ...]:
    return tuple(map(Endpoint.model_validate, rows))
