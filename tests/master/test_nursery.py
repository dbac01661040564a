"""What is left when a child can't be made: nothing."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from gateway.config.model import Config
from gateway.ledger import Ledger
from gateway.log import Files
from gateway.master.generation import Generation
from gateway.master.nursery import Nursery
from gateway.metrics.plan import Plan
from gateway.scoreboard import Fact, Role, Scoreboard
from tests.support.descriptors import descriptors


@pytest.mark.parametrize("call", ["os.fork", "socket.socketpair"])
def test_a_child_that_can_not_be_made_takes_no_seat(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(call, refuse)
    config = Config.model_validate({"listeners": [{"name": "web", "listen": "127.0.0.1:0"}], "log": {"access": "off"}})
    board = Scoreboard.create()
    nursery = Nursery(board, Plan(), {}, lambda: None, {0}, Ledger.create())
    generation = Generation(1, config, Files(config.log))
    open_before = descriptors()
    for _ in range(300):  # more often than there are seats
        with pytest.raises(OSError, match="unavailable"):
            nursery.spawn(Role.WORKER, 0, generation, [], [])
    assert descriptors() == open_before
    assert board.seat(1)[Fact.ROLE] == Role.NONE and board.seat(1)[Fact.STATE] == 0
    os.close(board.fd)
