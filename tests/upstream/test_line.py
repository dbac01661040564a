"""Who waits for room in an upstream."""

from __future__ import annotations

import pytest

from gateway.config.model import Queue
from gateway.errors import QueueFull, WaitedTooLong
from gateway.upstream.line import Line
from gateway.wheel import Wheel
from tests.upstream.parts import FIRST, Parts
from tests.upstream.peer import live


class Waiting:
    """A line of one worker, on a wheel that never turns."""

    def __init__(self, size: int = 10, parts: Parts | None = None) -> None:
        self.parts = parts or Parts()
        wheel = Wheel(lambda seconds, callback: None, lambda: 0.0)
        config = Queue.model_validate({"size": size, "timeout": "1s"})
        self.line = Line("app", config, self.parts.truth, wheel, self.parts.cells, FIRST)

    @property
    def count(self) -> int:
        return int(self.parts.cells[FIRST])


@live
async def test_in_turn() -> None:
    waiting = Waiting()
    line = waiting.line
    assert not line and line.is_first(None)
    one, two = line.join(None), line.join(None)
    assert line.is_first(one) and not line.is_first(two) and not line.is_first(None)
    line.next()
    await line.turn(one)
    assert not two.turn.done()
    line.leave(one)
    await line.turn(two)  # what made room for the one may have made more
    line.leave(two)
    assert not line and waiting.count == 0


@live
async def test_there_is_an_end_to_it() -> None:
    waiting = Waiting(size=1)
    waiting.line.join(None)
    with pytest.raises(QueueFull):
        waiting.line.join(None)
    assert waiting.count == 1


@pytest.mark.parametrize("is_called", [False, True])
@live
async def test_the_time_is_over(is_called: bool) -> None:
    """Also at the very moment at which it is called."""
    waiting = Waiting()
    place = waiting.line.join(None)
    if is_called:
        place.call()
    place.overdue()
    with pytest.raises(WaitedTooLong):
        await waiting.line.turn(place)
    waiting.line.leave(place)


@live
async def test_who_is_first_is_called_every_now_and_then() -> None:
    """Room may come from another worker."""
    waiting = Waiting()
    place = waiting.line.join(None)
    for _ in range(3):
        await waiting.line.turn(place)
    waiting.line.leave(place)
