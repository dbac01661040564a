"""A loop with the recording origin in it, and the configuration of the gateway that stands in front."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, TypeVar

from tests.conformance.case import Case, play
from tests.conformance.delivery import Delivery, Unread
from tests.conformance.stage import Origin, Stage, on_stage

Result = TypeVar("Result")


class Playground:
    """Plays one case after the other. A context manager. ports: of the proxy's listeners, once it is up.

    closed: a port on which nobody listens, and nobody else can.
    """

    def __init__(self, patience: float = 10.0, strict: bool = True) -> None:
        """patience: seconds to wait for what must come. strict: whether a client's connection that may go on must, and
        one to the origin that should not be used again must not; no clause forbids a proxy to be more careful, or less,
        as long as nobody gets what isn't theirs."""
        self.patience = patience
        self.strict = strict
        self.ports: Mapping[str, int] = {}
        self.origin = Origin()
        self.closed = 0

    def __enter__(self) -> Playground:
        self._taken = socket.socket()
        self._taken.bind(("127.0.0.1", 0))
        self.closed = self._taken.getsockname()[1]
        self._unread = Unread()
        self._runner = asyncio.Runner()
        self.run(self.origin.start())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.origin.stop()
        self.run(asyncio.sleep(0))
        self._runner.close()
        self._unread.close()
        self._taken.close()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)

    def play(self, case: Case, delivery: Delivery) -> None:
        """Raises Failed."""
        self.run(self._play(case, delivery))

    async def _play(self, case: Case, delivery: Delivery) -> None:
        with on_stage(self.stage(repr(case), delivery)) as stage:
            try:
                await play(case, stage)
            finally:
                await stage.close()

    def stage(self, name: str, delivery: Delivery) -> Stage:
        return Stage(name, self.ports, self.origin, delivery, self._unread, self.patience, self.strict)

    def is_up(self, port: int) -> bool:
        """Whether the proxy's listener there answers with what the origin says."""
        return self.run(self._is_up(port))

    async def _is_up(self, port: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        try:
            writer.write(b"GET /-probe/up HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(2):
                return (await reader.read()).endswith(b"/-probe/up")
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()


def gateway_config(origin: int, closed: int, workers: int = 1) -> str:
    """One worker, so that a probe follows a case through the same event loop. What differs from the defaults does so
    on listeners and routes of its own."""
    return f"""
[process]
workers = {workers}
control = "control.sock"
drain_timeout = "5s"

[log]
access = "access.log"

[[listeners]]
name = "web"
listen = "127.0.0.1:0"

[[listeners]]
name = "open"
listen = "127.0.0.1:0"
path_policy = "pass"

[[listeners]]
name = "trusting"
listen = "127.0.0.1:0"
trusted_proxies = ["127.0.0.1/32", "10.0.0.0/8"]
forwarded = "both"

[[listeners]]
name = "standard"
listen = "127.0.0.1:0"
forwarded = "rfc7239"

[[listeners]]
name = "tight"
listen = "127.0.0.1:0"
limits = {{ request_line = "200B", headers = "1KiB", header_count = 20, body = "1KiB", requests_per_connection = 3 }}

[[listeners]]
name = "hasty"
listen = "127.0.0.1:0"
timeouts = {{ head = "500ms", body_idle = "500ms", keep_alive = "500ms" }}

[upstreams.app]
endpoints = ["127.0.0.1:{origin}"]

[upstreams.old]
endpoints = ["127.0.0.1:{origin}"]

[upstreams.dead]
endpoints = ["127.0.0.1:{closed}"]

[upstreams.hasty]
endpoints = ["127.0.0.1:{origin}"]
timeouts = {{ response = "500ms", idle = "500ms" }}

[[routes]]
name = "old"
path = "/-old"
upstream = "old"

[[routes]]
name = "dead"
path = "/-dead"
upstream = "dead"

[[routes]]
name = "hasty"
path = "/-hasty"
upstream = "hasty"

[[routes]]
name = "no-upgrades"
path = "/-no-upgrades"
upstream = "app"
upgrade = []

[[routes]]
name = "any-upgrade"
path = "/-any-upgrade"
upstream = "app"
upgrade = "any"

[[routes]]
name = "app"
upstream = "app"
"""
