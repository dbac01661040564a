"""What is learned of how long an endpoint keeps idle connections."""

from __future__ import annotations

import pytest

from gateway.upstream.lifetime import NEVER, Lifetime, announced


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (b"timeout=5", 5.0),
        (b"timeout=5, max=100", 5.0),
        (b"max=100,timeout=72", 72.0),
        (b"Timeout = 15", 15.0),
        (b'timeout="20"', 20.0),
        (b"timeout=0", 0.0),
        (b"max=100", NEVER),
        (b"nottimeout=5", NEVER),
        (b"timeout=-5", NEVER),
        (b"timeout=soon", NEVER),
        (b"", NEVER),
    ],
)
def test_what_is_announced(field: bytes, seconds: float) -> None:
    assert announced(field) == seconds


def after(*ends: tuple[float, float], oldest: float = 0.0) -> Lifetime:
    """ends: how old, and when."""
    one = Lifetime()
    for age, now in ends:
        one.ended(age, now, oldest)
    return one


def test_three_ends_at_about_the_same_age_tell_the_time() -> None:
    one = Lifetime()
    assert not one.ended(1.2, 10.0, 0.0)
    assert not one.ended(1.0, 12.0, 1.0)
    assert one.known(13.0) == NEVER
    assert one.ended(1.1, 14.0, 0.0)
    assert one.known(15.0) == 1.0
    assert not one.ended(1.1, 16.0, 0.0)  # that is nothing new
    assert repr(one) == "<Lifetime 1 s, 4 ends seen>"


def test_ends_at_different_ages_tell_nothing() -> None:
    assert after((1.0, 10.0), (2.0, 12.0), (3.0, 14.0), (1.3, 16.0)).known(17.0) == NEVER


def test_others_between_them_hide_nothing() -> None:
    assert after((5.0, 10.0), (1.0, 12.0), (30.0, 14.0), (1.05, 16.0), (0.2, 18.0), (1.1, 20.0)).known(21.0) == 1.0


def test_the_shortest_time_counts() -> None:
    one = after((9.0, 10.0), (9.0, 12.0), (9.0, 14.0), (2.0, 16.0), (2.0, 18.0), (2.0, 20.0))
    assert one.known(21.0) == 2.0


def test_a_restart_tells_nothing() -> None:
    """It ends all connections at once, and those that became idle together at the same age."""
    assert after(*((4.0, 10.0 + number / 1000) for number in range(500))).known(11.0) == NEVER


def test_who_ends_while_older_ones_live_was_not_ended_for_its_age() -> None:
    assert after((1.0, 10.0), (1.0, 12.0), (1.0, 14.0), oldest=1.3).known(15.0) == NEVER
    assert after((1.0, 10.0), (1.0, 12.0), (1.0, 14.0), oldest=1.2).known(15.0) == 1.0


def test_what_was_seen_holds_for_ten_minutes() -> None:
    one = after((1.0, 10.0), (1.0, 12.0), (1.0, 14.0))
    assert (one.known(613.9), one.known(614.0)) == (1.0, NEVER)
    one.ended(1.0, 614.5, 0.0)
    assert one.known(615.0) == NEVER  # what was seen before is forgotten too
    one.ended(1.0, 616.0, 0.0)
    one.ended(1.0, 618.0, 0.0)
    assert one.known(619.0) == 1.0
