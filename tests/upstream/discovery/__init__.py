"""Tests of gateway/upstream/discovery."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.config.upstreams import Endpoint, Upstream


def looked_up(**discovery: Any) -> Upstream:
    return Upstream.model_validate({"discovery": discovery})


def addresses(endpoints: Iterable[Endpoint]) -> list[str]:
    return [str(one.address) for one in endpoints]
