"""A gateway for all the cases that one test process plays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.playground import Playground, gateway_config
from tests.support.gateway_process import Gateway
from tests.support.http import split


@pytest.fixture(scope="session")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    with Playground() as ground:
        gateway = Gateway(tmp_path_factory.mktemp("conformance"), gateway_config(ground.origin.port, ground.closed))
        try:
            gateway.up()
            listeners = gateway.status()["listeners"]
            ground.ports = {name: split(address)[1] for name, address in listeners.items()}
            yield ground
            gateway.stop()
        finally:
            gateway.kill()
