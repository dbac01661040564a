"""Who waits for room in an upstream."""

from __future__ import annotations

import pytest

from gateway.config.upstreams import Queue
from gateway.errors import QueueFull, WaitedTooLong
from gateway.metrics.plan import LINE_FIRST, Plan
from gateway.scoreboard import Fact
from gateway.upstream import line as module
from gateway.upstream.line import Line
from gateway.wheel import Wheel
from tests.upstream.parts import FIRST, Parts
from tests.upstream.peer import live

LINE = FIRST + 8


class Waiting:
    """A line of one worker, on a wheel that never turns."""

    def __init__(self, size: int = 10, beside: Waiting | None = None) -> None:
        """beside: that of another worker."""
        self.parts: Parts = Parts() if beside is None else beside.parts
        self.cells = self.parts.cells if beside is None else self.parts.board.take(2, [])
        wheel = Wheel(lambda seconds, callback: None, lambda: 0.0)
        config = Queue.model_validate({"size": size, "timeout": "1s"})
        self.line = Line("app", config, self.parts.truth, wheel, self.cells, FIRST, LINE)

    @property
    def count(self) -> int:
        return int(self.cells[FIRST])


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


# Over all workers.


@live
async def test_whoever_came_first_goes_first_wherever() -> None:
    here = Waiting()
    there = Waiting(beside=here)
    assert here.line.is_first(None) and there.line.is_first(None)
    waiting = [(at.line, at.line.join(None)) for at in (here, there, here)]
    while waiting:
        assert [at.is_first(place) for at, place in waiting] == [True, *[False] * (len(waiting) - 1)]
        assert not here.line.is_first(None) and not there.line.is_first(None), "who comes now joins them"
        at, place = waiting.pop(0)
        at.leave(place)
    assert here.line.is_first(None) and there.line.is_first(None)


@live
async def test_room_that_another_worker_makes_calls_who_is_first() -> None:
    here = Waiting()
    there = Waiting(beside=here)
    one, two = here.line.join(None), there.line.join(None)
    await here.line.turn(one)
    there.line.next()
    assert not two.turn.done(), "it is not its turn"
    await here.line.turn(one)
    here.line.leave(one)
    await there.line.turn(two)
    there.line.leave(two)


@pytest.mark.parametrize("beats", [False, True])
@live
async def test_a_worker_that_stands_still_is_passed_over(beats: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed a moment ago, say. One that beats may wait for long."""
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    monkeypatch.setattr(module, "monotonic_ns", lambda: int(now * 1e9))
    here = Waiting()
    there = Waiting(beside=here)
    one = here.line.join(None)
    two = there.line.join(None)
    for _ in range(3):
        now += 0.4
        here.cells[Fact.BEAT] = int(now * 1e9) if beats else 1
        assert not there.line.is_first(two)
    now += 0.4
    here.cells[Fact.BEAT] = int(now * 1e9) if beats else 1
    assert there.line.is_first(two) is not beats
    here.line.leave(one)
    assert there.line.is_first(two)
    here.line.join(None)
    three = here.line.join(None)
    there.line.leave(two)
    assert not here.line.is_first(three) and not there.line.is_first(None), "it moves again"


@live
async def test_another_generation_is_no_measure() -> None:
    """Its limits may be others."""
    here = Waiting()
    there = Waiting(beside=here)
    there.cells[Fact.GENERATION] = 2
    one = here.line.join(None)
    assert there.line.is_first(None)
    two = there.line.join(None)
    assert here.line.is_first(one) and there.line.is_first(two)


@live
async def test_a_seat_that_was_left_waits_for_nothing() -> None:
    plan = Plan()
    assert plan.block("line", "app") + LINE_FIRST in plan.gauges()
    here = Waiting()
    there = Waiting(beside=here)
    here.line.join(None)
    here.parts.board.leave(1, [LINE + LINE_FIRST])
    assert there.line.is_first(None)
