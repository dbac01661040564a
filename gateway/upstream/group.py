"""What whoever forwards a request asks of those who may answer it: an upstream of the configuration (`upstream.py`), or
the addresses of a destination that a client has named (`destination.py`)."""

from __future__ import annotations

from collections.abc import Collection
from types import TracebackType
from typing import Any, Protocol

from gateway.upstream.endpoint import Endpoint
from gateway.upstream.http1 import Connection
from gateway.upstream.sticky import Sticky


class Turn(Protocol):
    """Somebody taken for one attempt, and given back at its end: `Lease` says how."""

    @property
    def began(self) -> float: ...
    @property
    def endpoint(self) -> Any: ...
    @property
    def connection(self) -> Connection | None: ...
    def take(self, repeatable: bool) -> Connection | None: ...
    async def connect(self, within: float | None = None) -> Connection: ...
    def answered(self, status: int) -> None: ...
    def __enter__(self) -> Turn: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Group(Protocol):
    """Those who answer for each other: `Upstream` says how they are chosen."""

    @property
    def sticky(self) -> Sticky | None: ...
    def lease(
        self,
        key: bytes,
        tried: Collection[Any],
        bound: Endpoint | None = None,
        place: None = None,
        even_ejected: bool = False,
    ) -> Turn: ...
    async def wait(
        self,
        key: bytes,
        tried: Collection[Any],
        bound: Endpoint | None,
        busy: Any,
        within: float | None = None,
        even_ejected: bool = False,
    ) -> Turn: ...
    def has_other(self, tried: Collection[Any]) -> bool: ...
