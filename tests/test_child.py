"""How master and child talk, and what a child must be able to find out before it starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from gateway.child import hear, ids, tell
from gateway.config.model import Process
from gateway.errors import StartError

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for side in (ours, theirs):
            side.setblocking(False)  # as master and child do with theirs
        yield ours, theirs


def test_messages_arrive_one_by_one(pair: Pair) -> None:
    ours, theirs = pair
    assert tell(ours, {"do": "go"})
    assert tell(ours, {"do": "drain", "timeout": 1.5, "leaving": ["é"], "stopping": False})
    assert hear(theirs) == ({"do": "go"}, [])
    assert hear(theirs) == ({"do": "drain", "timeout": 1.5, "leaving": ["é"], "stopping": False}, [])
    with pytest.raises(BlockingIOError):
        hear(theirs)


def test_descriptors_ride_along(pair: Pair) -> None:
    ours, theirs = pair
    read, write = os.pipe()
    try:
        assert tell(ours, {"do": "reopen"}, [write])
        message, [fd] = hear(theirs)
        assert message == {"do": "reopen"} and fd != write
        os.write(fd, b"through it")
        os.close(fd)
        assert os.read(read, 100) == b"through it"
    finally:
        os.close(read)
        os.close(write)


def test_the_other_side_is_gone(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()
    assert not tell(ours, {"do": "go"})
    assert hear(ours) == (None, [])


def test_what_was_said_before_the_end_is_still_heard(pair: Pair) -> None:
    ours, theirs = pair
    tell(theirs, {"say": "failed", "why": "x"})
    theirs.close()
    assert hear(ours) == ({"say": "failed", "why": "x"}, [])
    assert hear(ours) == (None, [])


def test_one_that_does_not_read_stops_nobody(pair: Pair) -> None:
    ours, _ = pair
    for _ in range(10_000):
        if not tell(ours, {"do": "go"}):
            return
    raise AssertionError("a full channel took everything")


def test_a_large_message_arrives_whole(pair: Pair) -> None:
    ours, theirs = pair
    why = "x" * 50_000
    assert tell(ours, {"say": "failed", "why": why})
    assert hear(theirs) == ({"say": "failed", "why": why}, [])


def test_users_and_groups() -> None:
    assert ids(Process()) == (None, None)
    assert ids(Process(user="root")) == (0, 0)
    assert ids(Process(group="root")) == (None, 0)
    with pytest.raises(StartError, match=r'^process\.user: there is no user "nobody-has-this-name"$'):
        ids(Process(user="nobody-has-this-name"))
    with pytest.raises(StartError, match=r'^process\.group: there is no group "nobody-has-this-name"$'):
        ids(Process(user="root", group="nobody-has-this-name"))
