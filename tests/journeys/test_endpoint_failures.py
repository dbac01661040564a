"""Endpoints that are killed, frozen and started again while two workers serve: no client sees any of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pytest

from tests.support.access_log import endpoints_of, lines
from tests.support.endpoints import changes, condition, is_ready
from tests.support.gateway_process import Gateway, Start
from tests.support.load import WHOLE, Load
from tests.support.origin_process import OriginProcess
from tests.support.settings import Settings
from tests.support.waiting import eventually, paced

# The timeout is for a busy machine: who is well must not be taken for down. The budget: all six callers may wait at the
# same endpoint when it goes, and by default three of them may be sent elsewhere at the same time.
PROBED = """
[upstreams.app.retry]
on = ["connect", "reset", "timeout"]
budget = "100%"
[upstreams.app.health]
path = "/hello"
interval = "200ms"
timeout = "5s"
"""


@pytest.fixture
def origins() -> Iterator[list[OriginProcess]]:
    with ExitStack() as stack:
        yield [stack.enter_context(OriginProcess()) for _ in range(3)]


def group(origins: list[OriginProcess], more: str, **upstream: Any) -> Settings:
    return Settings(tuple(origin.address for origin in origins), workers=2, upstream=upstream, more=more)


def load_of(one: Gateway) -> Load:
    return Load(one.address(), posts=0, pages=WHOLE)


def share(origins: list[OriginProcess], load: Load, requests: int = 300) -> float:
    """Which part of the next requests goes to the first."""
    before = [origin.counts().requests for origin in origins]
    load.goes_on(requests)
    after = [origin.counts().requests for origin in origins]
    had = [now - then for then, now in zip(before, after, strict=True)]
    return had[0] / sum(had)


def asked_since(one: Gateway, moment: float, endpoint: str) -> tuple[int, int]:
    """Of the requests that ended after this moment of the clock: how many there are, and of how many of them this
    endpoint was asked."""
    asked = [
        endpoints_of(line)
        for line in lines(one.folder / "access.log")
        if datetime.fromisoformat(line["time"]).timestamp() > moment
    ]
    return len(asked), sum(endpoint in those for those in asked)


def test_a_killed_endpoint_fails_nobody_and_comes_back_slowly(gateway: Start, origins: list[OriginProcess]) -> None:
    """`kill -9`: no request fails, and after a second none is sent there any more; nor is one sent before a probe has
    passed. Back on the same port it gets little at first and its whole share in the end."""
    victim = origins[0]
    one = gateway(group(origins, PROBED, slow_start="10s"))
    with load_of(one) as load:
        assert share(origins, load) > 0.25
        victim.kill()
        killed = time.time()
        eventually(lambda: not is_ready(one, victim.address), "it is out of use", 1.0)
        load.goes_on()
        eventually(lambda: asked_since(one, killed + 1, victim.address)[0] >= 200)
        assert asked_since(one, killed + 1, victim.address)[1] == 0
        victim.start()
        eventually(lambda: condition(one, victim.address) == "up")
        assert share(origins, load) < 0.2
        eventually(lambda: share(origins, load) > 0.28, "its share has risen", 30)
    load.clean()
    assert changes(one, victim.address)[-2:] == ["probation", "up"]
    assert len(changes(one, victim.address)) <= 4, "each change is logged once, not by each worker"


def test_a_frozen_endpoint_fails_nobody(gateway: Start, origins: list[OriginProcess]) -> None:
    """SIGSTOP: the kernel goes on taking connections for it, and what is sent there is answered by nobody. Each request
    that waits there is sent again elsewhere when the response is out of time."""
    victim = origins[0]
    one = gateway(group(origins, PROBED, **{"timeouts.response": "1s"}))
    with load_of(one) as load:
        load.goes_on()
        victim.freeze()
        eventually(lambda: not is_ready(one, victim.address))
        load.goes_on(300)
        victim.thaw()
        eventually(lambda: condition(one, victim.address) == "up")
        assert share(origins, load) > 0.25
    load.clean()


def test_an_endpoint_that_comes_and_goes_for_a_minute_fails_nobody(
    gateway: Start, origins: list[OriginProcess]
) -> None:
    """Killed every two seconds, and started again a second later. Each time it is taken in use again."""
    victim = origins[0]
    one = gateway(group(origins, PROBED.replace("200ms", "50ms") + "healthy_after = 1"))
    with load_of(one) as load:
        for second in paced(1.0, 60):
            if second % 2 == 0:
                victim.kill()
                eventually(lambda: not is_ready(one, victim.address))
            else:
                victim.start()
                eventually(lambda: condition(one, victim.address) == "up")
        load.goes_on()
    load.clean()
