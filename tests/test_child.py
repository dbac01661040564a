"""How master and child talk, and what a child must be able to find out before it starts."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.child import batch, hear, ids, is_read, learn, tell
from gateway.config.model import Process
from gateway.errors import StartError
from gateway.findings import Findings
from gateway.metrics.plan import Plan

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


def test_whether_a_message_was_read(pair: Pair) -> None:
    ours, theirs = pair
    assert is_read(ours)
    for _ in range(2):
        tell(ours, {"do": "go"})
    assert not is_read(ours)
    hear(theirs)
    assert not is_read(ours), "there is a second one"
    hear(theirs)
    assert is_read(ours)


def test_a_batch_fits_into_a_message_and_keeps_the_order(pair: Pair) -> None:
    parts = {f"upstream {number}": ["x" * 1000] * 30 for number in range(10)}
    first = batch(parts)
    assert list(first) == list(parts)[: len(first)] and 1 < len(first) < 10
    assert tell(pair[0], {"found": first})
    assert batch({"large": "x" * 150_000, "small": "y"}).keys() == {"large"}, "one at least"
    assert batch({}) == {}


def test_what_the_master_says_of_endpoints_is_learned() -> None:
    birth: Any = SimpleNamespace(plan=Plan(), findings=Findings())
    part = {"endpoints": [{"address": "a:1"}], "places": [{"upstream": 700, "endpoint": 800}], "trouble": ""}
    assert learn(birth, {"found": {"app": part}, "gone": []}) == ["app"]
    assert [str(one.address) for one in birth.findings.found["app"]] == ["a:1"]
    assert birth.plan.block("endpoint", "app", "a:1") == 800
    ill = part | {"trouble": "it is so"}
    assert learn(birth, {"found": {"app": ill}, "gone": []}) == [], "the list is the same"
    assert birth.findings.trouble == {"app": "it is so"}
    never: dict[str, Any] = {"endpoints": None, "places": [], "trouble": "nor this"}
    assert learn(birth, {"found": {"other": never}, "gone": [["app", "a:1"]]}) == []
    assert "other" not in birth.findings.found
    assert ("app", "a:1") not in birth.plan.blocks["endpoint"]
    assert learn(birth, {"found": {"app": part}, "gone": [["app", "a:1"]]}) == []
    assert birth.plan.block("endpoint", "app", "a:1") == 800, "gone, and back again"
    assert birth.findings.trouble == {"other": "nor this"}
