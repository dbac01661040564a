"""A second attempt while the first is silent: whichever answers first is taken, the other is given up.

Only for requests that may be made twice and have no body. The first attempt is made as always; only when it has been
silent for longer than most answers take, and the budget allows, another endpoint is asked as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.config import upstreams as configured
from gateway.config.values import parse_duration
from gateway.errors import NoEndpoint, UpstreamError
from gateway.metrics.plan import GROUP_HEDGED, GROUP_HEDGES_WON
from gateway.proxy.quantile import Quantile
from gateway.scoreboard import Cells
from gateway.upstream.group import Turn
from gateway.wire import ResponseHead

# Second attempts that may be saved up while everything is well, so that a burst of slow answers finds some.
_SAVED = 10.0

Ask = Callable[[Turn], Awaitable[ResponseHead]]


class Hedging:
    """When the requests to an upstream get a second attempt, in this worker."""

    def __init__(self, config: configured.Hedge, cells: Cells, group: int) -> None:
        """group: where the upstream's cells are."""
        is_part = config.after.startswith("p")
        self._quantile = Quantile(float(config.after[1:]) / 100) if is_part else None
        self._after = None if is_part else parse_duration(config.after)
        self._part = config.budget
        self._credit = 0.0
        self._cells = cells
        self._group = group

    @property
    def delay(self) -> float | None:
        """The seconds after which the first attempt counts as silent; None while that isn't known."""
        return self._after if self._quantile is None else self._quantile.value

    async def race(
        self, first: Turn, second: Callable[[], Turn], ask: Ask, lost: list[tuple[Turn, BaseException]]
    ) -> tuple[Turn, ResponseHead]:
        """The lease that won, entered, and its response head. second: takes another lease, or raises UpstreamError.
        lost: gets the others, the last to fail last, each with what it failed with.

        Raises what the last attempt failed with; no lease is left entered then."""
        self._credit = min(_SAVED, self._credit + self._part)
        began = asyncio.get_running_loop().time()
        runners = [_Runner(first, ask)]
        try:
            delay = self.delay
            await asyncio.wait([runners[0].task], timeout=delay)
            if not runners[0].task.done() and delay is not None and self._credit >= 1.0:
                try:
                    runners.append(_Runner(second(), ask))
                except UpstreamError:
                    pass  # there is nobody else to ask
                else:
                    self._credit -= 1.0
                    self._cells[self._group + GROUP_HEDGED] += 1
            winner = await _winner(runners)
        except BaseException as error:
            if runners[0].failure is error:  # whose failure is told is the last
                runners.reverse()
            lost.extend((runner.lease, runner.end(error)) for runner in runners)
            raise
        lost.extend((runner.lease, runner.end(asyncio.CancelledError())) for runner in runners if runner is not winner)
        if winner.lease is not first:
            self._cells[self._group + GROUP_HEDGES_WON] += 1
        if self._quantile is not None:
            self._quantile.add(asyncio.get_running_loop().time() - began)
        return winner.lease, winner.task.result()


class _Runner:
    """An attempt on its way to a response head."""

    def __init__(self, lease: Turn, ask: Ask) -> None:
        self.lease = lease.__enter__()
        self.task: asyncio.Future[ResponseHead] = asyncio.ensure_future(ask(lease))

    @property
    def failure(self) -> BaseException | None:
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None

    def end(self, error: BaseException) -> BaseException:
        """Give the lease back: with its own failure, which is returned, or else this one. Awaits nothing: a client that
        leaves just then must not keep the lease from it."""
        own = self.failure or error
        self.task.cancel()
        self.lease.__exit__(type(own), own, None)
        return own


async def _winner(runners: list[_Runner]) -> _Runner:
    """The first that has a response head. Raises the error of the last to fail."""
    left: set[asyncio.Future[Any]] = {runner.task for runner in runners}
    failure: BaseException = NoEndpoint("", "nobody was asked")
    while left:
        done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        for runner in runners:
            if runner.task in done:
                failed = runner.task.exception()
                if failed is None:
                    return runner
                failure = failed
    raise failure
