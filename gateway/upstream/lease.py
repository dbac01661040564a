"""Taking an endpoint and giving it back: one object, and the outcome is said once.

Entering counts the endpoint in flight; leaving lowers it, gives the connection back and reports to health exactly once:
a failure of the endpoint, a success, or nothing when neither can be told (the client went away, a kept connection
turned out to be closed already). A trial is decided when its response begins: the rest may take hours. Leaving it
reports only what has failed since.
"""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from gateway.errors import (
    ConnectionCut,
    Declined,
    DescriptorsExhausted,
    OutOfTime,
    PortsExhausted,
    QueueTimeout,
    UpstreamError,
)
from gateway.upstream.endpoint import Endpoint
from gateway.upstream.http1 import Connection

if TYPE_CHECKING:
    from gateway.upstream.upstream import Upstream

# What a server answers that can't serve, or that another one behind it leaves waiting.
_UNABLE = (502, 503, 504)


class Lease:
    __slots__ = (
        "_answered", "_counted", "_is_told", "_needs_room", "_of_circuit", "_on_trial", "_upstream", "began",
        "connection", "endpoint",
    )  # fmt: skip

    def __init__(
        self, upstream: Upstream, endpoint: Endpoint, on_trial: bool = False, of_circuit: bool = False
    ) -> None:
        """on_trial: its outcome decides about the endpoint; of_circuit: about the upstream."""
        self._upstream = upstream
        self._on_trial = on_trial
        self._of_circuit = of_circuit
        self._counted = False
        self._needs_room = False
        self._is_told = False  # its outcome is
        self._answered = 0.0  # when the response began, of a lease to which it matters
        self.began = monotonic()
        self.endpoint = endpoint
        self.connection: Connection | None = None

    def count(self) -> None:
        """Count it in flight before it is entered, because how many there are is decided here."""
        self._counted = self._needs_room = True
        self.endpoint.take_off()

    def __enter__(self) -> Lease:
        """May be entered again by who takes it over."""
        if not self._counted:
            self._counted = True
            self.endpoint.take_off()
        return self

    def take(self, repeatable: bool) -> Connection | None:
        """A kept connection, at once; None when there is none. repeatable: whether the request may be made twice."""
        self.connection = self.endpoint.pool.take(repeatable)
        return self.connection

    async def connect(self, within: float | None = None) -> Connection:
        """A new connection, or the next that comes free. within: seconds for it when they are fewer than what the
        configuration grants. Raises UpstreamError."""
        self.connection = await self.endpoint.pool.acquire(within)
        return self.connection

    def answered(self, status: int) -> None:
        """The final response head has come, or a 101. To be called as soon as it has: a trial is decided by it."""
        upstream = self._upstream
        is_trial = self._on_trial or self._of_circuit
        if not is_trial and not upstream.learns:
            return
        self._answered = monotonic()
        failed = status in _UNABLE
        if failed or (upstream.learns and status != 101):
            upstream.took(self.endpoint, self._answered - self.began, failed)
        if is_trial:
            self._report(failed, f"answered {status}", self.began)
            self._answered = monotonic()  # what comes now comes after the change that this was

    def connected(self) -> None:
        """There is a connection of another protocol than HTTP, and that is all the endpoint can show: a success, which
        is reported now. What becomes of the connection says nothing about it."""
        upstream = self._upstream
        if upstream.learns:
            upstream.took(self.endpoint, monotonic() - self.began, False)
        self._report(False, "", self.began)
        self._is_told = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        endpoint, connection, upstream = self.endpoint, self.connection, self._upstream
        endpoint.land()
        if connection is not None:
            endpoint.pool.release(connection)
        if self._needs_room:
            upstream.landed()
        if self._is_told:
            return
        unable = connection is not None and connection.status in _UNABLE
        answered = self._answered
        is_trial = self._on_trial or self._of_circuit
        if error is None or isinstance(error, Declined):
            failed = unable
        elif isinstance(error, UpstreamError) and _is_its_fault(error, connection):
            failed = True
        else:
            if is_trial and not answered:
                upstream.undecided(endpoint, self._on_trial, self._of_circuit, self.began)
            return
        if not answered:
            if failed or upstream.learns:
                upstream.took(endpoint, monotonic() - self.began, failed)
        elif failed and not unable:
            upstream.took(endpoint, answered - self.began, failed)
        elif is_trial:
            return  # there is nothing that was not said when it was answered
        began = answered if is_trial and answered else self.began  # the trial itself has been reported
        if not failed:
            self._report(False, "", began)
        else:
            status = connection.status if connection is not None else 0
            self._report(True, str(error or f"answered {status}"), began)

    def _report(self, failed: bool, cause: str, began: float) -> None:
        endpoint, upstream = self.endpoint, self._upstream
        if upstream.counts:
            upstream.judged(endpoint, failed, self._of_circuit, began)
        if failed:
            upstream.failed(endpoint, cause, began)
        elif not endpoint.health.is_plain:
            upstream.succeeded(endpoint, began)


def _is_its_fault(error: UpstreamError, connection: Connection | None) -> bool:
    """Whether an error says something about the endpoint: not that we ran out of connections, nor that a kept one had
    been closed by the time we used it. One that is cut in the middle of a response was not."""
    if isinstance(error, QueueTimeout | DescriptorsExhausted | PortsExhausted | OutOfTime):
        return False
    if not isinstance(error, ConnectionCut) or not error.reused:
        return True
    return error.sent and connection is not None and connection.status != 0
