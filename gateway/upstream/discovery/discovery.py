"""The contract of a way to find endpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from gateway.config.upstreams import Endpoint, Upstream


@dataclass(frozen=True, slots=True)
class Found:
    """The endpoints there are now, each address once.

    again: seconds until it is worth to look again, None for never. trouble: what is wrong though this is what holds,
    as one sentence that stays the same while it is so; "" for nothing.
    """

    endpoints: tuple[Endpoint, ...]
    again: float | None = None
    trouble: str = ""


class Discovery(ABC):
    """Made once for an upstream; may remember what it found last."""

    @abstractmethod
    def __init__(self, upstream: Upstream) -> None: ...

    @abstractmethod
    async def find(self) -> Found:
        """Look now. Raises DiscoveryError when it can't be found out; then what was found last holds."""
