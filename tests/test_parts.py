"""A body on its way, in parts: nothing lost, nothing out of order, and not many parts however small they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.parts import WRITE, add, take

SIZES = st.lists(st.sampled_from([1, 2, 100, 4095, 4096, 4097, 16383, 16384, 16385, 70_000]), max_size=40)


@given(SIZES, st.lists(st.booleans(), max_size=80))
def test_what_goes_in_comes_out(sizes: list[int], steps: list[bool]) -> None:
    parts: list[bytes] = []
    given, taken = b"", b""
    waiting = [bytes((index % 256,)) * size for index, size in enumerate(sizes)]
    for adding in (*steps, *[True] * len(waiting)):
        if adding and waiting:
            part = waiting.pop(0)
            given += part
            add(parts, part)
        elif not adding:
            taken += take(parts)
    while piece := take(parts):
        taken += piece
    assert taken == given and parts == []


@given(SIZES)
def test_what_is_taken_is_worth_a_write_and_no_large_part_is_copied(sizes: list[int]) -> None:
    parts: list[bytes] = []
    whole = [bytes(size) for size in sizes]
    for part in whole:
        add(parts, part)
    large = {id(part) for part in whole if len(part) > WRITE}
    while piece := take(parts):
        assert len(piece) <= WRITE or id(piece) in large


def test_tiny_parts_do_not_make_a_long_list() -> None:
    parts: list[bytes] = []
    for _ in range(100_000):
        add(parts, b"x")
    assert len(parts) < 100


def test_nothing_there() -> None:
    assert take([]) == b""
