"""What may be tried again, where, and after which pause."""

from __future__ import annotations

import inspect

import pytest

from gateway import errors
from gateway.config.upstreams import Retry
from gateway.errors import Declined, UpstreamError
from gateway.proxy.retry import IDEMPOTENT, Course, Policy, Verdict, retry_after
from gateway.wire import ResponseHead, read_response

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, UpstreamError) and kind not in (UpstreamError, Declined)
]
OURS = (
    errors.QueueTimeout,
    errors.DescriptorsExhausted,
    errors.Busy,
    errors.QueueFull,
    errors.WaitedTooLong,
    errors.OutOfTime,
)
SAFE = (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE")
EVERYTHING = Policy.of(Retry(on=("connect", "reset", "timeout", "malformed", "429", "500", "502", "503", "504")))


class Fixed:
    """Chance that always says the same."""

    def __init__(self, said: float) -> None:
        self._said = said

    def random(self) -> float:
        return self._said


def course(method: bytes = b"GET", policy: Policy = EVERYTHING, total: float | None = None) -> Course:
    return Course(policy, method, 100.0, total)


def response(field: bytes = b"") -> ResponseHead:
    read = read_response(b"HTTP/1.1 503 -\r\n" + field + b"content-length: 0\r\n\r\n", False)
    assert read is not None
    return read[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [*SAFE, b"POST", b"get"])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("policy", [EVERYTHING, Policy.of(Retry(attempts=0, on=()))])
def test_another_endpoint_is_always_asked_when_nothing_was_sent(
    kind: type[UpstreamError], method: bytes, whole: bool, policy: Policy
) -> None:
    expected = Verdict.END if kind in OURS else Verdict.ELSEWHERE
    assert course(method, policy).verdict(kind("a", "b"), whole) is expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [*SAFE, b"POST", b"PATCH", b"LOCK", b"get"])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("reset", (errors.ConnectionCut,)),
        ("timeout", (errors.ResponseTimeout, errors.IdleTimeout)),
        ("malformed", (errors.BadResponse,)),
        ("connect", ()),
        ("503", ()),
    ],
)
def test_what_was_sent_is_sent_again_only_by_the_policy(
    kind: type[UpstreamError], method: bytes, whole: bool, word: str, kinds: tuple[type[UpstreamError], ...]
) -> None:
    expected = kind in kinds and kind not in OURS and method in SAFE and whole
    verdict = course(method, Policy.of(Retry(on=(word,)))).verdict(kind("a", "b", sent=True), whole)
    assert verdict is (Verdict.RETRY if expected else Verdict.END)


@pytest.mark.parametrize("method", [*SAFE, b"POST", b"PATCH", b"LOCK", b"get"])
@pytest.mark.parametrize("whole", [False, True])
def test_the_same_is_asked_again_after_a_kept_connection_was_cut(method: bytes, whole: bool) -> None:
    """Twice; then it counts as any other cut."""
    cut = errors.ConnectionCut("a", "b", sent=True, reused=True)
    one = course(method, Policy.of(Retry(on=())))
    may = method in SAFE and whole
    assert not one.wants_new_connection
    verdicts = [one.verdict(cut, whole) for _ in range(3)]
    assert verdicts == ([Verdict.AGAIN, Verdict.AGAIN, Verdict.END] if may else [Verdict.END] * 3)
    assert one.wants_new_connection is may


@pytest.mark.parametrize("method", [*SAFE, b"POST", b"get"])
@pytest.mark.parametrize("whole", [False, True])
def test_the_same_is_always_asked_again_when_a_kept_connection_took_nothing(method: bytes, whole: bool) -> None:
    """Twice; then it counts as any other endpoint that took nothing."""
    cut = errors.ConnectionCut("a", "b", reused=True)
    one = course(method, Policy.of(Retry(attempts=0, on=())))
    verdicts = [one.verdict(cut, whole) for _ in range(3)]
    assert verdicts == [Verdict.AGAIN, Verdict.AGAIN, Verdict.ELSEWHERE]
    assert one.wants_new_connection


def test_methods_are_the_user_s_to_choose() -> None:
    cut = errors.ConnectionCut("a", "b", sent=True)
    policy = Policy.of(Retry(methods=("POST",)))
    assert course(b"POST", policy).verdict(cut, True) is Verdict.RETRY
    assert course(b"GET", policy).verdict(cut, True) is Verdict.END


def test_attempts_are_counted() -> None:
    one = course()
    cut = errors.ConnectionCut("a", "b", sent=True)
    for _ in range(2):
        assert one.verdict(cut, True) is Verdict.RETRY
        one.pause(Fixed(0.5))
    assert one.verdict(cut, True) is Verdict.END
    assert not one.may_retry and not one.may_go_on(cut, True)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OURS])
@pytest.mark.parametrize("others", [False, True])
def test_who_was_silent_is_not_asked_again(kind: type[UpstreamError], others: bool) -> None:
    expected = others or kind not in (errors.ConnectTimeout, errors.ResponseTimeout, errors.IdleTimeout)
    assert course().may_go_on(kind("a", "b"), others) is expected


def test_endpoints_that_can_not_be_reached_are_asked_again_if_the_policy_says_so() -> None:
    refused = errors.ConnectFailed("a", "b")
    assert course(b"POST").may_go_on(refused, False)
    assert not course(b"POST", Policy.of(Retry(on=("reset",)))).may_go_on(refused, False)


def test_the_pause_is_drawn_below_a_bound_that_doubles_up_to_ten_times() -> None:
    one = course(policy=Policy(attempts=100, backoff=0.025))
    assert [one.pause(Fixed(1.0)) for _ in range(6)] == [0.025, 0.05, 0.1, 0.2, 0.25, 0.25]
    assert one.pause(Fixed(0.0)) == 0.0
    assert one.pause(Fixed(0.0), least=2.0) == 2.0


def test_time_for_all_attempts() -> None:
    one = course(total=2.0)
    assert (one.left(100.5), one.left(103.0), one.until) == (1.5, 0.0, 102.0)
    assert not one.is_over(101.9) and one.is_over(102.0)
    assert one.within(101.0, 100.0) is None
    assert course().left(1e9) is None and not course().is_over(1e9)


def test_time_for_each_attempt() -> None:
    one = course(policy=Policy(per_try=1.0))
    assert (one.within(100.0, 100.0), one.within(100.75, 100.0), one.within(103.0, 100.0)) == (1.0, 0.25, 0.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"7", 7.0),
        (b" 0 ", 0.0),
        (b"Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        (b"Thu, 01 Jan 1970 00:00:40 GMT", 0.0),
        (b"\xb2", 0.0),
        (b"soon", 0.0),
        (b"-1", 0.0),
        (b"99999999999999999999", 0.0),
        (b"Thu, 99 Jan 1970 00:01:40 GMT", 0.0),
    ],
)
def test_retry_after(text: bytes, seconds: float) -> None:
    assert retry_after(response(b"retry-after: " + text + b"\r\n"), 60.0) == seconds


def test_nobody_said_when_to_come_back() -> None:
    assert retry_after(response(), 60.0) == 0.0


def test_the_idempotent_methods_are_the_rfc_s() -> None:
    assert set(SAFE) == IDEMPOTENT
    assert Policy.of(Retry()).methods == IDEMPOTENT
