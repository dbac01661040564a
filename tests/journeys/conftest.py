"""What every journey starts from: an origin, and gateways that are gone when the test is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway_process import Gateway, Start
from tests.support.origin import Origin
from tests.support.settings import Settings


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as one:
        yield one


@pytest.fixture
def settings(origin: Origin) -> Settings:
    return Settings(origin.address)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Start]:
    """Starts a gateway and waits until it serves. One that still runs at the end of the test is stopped gracefully and
    must have nothing to be blamed for."""
    started: list[Gateway] = []

    def start(config: Settings | str, folder: Path | None = None, **more: Any) -> Gateway:
        one = Gateway(folder or tmp_path / f"g{len(started)}", config, **more)
        started.append(one)
        return one.up()

    try:
        yield start
        for one in started:
            if one.runs:
                one.stop()
    finally:
        for one in started:
            one.kill()
