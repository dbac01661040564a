"""The contract of a balancing policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Protocol

from gateway.upstream.balancers.turns import spread
from gateway.upstream.endpoint import Endpoint

Clock = Callable[[], float]  # seconds, from any beginning, never backwards


class Chance(Protocol):
    """What of random.Random a policy needs."""

    def random(self) -> float: ...


class Balancer(ABC):
    """Orders ready endpoints. It never asks about health and never extracts keys.

    An endpoint is chosen by its effective weight: weight * share, the share being that of slow start. Weights are read
    at `rebuild`, shares and loads at each pick.
    """

    learns: ClassVar[bool] = False
    """Whether `observe` is told of every exchange. Of failures each policy is told, for they are rare."""

    def __init__(self, offset: float = 0.0, chance: Chance | None = None, now: Clock | None = None) -> None:
        """offset: 0 <= offset < 1, where in its cycle this worker starts, so that workers don't march in step.
        chance, now: a policy that draws or that measures time can't do without."""
        self._phase = offset

    @abstractmethod
    def rebuild(self, ready: Sequence[Endpoint], members: Sequence[Endpoint] | None = None) -> None:
        """Membership, a weight or readiness changed; `ready` may be empty.

        members: everybody in the group, those who are ready among them; None when these are all. What is known about
        an endpoint outlives this call while it is a member.
        """

    @abstractmethod
    def order(self, key: bytes) -> Iterator[Endpoint]:
        """Every ready endpoint once, best first. The first costs little, the others are worked out when asked for.

        key: what the route hashes by, b"" for nothing.
        """

    def observe(self, endpoint: Endpoint, seconds: float, failed: bool) -> None:  # noqa: B027
        """An exchange took this long until it was answered; failed: by the endpoint's fault. It may have left
        meanwhile."""

    def _start(self) -> float:
        """0 <= start < 1, where to begin after a rebuild: at the offset first, then each time elsewhere, so that not
        always the same are favoured when rebuilds are frequent."""
        start = self._phase
        self._phase = spread(start, 1)
        return start
