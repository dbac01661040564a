"""Probes as the endpoint counts them: one stream, whatever the number of workers and whatever becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.disturbances import DISTURBANCES
from tests.support.gateway_process import Gateway, Start
from tests.support.origin import Origin
from tests.support.settings import Settings
from tests.support.waiting import eventually, not_within

INTERVAL = 0.1
PROBED = """
[upstreams.app.health]
path = "/hello"
interval = "100ms"
"""


def started(gateway: Start, origin: Origin, workers: int) -> Gateway:
    one = gateway(Settings(origin.address, workers=workers, more=PROBED))
    eventually(lambda: origin.requests > 0)
    return one


@contextmanager
def one_stream(origin: Origin, probes: int) -> Iterator[None]:
    """From here on so many probes take their time: two streams bring them in half of it. A busy machine only makes it
    longer, and what varies is a tenth of the interval, and where in it a new observer begins."""
    wanted = origin.requests + probes
    with not_within(0.75 * INTERVAL * (probes - 2), f"{probes} probes"):
        yield
        eventually(lambda: origin.requests >= wanted, timeout=60)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_one_stream_whatever_the_number_of_workers(gateway: Start, origin: Origin, workers: int) -> None:
    started(gateway, origin, workers)
    with one_stream(origin, 20):
        pass


@pytest.mark.parametrize("happens", DISTURBANCES)
def test_no_second_one_whatever_happens(gateway: Start, origin: Origin, happens: str) -> None:
    """The old observer and the new one don't ask at the same time for more than a moment, and somebody goes on."""
    one = started(gateway, origin, 2)
    with one_stream(origin, 30):
        DISTURBANCES[happens](one)
    with one_stream(origin, 15):
        pass
