"""What a fuzzer's bytes mean: what a peer sends, with marks in between for when and how.

A mark is 0xFF and a letter, so that an input stays readable and a mutation of a valid one is mostly valid again. 0xFF
before anything else is itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SPLIT = b"\xff|"  # a segment ends here
MANY = b"\xff*"  # the segment before comes again, often
END = b"\xffE"  # the peer has finished sending
LOST = b"\xffX"  # the connection is reset
LATE = b"\xffL"  # a second passes
FULL = b"\xffF"  # the peer takes nothing any more
FREE = b"\xffT"  # it takes again
OTHER = b"\xffO"  # what follows says the other side
MARKS = (SPLIT, MANY, END, LOST, LATE, FULL, FREE, OTHER)

_MARK = re.compile(rb"\xff([|*EXLFTO])")
REPEATED = 200


@dataclass(frozen=True, slots=True)
class Act:
    """One thing a peer does. mark: what it is, SPLIT for sending `data`."""

    mark: bytes
    data: bytes = b""


def acts(data: bytes) -> Iterator[Act]:
    """Take an input apart."""
    parts = _MARK.split(data)
    sent = parts[0]
    if sent:
        yield Act(SPLIT, sent)
    for letter, after in zip(parts[1::2], parts[2::2], strict=True):
        mark = b"\xff" + letter
        if mark == MANY:
            yield from [Act(SPLIT, sent)] * (REPEATED if sent else 0)
        elif mark != SPLIT:
            yield Act(mark)
        sent = after
        if sent:
            yield Act(SPLIT, sent)


def sides(data: bytes) -> tuple[bytes, bytes]:
    """An input for two: what the one does and what the other does."""
    one, _, other = data.partition(OTHER)
    return one, other
