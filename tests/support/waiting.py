"""Waiting for facts instead of sleeping: the only place where a test looks at the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Fact = TypeVar("Fact")

_STEP = 0.02  # seconds between two looks


def eventually(look: Callable[[], Fact], what: str = "", timeout: float = 15.0) -> Fact:
    """The first true answer of `look`. Raises AssertionError when there is none in time."""
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or getattr(look, '__name__', 'it')}")
        time.sleep(_STEP)


def steadily(look: Callable[[], object], seconds: float, what: str = "") -> None:
    """Raises AssertionError as soon as `look` is not true, at any time within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert look(), what
        time.sleep(_STEP)


def paced(step: float, seconds: float) -> Iterator[int]:
    """0, 1, 2 ... one each `step` seconds, for so many seconds. Who takes longer with one has the next at once."""
    start = time.monotonic()
    number = 0
    while time.monotonic() < start + seconds:
        yield number
        number += 1
        time.sleep(max(0.0, start + number * step - time.monotonic()))


@contextmanager
def not_within(seconds: float, what: str = "") -> Iterator[None]:
    """Raises AssertionError when what is done inside takes no longer."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert took > seconds, f"{what or 'it'} took only {took:.2f} s, no more than {seconds:g} s"


@contextmanager
def within(seconds: float, what: str = "") -> Iterator[None]:
    """Raises AssertionError when what is done inside takes longer."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert took <= seconds, f"{what or 'it'} took {took:.2f} s, more than {seconds:g} s"
