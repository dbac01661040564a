"""What is written in one turn of the event loop leaves together; nothing is held for longer, whoever miscounts."""

from __future__ import annotations

import asyncio

from gateway.outgoing import Held, Outgoing, outgoing_of
from tests.upstream.peer import live


class Message(Held):
    def __init__(self, number: int, left: list[int]) -> None:
        self.number = number
        self._left = left

    def leave(self) -> None:
        self._left.append(self.number)


def turn(*, counted: int, writing: int) -> tuple[list[int], list[list[int]]]:
    """What has left in the end, and what had after each step, of one turn in which some steps are counted and some
    write, as a connection does."""
    left: list[int] = []
    after: list[list[int]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        outgoing = Outgoing(loop)

        def step(number: int) -> None:
            if outgoing.steps:
                outgoing.steps -= 1
            if number < writing:
                if outgoing.steps:
                    outgoing.hold(Message(number, left))
                else:
                    left.append(number)
                    outgoing.flush()
            after.append([*left])

        for number in range(max(counted, writing)):
            loop.call_soon(step, number)
        outgoing.steps = counted
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(run())
    return left, after


def test_the_last_step_of_a_turn_sends_what_all_have_written() -> None:
    left, after = turn(counted=5, writing=5)
    assert left == [4, 0, 1, 2, 3] and after[:-1] == [[]] * 4


def test_where_there_is_but_one_nothing_is_held() -> None:
    assert turn(counted=1, writing=1) == ([0], [[0]])


def test_only_so_many_are_held() -> None:
    left, after = turn(counted=40, writing=40)
    assert sorted(left) == [*range(40)] and len(left) == 40
    waiting = [number + 1 - len(done) for number, done in enumerate(after)]
    assert max(waiting) == 15 and after[15] == [*range(16)]


def test_what_is_held_leaves_soon_when_nobody_writes_after_it() -> None:
    left, after = turn(counted=5, writing=3)
    assert after == [[]] * 5 and left == [0, 1, 2]


def test_a_wrong_count_holds_nothing_for_long() -> None:
    assert turn(counted=9, writing=4)[0] == [0, 1, 2, 3]
    assert sorted(turn(counted=2, writing=4)[0]) == [0, 1, 2, 3]


@live
async def test_who_leaves_may_have_others_wait() -> None:
    """As a retry does, which is begun when a request could not leave."""
    loop = asyncio.get_running_loop()
    outgoing = Outgoing(loop)
    left: list[int] = []

    class Again(Message):
        def leave(self) -> None:
            super().leave()
            outgoing.hold(Message(self.number + 1, left))

    outgoing.steps = 2
    outgoing.hold(Again(1, left))
    outgoing.flush()
    assert left == [1]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert left == [1, 2]


def test_each_loop_has_its_own() -> None:
    async def own() -> Outgoing:
        loop = asyncio.get_running_loop()
        assert outgoing_of(loop) is outgoing_of(loop)
        return outgoing_of(loop)

    one = asyncio.run(own())
    one.steps = 3  # of a loop that has ended
    assert asyncio.run(own()) is not one
