"""Whether a failed exchange is tried again, and after which pause. Pure.

Where nothing was sent another endpoint is always asked. What was sent is sent again by the policy only: for methods
that may be repeated (RFC 9110, section 9.2.2), while the request is still there from its beginning, a bounded number of
times and within a budget. After the first byte of an answer nobody asks here any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from math import inf
from typing import Any, Protocol

from gateway.config import upstreams as configured
from gateway.errors import (
    BadResponse,
    Busy,
    ConnectionCut,
    ConnectTimeout,
    Declined,
    DescriptorsExhausted,
    IdleTimeout,
    OutOfTime,
    QueueTimeout,
    ResponseTimeout,
    UpstreamError,
)
from gateway.proxy.tape import Tape
from gateway.wire import ResponseHead

# RFC 9110, section 9.2.2. A proxy must not repeat others by itself.
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))

# A kept connection may turn out closed, and so may the next; a third time it is not a coincidence.
_MOST_AGAIN = 2
# How many times the first pause the longest is (Envoy's default).
_LONGEST_PAUSE = 10
# What is our own shortage, or a choice: nobody else could help.
_OURS = (QueueTimeout, DescriptorsExhausted, Busy, OutOfTime)
_SILENCE = (ConnectTimeout, ResponseTimeout, IdleTimeout)


class Chance(Protocol):
    """What of random.Random is needed here."""

    def random(self) -> float: ...


class Verdict(Enum):
    """What a failure calls for."""

    END = "it is told to the client"
    ELSEWHERE = "nothing was sent: another endpoint is asked at once"
    AGAIN = "a kept connection was closed: the same endpoint is asked at once, on a new one"
    RETRY = "the policy allows another attempt, if the budget does"


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of an upstream, as they are asked here. Times in seconds."""

    attempts: int = 2
    connects: bool = True
    resets: bool = True
    timeouts: bool = True
    malformed: bool = False
    statuses: frozenset[int] = frozenset()
    methods: frozenset[bytes] = IDEMPOTENT
    replay_body: int = 64 * 1024
    backoff: float = 0.025
    per_try: float | None = None

    @classmethod
    def of(cls, config: configured.Retry) -> Policy:
        on = frozenset(config.on)
        return cls(
            attempts=config.attempts,
            connects="connect" in on,
            resets="reset" in on,
            timeouts="timeout" in on,
            malformed="malformed" in on,
            statuses=frozenset(int(one) for one in on if one.isdigit()),
            methods=frozenset(method.encode() for method in config.methods),
            replay_body=config.replay_body,
            backoff=config.backoff,
            per_try=config.per_try_timeout,
        )

    def covers(self, error: UpstreamError) -> bool:
        """Whether the policy names this failure of something that was sent."""
        if isinstance(error, ConnectionCut):
            return self.resets
        if isinstance(error, ResponseTimeout | IdleTimeout):
            return self.timeouts
        return isinstance(error, BadResponse) and self.malformed

    @property
    def longest_pause(self) -> float:
        return self.backoff * _LONGEST_PAUSE


class Course:
    """The attempts of one request: of one that failed, or whose settings ask for it from the first attempt on."""

    __slots__ = (
        "_ends", "_policy", "_repeatable", "_repeats", "asks_again", "failed", "failure", "has_budget", "is_hedged",
        "retries", "tape", "tried",
    )  # fmt: skip

    def __init__(
        self, policy: Policy, method: bytes, started: float, total: float | None = None, tape: Tape | None = None
    ) -> None:
        """started: monotonic seconds; total: how many seconds all attempts may take. tape: what keeps the body."""
        self._policy = policy
        self._repeatable = method in policy.methods
        self._repeats = 0
        self._ends = None if total is None else started + total
        self.tape = tape
        self.is_hedged = False
        self.asks_again = False  # whether every endpoint has been asked, and so those of before are asked again
        self.failure: UpstreamError | None = None  # the last one
        self.retries = 0  # that the policy paid for
        self.has_budget = False  # whether it is counted among the retries under way
        self.tried: tuple[Any, ...] = ()  # endpoints
        self.failed: Any = None  # the lease of the last attempt, where there were two at once

    def within(self, now: float, began: float) -> float | None:
        """The seconds that an attempt which began then may still take, alone; None for no bound."""
        per_try = self._policy.per_try
        return None if per_try is None else max(0.0, began + per_try - now)

    def left(self, now: float) -> float | None:
        """The seconds that all attempts may still take; None for no bound."""
        return None if self._ends is None else max(0.0, self._ends - now)

    @property
    def until(self) -> float:
        """The moment at which they may not any more."""
        return inf if self._ends is None else self._ends

    def is_over(self, now: float) -> bool:
        """Whether the time for all attempts has passed."""
        return self._ends is not None and now >= self._ends

    @property
    def wants_new_connection(self) -> bool:
        """Whether kept ones have proved bad."""
        return self._repeats > 0

    def verdict(self, error: UpstreamError, whole: bool) -> Verdict:
        """whole: whether the request can be sent from its beginning."""
        if isinstance(error, _OURS):
            return Verdict.END
        was_kept = isinstance(error, ConnectionCut) and error.reused
        if not error.sent and not was_kept:
            return Verdict.ELSEWHERE
        if error.sent and (not self._repeatable or not whole):
            return Verdict.END
        if isinstance(error, Declined):
            return Verdict.RETRY  # it was asked before whether there may be another
        if was_kept and self._repeats < _MOST_AGAIN:
            self._repeats += 1
            return Verdict.AGAIN
        if not error.sent:
            return Verdict.ELSEWHERE
        return Verdict.RETRY if self.may_retry and self._policy.covers(error) else Verdict.END

    @property
    def may_retry(self) -> bool:
        return self._repeatable and self.retries < self._policy.attempts

    def may_go_on(self, error: UpstreamError, others: bool) -> bool:
        """Whether there are attempts left for this failure. others: whether an endpoint is left that was not asked; who
        was silent for as long as it may is not asked again."""
        if self.retries >= self._policy.attempts or not (others or not isinstance(error, _SILENCE)):
            return False
        return error.sent or self._policy.connects  # where nothing was sent the method doesn't matter

    def pause(self, chance: Chance, least: float = 0.0) -> float:
        """Before the attempt that comes now: drawn from nothing to a bound that doubles ("full jitter"); least: what an
        endpoint asked for that is asked again."""
        longest = min(self._policy.backoff * (1 << min(self.retries, 10)), self._policy.longest_pause)
        self.retries += 1
        return max(least, longest * chance.random())


def retry_after(response: ResponseHead, now: float) -> float:
    """The seconds for which the endpoint wants to be left alone, 0 when it doesn't say. now: unix time."""
    for name, value in response.pairs():
        if name == b"retry-after":
            value = value.strip()
            if value.isdigit() and len(value) < 10:
                return float(value)
            try:
                return max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - now)
            except (ValueError, OverflowError):
                return 0.0
    return 0.0
