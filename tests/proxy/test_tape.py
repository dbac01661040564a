"""A body that is kept while it streams."""

from __future__ import annotations

import asyncio

from gateway.proxy.tape import Message, Shelf, Tape


def parts(*bodies: bytes) -> list[Message]:
    last = len(bodies) - 1
    return [{"type": "http.request", "body": body, "more_body": at < last} for at, body in enumerate(bodies)]


class Source:
    """A listener's `receive`."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = iter(messages)

    async def __call__(self) -> Message:
        return next(self._messages, {"type": "http.disconnect"})


def heard(tape: Tape, count: int) -> list[Message]:
    async def hear() -> list[Message]:
        return [await tape.receive() for _ in range(count)]

    return asyncio.run(hear())


def test_it_is_heard_again_from_its_beginning_and_then_goes_on() -> None:
    messages = parts(b"a", b"b", b"c")
    tape = Tape(Source(messages), 10, Shelf())
    assert heard(tape, 2) == messages[:2]
    tape.rewind()
    assert heard(tape, 3) == messages
    tape.rewind()
    assert heard(tape, 4) == [*messages, {"type": "http.disconnect"}]
    assert tape.whole


def test_past_its_bound_it_lets_go_and_streams_on() -> None:
    messages = parts(b"abc", b"def", b"ghi")
    shelf = Shelf(100)
    tape = Tape(Source(messages), 5, shelf)
    assert heard(tape, 1) == messages[:1]
    assert (tape.whole, shelf.left) == (True, 97)
    assert heard(tape, 2) == messages[1:]
    assert (tape.whole, shelf.left) == (False, 100)


def test_all_of_a_worker_have_a_bound_together() -> None:
    shelf = Shelf(5)
    one, two = (Tape(Source(parts(b"abc", b"d")), 10, shelf) for _ in range(2))
    heard(one, 1)
    heard(two, 1)
    assert (one.whole, two.whole, shelf.left) == (True, False, 2)
    one.let_go()
    one.let_go()  # at the end of the request, whatever was before
    assert shelf.left == 5


def test_a_disconnect_is_not_kept() -> None:
    tape = Tape(Source([]), 10, Shelf())
    assert heard(tape, 1) == [{"type": "http.disconnect"}]
    assert tape.whole
