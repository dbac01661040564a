"""Smooth weighted round robin with effective weights (nginx's ngx_http_upstream_round_robin.c; SEMANTICS 2).

When an endpoint fails its effective weight falls, and with each pick it rises again by one. While all are whole nginx's
sequence repeats, and a pick is one list look-up (turns.py).

In a group of more than 64 who failed has its weight back long before its next turn, so nothing falls there; and where a
large group's period is too long to be worked out, turns go by deadlines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.upstream.balancers.balancer import Balancer, Chance, Clock
from gateway.upstream.balancers.slow_start import SlowStart
from gateway.upstream.balancers.turns import Deadlines, Smooth
from gateway.upstream.endpoint import Endpoint

_MOST_IN_STEPS = 64
# Up to this many references the whole order for each pick is kept: 64 endpoints of equal weight, say.
_MOST_KEPT = 4096


class RoundRobin(Balancer):
    def __init__(
        self, offset: float = 0.0, chance: Chance | None = None, now: Clock | None = None, *, max_fails: int = 1
    ) -> None:
        """max_fails: a failure takes weight // max_fails, at least 1, of the effective weight; the whole by default, as
        in nginx. (That nginx then asks the endpoint no more for a while is health's affair here.)"""
        super().__init__(offset, chance, now)
        self._max_fails = max_fails
        self._slow_start = SlowStart(offset)
        self._ready: list[Endpoint] = []
        self._smooth = Smooth((), 0.0)
        self._deadlines: Deadlines | None = None  # in charge while there
        # For each turn of the period the whole order, () until it is needed; none when they are too many.
        self._orders: list[tuple[Endpoint, ...]] = []
        self._away: dict[Endpoint, int] = {}  # what was left of the effective weights of those who are not ready

    def rebuild(self, ready: Sequence[Endpoint], members: Sequence[Endpoint] | None = None) -> None:
        members = ready if members is None else members
        self._slow_start.keep(members)
        left = self._away | {self._ready[number]: effective for number, effective in self._smooth.fallen()}
        left = {one: left[one] for one in members if one in left and left[one] < one.weight}
        self._ready = list(ready)
        self._away = {one: effective for one, effective in left.items() if one not in ready}
        self._set_out([endpoint.weight for endpoint in ready], self._start())
        if len(ready) <= _MOST_IN_STEPS:
            for number, endpoint in enumerate(ready):
                if endpoint in left:
                    self._smooth.fall(number, left[endpoint])

    def _set_out(self, weights: Sequence[int], start: float) -> None:
        self._smooth = Smooth(weights, start)
        self._deadlines = None
        if not self._smooth.period:
            if len(weights) > _MOST_IN_STEPS:
                self._deadlines = Deadlines(weights, start)
            else:
                for _ in range(int(start * len(weights))):
                    self._smooth.turn()
        self._forget_orders()

    def order(self, key: bytes) -> Iterator[Endpoint]:
        smooth = self._smooth
        if self._orders and smooth.is_settled:
            at = smooth.at
            order = self._orders[at] or self._from(at)
            if order[0].share >= 1.0:
                smooth.at = at + 1 if at + 1 < len(self._orders) else 0
                return iter(order)
        return self._turn_by_turn() if self._ready else iter(())

    def _forget_orders(self) -> None:
        period = self._smooth.period
        self._orders = [()] * len(period) if len(period) * len(self._ready) <= _MOST_KEPT else []

    def _from(self, at: int) -> tuple[Endpoint, ...]:
        """Everybody, by their next turns in the period."""
        period = self._smooth.period
        order = tuple(self._ready[number] for number in dict.fromkeys(period[at:] + period[:at]))
        self._orders[at] = order
        return order

    def _turn_by_turn(self) -> Iterator[Endpoint]:
        ready = self._ready  # a later rebuild makes a new list
        first = self.next()
        yield first
        at = ready.index(first)
        yield from ready[at + 1 :]
        yield from ready[:at]

    def next(self) -> Endpoint:
        """The first of the next order. Somebody must be ready."""
        endpoint = self._turn()
        return endpoint if endpoint.share >= 1.0 else self._slow_start.taker(endpoint, self._turn)

    def _turn(self) -> Endpoint:
        """Whose turn it is by weight alone."""
        if self._deadlines is not None:
            return self._ready[self._deadlines.turn()]
        was_settled = self._smooth.is_settled
        turn = self._smooth.turn()
        if self._smooth.is_settled and not was_settled:
            self._forget_orders()  # the period is another
        return self._ready[turn]

    def observe(self, endpoint: Endpoint, seconds: float, failed: bool) -> None:
        if not failed or not 1 < len(self._ready) <= _MOST_IN_STEPS:  # of a single one nginx counts no failures either
            return
        lost = max(1, endpoint.weight // self._max_fails)
        try:
            number = self._ready.index(endpoint)
        except ValueError:
            self._away[endpoint] = max(0, self._away.get(endpoint, endpoint.weight) - lost)
        else:
            self._smooth.fall(number, max(0, self._smooth.effective[number] - lost))
