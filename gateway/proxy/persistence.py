"""What happens between the attempts of a request: whether there is another one, when, and who pays for it.

`retry.py` says what a failure calls for; here the clock is read, the pause made, the budget asked. A request that
succeeds at once and keeps nothing for a second time never comes here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from time import monotonic, time
from typing import Any

from gateway.errors import Declined, UpstreamError
from gateway.metrics.plan import GROUP_FALLEN_BACK
from gateway.proxy.hedge import Hedging
from gateway.proxy.retry import Course, Policy, Verdict, retry_after
from gateway.proxy.tape import Shelf, Tape
from gateway.scoreboard import Cells
from gateway.upstream.budget import Budget
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.group import Group, Turn
from gateway.wire import RequestHead, ResponseHead

_chance = Random()


@dataclass(slots=True, eq=False)
class Persistence:
    """What a route does when an attempt fails: the settings of its upstream, and what all its requests share.

    budget: None where the policy allows no attempts; group: where in the cells the upstream's own are; total: seconds
    for all attempts together; fallback: the application that answers when no endpoint is ready.
    """

    upstream: Group
    policy: Policy
    budget: Budget | None
    shelf: Shelf
    cells: Cells
    group: int
    total: float | None = None
    hedging: Hedging | None = None
    fallback: Any = None
    is_careful: bool = field(init=False)  # every request needs a course from its beginning, not only one that fails

    def __post_init__(self) -> None:
        self.is_careful = bool(self.policy.statuses or self.policy.per_try or self.total or self.hedging)

    def course(self, exchange: Any, head: RequestHead, receive: Any) -> Course | None:
        """What a request needs whose attempts are watched from the first on."""
        policy = self.policy
        tape = None
        if head.length:
            if policy.attempts and head.method in policy.methods and head.length <= policy.replay_body:
                tape = Tape(receive, policy.replay_body, self.shelf)
            elif not self.is_careful:
                return None
        course = Course(policy, head.method, exchange.started, self.total, tape)
        course.is_hedged = self.hedging is not None and not head.length and head.method in policy.methods
        return course

    async def goes_on(
        self, exchange: Any, head: RequestHead, course: Course, lease: Turn, error: UpstreamError
    ) -> bool:
        """An attempt has failed: whether there is another one, which is made when this returns."""
        pause = self._pause(exchange, head, course, lease, error)
        if not pause:
            return pause is not None
        await asyncio.sleep(pause)
        return await self._is_granted(course)

    def _pause(
        self, exchange: Any, head: RequestHead, course: Course, lease: Turn, error: UpstreamError
    ) -> float | None:
        """The seconds before the attempt after one that failed; None when there is none."""
        endpoint = lease.endpoint
        tape = course.tape
        verdict = course.verdict(error, tape.whole if tape is not None else not head.length)
        course.failure = error
        why = f"answered_{error.status}" if isinstance(error, Declined) else error.reason
        exchange.attempts.append((endpoint.name, why, monotonic() - lease.began))
        pause: float | None = 0.0
        if verdict is Verdict.END:
            return None
        if verdict is not Verdict.AGAIN:
            course.tried = (*course.tried, endpoint)
            others = self.upstream.has_other(course.tried)
            if verdict is Verdict.RETRY or not others or course.asks_again:
                pause = self._paid(course, error, others)
                if pause is None and verdict is Verdict.ELSEWHERE and self.fallback is not None:
                    return 0.0
        if pause is None or course.is_over(monotonic() + pause):
            return None
        if tape is not None:
            tape.rewind()
        return pause

    def _paid(self, course: Course, error: UpstreamError, others: bool) -> float | None:
        """The pause before an attempt that the policy allows; None when there is none."""
        if not course.may_go_on(error, others):
            return None
        least = 0.0
        if not others:  # everybody was asked: everybody may be asked again
            course.tried = ()
            course.asks_again = True
            least = error.retry_after if isinstance(error, Declined) else 0.0
        return course.pause(_chance, least)

    async def starts_over(self, course: Course) -> bool:
        """Nobody is left to ask, though somebody was when the last attempt failed: whether all are asked again."""
        if course.failure is None or not course.tried or course.asks_again:
            return False
        pause = self._paid(course, course.failure, False)
        if pause is None or course.is_over(monotonic() + pause):
            return False
        await asyncio.sleep(pause)
        return await self._is_granted(course)

    async def _is_granted(self, course: Course) -> bool:
        """Whether the budget allows the attempt that comes now. When it is used up it is asked for a while: retries are
        mostly over soon, and in the end it bounds how many there are at once, not whom they help."""
        assert self.budget is not None
        patience = monotonic() + self.policy.longest_pause
        while not course.has_budget:
            if self.budget.claim():
                course.has_budget = True
            elif monotonic() >= patience or course.is_over(monotonic()):
                self.budget.denied()
                return False
            else:
                await asyncio.sleep(self.policy.backoff * _chance.random())
        return True

    async def declines(self, response: ResponseHead, course: Course, endpoint: Endpoint) -> bool:
        """Whether a response is not passed on because there will be another attempt. Asked before it is thrown away."""
        tape = course.tape
        if not course.may_retry or (tape is not None and not tape.whole):
            return False
        if not self.upstream.has_other((*course.tried, endpoint)):
            wanted = retry_after(response, time())
            if wanted > self.policy.longest_pause or course.is_over(monotonic() + wanted):
                return False
        return not course.is_over(monotonic()) and await self._is_granted(course)

    async def fall_back(self, scope: Any, receive: Any, send: Any, course: Course | None) -> None:
        """Have the other upstream answer."""
        self.cells[self.group + GROUP_FALLEN_BACK] += 1
        if course is not None and course.tape is not None:
            course.tape.rewind()
            receive = course.tape.receive
        await self.fallback(scope, receive, send)

    def end(self, course: Course) -> None:
        """The request is over, however it ended."""
        if course.has_budget and self.budget is not None:
            self.budget.release()
        if course.tape is not None:
            course.tape.let_go()
