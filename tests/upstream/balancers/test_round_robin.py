"""nginx's sequence, to the letter: of weights that are whole, and while some have fallen."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.balancers.round_robin import RoundRobin
from gateway.upstream.balancers.turns import Deadlines, period
from tests.upstream.balancers import Asked, endpoints, first

WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=6)


class Nginx:
    """ngx_http_upstream_get_peer and free_rr_peer, as far as weights go; max_fails as given."""

    def __init__(self, weights: list[int], max_fails: int = 1) -> None:
        self.weights = weights
        self.effective = list(weights)
        self.current = [0] * len(weights)
        self.max_fails = max_fails

    def pick(self) -> int:
        best = -1
        total = 0
        for peer, weight in enumerate(self.weights):
            self.current[peer] += self.effective[peer]
            total += self.effective[peer]
            if self.effective[peer] < weight:
                self.effective[peer] += 1
            if best < 0 or self.current[peer] > self.current[best]:
                best = peer
        self.current[best] -= total
        return best

    def fail(self, peer: int) -> None:
        if len(self.weights) > 1:
            lost = max(1, self.weights[peer] // self.max_fails)  # nginx: not at least 1
            self.effective[peer] = max(0, self.effective[peer] - lost)


def balanced(*weights: int, offset: float = 0.0, max_fails: int = 1) -> tuple[RoundRobin, list[Asked]]:
    ready = endpoints(*weights)
    balancer = RoundRobin(offset, max_fails=max_fails)
    balancer.rebuild(ready)
    return balancer, ready


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((5, 1, 1), "aabacaa"),
        ((1, 1, 1), "abc"),
        ((2, 1), "aba"),
        ((1, 2), "bab"),
        ((4, 2), "aba"),
        ((3, 2, 1), "abacba"),
        ((1, 1), "ab"),
        ((7,), "a"),
        ((4, 3, 2, 1), "abcabdacba"),
    ],
)
def test_known_sequences(weights: tuple[int, ...], expected: str) -> None:
    balancer, ready = balanced(*weights)
    picked = [ready.index(first(balancer)) for _ in range(2 * len(expected))]
    assert "".join("abcd"[number] for number in picked) == 2 * expected


@given(WEIGHTS)
def test_the_sequence_is_that_of_nginx(weights: list[int]) -> None:
    balancer, ready = balanced(*weights)
    nginx = Nginx(weights)
    for _ in range(2 * sum(weights)):
        assert first(balancer) is ready[nginx.pick()]


@pytest.mark.parametrize("weights", [(65535, 65534, 1), (7919, 7907, 7901, 1)])
def test_also_where_its_period_is_too_long_to_be_worked_out(weights: tuple[int, ...]) -> None:
    assert period(weights) == []
    balancer, ready = balanced(*weights)
    nginx = Nginx(list(weights))
    for _ in range(20_000):
        assert first(balancer) is ready[nginx.pick()]


@given(WEIGHTS, st.floats(0, 1, exclude_max=True))
def test_an_offset_only_turns_the_sequence(weights: list[int], offset: float) -> None:
    balancer, ready = balanced(*weights, offset=offset)
    picks = [ready[number] for number in period(weights)]
    seen = [first(balancer) for _ in picks]
    assert any(seen == picks[start:] + picks[:start] for start in range(len(picks)))


@given(
    weights=st.lists(st.integers(1, 20), min_size=2, max_size=6),
    before=st.integers(0, 50),
    gaps=st.lists(st.one_of(st.just(0), st.integers(0, 100)), min_size=1, max_size=20),
    max_fails=st.integers(1, 4),
)
def test_with_failures_too(weights: list[int], before: int, gaps: list[int], max_fails: int) -> None:
    balancer, ready = balanced(*weights, max_fails=max_fails)
    nginx = Nginx(weights, max_fails)
    for _ in range(before):
        assert first(balancer) is ready[nginx.pick()]
    for gap in gaps:  # that many go well, then one fails
        for left in range(gap, -1, -1):
            peer = nginx.pick()
            assert first(balancer) is ready[peer]
            balancer.observe(ready[peer], 0.1, not left)
        nginx.fail(peer)
    for _ in range(3 * sum(weights)):  # and then they are whole, and the turns repeat
        assert first(balancer) is ready[nginx.pick()]


def test_a_failure_takes_the_whole_weight_and_picks_give_it_back() -> None:
    balancer, (a, _) = balanced(5, 5)
    assert first(balancer) is a
    balancer.observe(a, 0.1, True)
    assert [first(balancer) is a for _ in range(12)] == [False, False, False, False, True, False] + 3 * [True, False]


def test_a_third_of_it_when_three_failures_are_one_too_many() -> None:
    lost = []
    for failures in range(5):
        balancer, (a, _) = balanced(9, 9, max_fails=3)
        for _ in range(failures):
            balancer.observe(a, 0.1, True)
        lost.append(9 - Counter(first(balancer) for _ in range(18))[a])
    assert lost == sorted(lost) and lost[0] == 0 and lost[3] == lost[4] > lost[1]


@pytest.mark.parametrize("weights", [[1, 1, 1], [5, 1, 1], [10, 10], [3, 2, 2]])
def test_who_always_fails_gets_as_little_as_from_nginx(weights: list[int]) -> None:
    balancer, ready = balanced(*weights)
    nginx = Nginx(weights)
    ours, theirs = Counter[int](), Counter[int]()
    for _ in range(10_000):
        ours[peer := ready.index(first(balancer))] += 1
        balancer.observe(ready[peer], 0.1, peer == 0)
        theirs[peer := nginx.pick()] += 1
        if peer == 0:
            nginx.fail(0)
    for peer in range(len(weights)):
        assert ours[peer] / 10_000 == pytest.approx(theirs[peer] / 10_000)


def test_who_was_away_comes_back_with_the_weight_it_had_left() -> None:
    balancer, (a, b, c) = balanced(9, 9, 9)
    balancer.observe(a, 0.1, True)
    balancer.rebuild([b, c], [a, b, c])
    assert a not in {first(balancer) for _ in range(100)}  # who is not asked does not rise either
    balancer.rebuild([a, b, c])
    assert Counter(first(balancer) for _ in range(9))[a] < 3
    balancer.observe(a, 0.1, True)
    balancer.rebuild([b, c])  # a is no member any more
    balancer.rebuild([a, b, c])
    assert Counter(first(balancer) for _ in range(9))[a] == 3


def test_late_news_of_who_is_away_counts_too() -> None:
    balancer, (a, b, c) = balanced(9, 9, 9)
    balancer.rebuild([b, c], [a, b, c])
    balancer.observe(a, 0.1, True)
    balancer.rebuild([a, b, c])
    assert Counter(first(balancer) for _ in range(9))[a] < 3


def test_a_failed_weight_that_was_lowered_meanwhile_is_whole() -> None:
    balancer, (a, b) = balanced(10, 10, max_fails=10)
    balancer.observe(a, 0.1, True)
    a.weight = 3
    balancer.rebuild([a, b])
    assert [first(balancer) for _ in range(13)].count(a) == 3


def test_of_a_single_one_failures_change_nothing() -> None:
    balancer, [a] = balanced(3)
    for _ in range(5):
        assert first(balancer) is a
        balancer.observe(a, 0.1, True)


def test_retries_go_to_whose_turn_is_next() -> None:
    balancer, (a, b, c) = balanced(5, 1, 1)
    assert list(balancer.order(b"")) == [a, b, c]
    assert [first(balancer) for _ in range(4)] == [a, b, a, c]


def test_in_a_large_group_a_failure_costs_nothing_to_look_at() -> None:
    balancer, ready = balanced(*[1] * 65)
    balancer.observe(ready[0], 0.1, True)
    assert [first(balancer) for _ in ready] == ready


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=300), st.floats(0, 1, exclude_max=True))
def test_deadlines_leave_nobody_more_than_one_turn_ahead_or_behind(weights: list[int], start: float) -> None:
    deadlines = Deadlines(weights, start)
    turns = 3 * len(weights)
    picked = Counter(deadlines.turn() for _ in range(turns))
    # There is a moment at which each weight has had as many turns as are due, give or take one.
    least = max((times - 1) / weights[number] for number, times in picked.items())
    most = min((picked[number] + 1) / weight for number, weight in enumerate(weights))
    assert least <= most * (1 + 1e-9)


def test_a_long_period_is_not_worked_out() -> None:
    assert period([]) == []
    assert period([1] * 10_000) == list(range(10_000))
    assert len(period([1, 8191])) == 8192
    assert period([1, 8192]) == []
    assert period([65535, 65534]) == []
    assert len(period([65534, 65534 * 3])) == 4


def test_the_same_weights_are_worked_out_once() -> None:
    weights = [97, *range(101, 140)]
    turns = period(weights)
    assert len(turns) == sum(weights) and period(weights) is turns
    balancer, ready = balanced(*weights)
    for _ in range(300):
        next(balancer.order(b""))
        balancer.observe(ready[0], 0.1, True)
    assert period(weights) == turns and Counter(turns) == dict(enumerate(weights))
