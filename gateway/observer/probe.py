"""Probes: each endpoint is asked how it is by this process alone, and every worker believes what comes out.

Over a kept connection where the endpoint keeps one; each at its own time, so that they don't all come at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from copy import copy
from functools import partial
from time import monotonic

from gateway.config.model import Config
from gateway.config.upstreams import Health as HealthConfig
from gateway.config.upstreams import Upstream as UpstreamConfig
from gateway.config.values import Origin, TcpAddress
from gateway.errors import BadResponse, ConnectionCut, DescriptorsExhausted, PortsExhausted, UpstreamError
from gateway.findings import Findings
from gateway.metrics.plan import Plan
from gateway.proxy_protocol import v1, v2
from gateway.scoreboard import Cells, Mark
from gateway.tls import Tls, client_context
from gateway.truth import Truth, now_ms
from gateway.upstream.dial import dial
from gateway.upstream.endpoint import Endpoint, placed
from gateway.upstream.health import Event, rules_of
from gateway.upstream.http1 import Connection
from gateway.upstream.upstream import tell
from gateway.wheel import Wheel

log = logging.getLogger("gateway")

_BODY = 64 * 1024  # bytes in which `expect_body` is looked for
_JITTER = 0.1  # of the interval, more or less
# What a connection begins with: that it is nobody's but ours.
_PREFACES = {"off": b"", "v1": v1(None, None), "v2": v2(None, None)}


class Probes:
    """All of them. `start` once, and `renew` when an upstream has other endpoints; they end with the process, or by
    `stop`."""

    def __init__(
        self, config: Config, plan: Plan, truth: Truth, cells: Cells, wheel: Wheel, findings: Findings
    ) -> None:
        """Raises StartError when the TLS of probes can't be set up."""
        self._config = config
        self._contexts = {name: _context(name, one) for name, one in config.upstreams.items()}
        self._plan = plan
        self._truth = truth
        self._cells = cells
        self._wheel = wheel
        self._findings = findings
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._short = Short()
        self._runs = False

    def start(self) -> None:
        self._runs = True
        for name in self._config.upstreams:
            self.renew(name)

    def renew(self, name: str) -> None:
        """Probe the endpoints that an upstream has now, and no others."""
        upstream = self._config.upstreams.get(name)
        if not self._runs or upstream is None or upstream.health is None:
            return
        here = {(name, str(one.address)): one for one in self._findings.members(name, upstream)}
        for key in [key for key in self._tasks if key[0] == name and key not in here]:
            self._tasks.pop(key).cancel()
        for key, one in here.items():
            if key not in self._tasks:
                endpoint = placed(name, upstream, one, self._plan, self._truth, self._cells)
                context = self._contexts[name]
                probe = _Probe(
                    name, upstream, upstream.health, endpoint, context, self._truth, self._wheel, self._short
                )
                task = self._tasks[key] = asyncio.get_running_loop().create_task(probe.go_on())
                task.add_done_callback(partial(_over, probe))

    def stop(self) -> None:
        self._runs = False
        for task in self._tasks.values():
            task.cancel()


class Short:
    """What this process is short of. That says nothing about endpoints, and is told once for as long as it lasts."""

    def __init__(self) -> None:
        self._told: set[str] = set()  # "" of descriptors, an endpoint of ports for connections to it

    def of(self, what: str, error: UpstreamError) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("probes are not possible, and nothing is judged by them: %s", error)

    def over(self, endpoint: str) -> None:
        """There is a connection to an endpoint."""
        self._told -= {"", endpoint}


class _Probe:
    """One endpoint's."""

    def __init__(
        self,
        upstream: str,
        config: UpstreamConfig,
        health: HealthConfig,
        endpoint: Endpoint,
        context: ssl.SSLContext | None,
        truth: Truth,
        wheel: Wheel,
        short: Short,
    ) -> None:
        self._upstream = upstream
        self._config = health
        self._rules = rules_of(config.outlier)
        self._endpoint = endpoint
        self._truth = truth
        self._wheel = wheel
        self._short = short
        self._kept: Connection | None = None
        self._target = endpoint if health.port is None else _at(endpoint, health.port)
        self._what = "probe" if self._target is endpoint else f"probe of port {health.port}"
        self._tls = None
        if context is not None and health.tls is not None:
            self._tls = Tls(context, health.tls.server_name or _host(self._target))
        self._preface = _PREFACES[health.proxy_protocol]
        self._ranges = [_range(text) for text in health.expect_status]
        host = self._target.host or self._target.authority
        self._request = b"GET %b HTTP/1.1\r\nhost: %b\r\nuser-agent: gateway-probe\r\naccept: */*\r\n\r\n" % (
            health.path.encode(),
            host,
        )

    async def go_on(self) -> None:
        interval = self._config.interval
        await asyncio.sleep(random.uniform(0, interval))
        while True:
            began = monotonic()
            try:
                async with asyncio.timeout(self._config.timeout):
                    await self._ask()
            except TimeoutError:
                self._drop()
                self._judge(f"{self._what}: no answer within {self._config.timeout:g} s")
            except (DescriptorsExhausted, PortsExhausted) as error:
                self._drop()
                self._short.of("" if isinstance(error, DescriptorsExhausted) else self._target.name, error)
            except UpstreamError as error:
                self._drop()
                self._judge(f"{self._what}: {str(error).removeprefix(f'{error.endpoint}: ')}")
            else:
                self._judge("")
            wait = interval * random.uniform(1 - _JITTER, 1 + _JITTER) - (monotonic() - began)
            await asyncio.sleep(max(0.0, wait))

    async def _ask(self) -> None:
        """One probe. Raises UpstreamError when it fails."""
        if self._config.kind == "tcp":
            (await self._dial()).close()
            return
        kept, self._kept = self._kept, None
        if kept is None or not kept.is_usable(monotonic(), repeatable=True):
            await self._exchange(await self._dial())
            return
        try:
            await self._exchange(kept)
        except ConnectionCut:  # it was closed while nobody asked; that says nothing
            await self._exchange(await self._dial())

    async def _dial(self) -> Connection:
        timeout = self._config.timeout
        connection = await dial(self._target, self._wheel, timeout, timeout, timeout, self._tls, None, self._preface)
        self._short.over(self._target.name)
        return connection

    async def _exchange(self, connection: Connection) -> None:
        connection.busy = True
        self._kept = connection  # so that whatever happens it is closed
        connection.send(self._request, bodyless=False, more=False)
        head = await connection.response()
        while head.status < 200:
            head = await connection.response()
        body = connection.take()
        while not connection.over and len(body) < _BODY:
            await connection.arrival()
            body += connection.take()
        connection.busy = False
        connection.since = monotonic()
        if not connection.is_reusable():
            self._drop()
        if not any(head.status in one for one in self._ranges):
            raise BadResponse(self._endpoint.name, f"answered {head.status}", sent=True)
        wanted = self._config.expect_body
        if wanted is not None and wanted.encode() not in body:
            raise BadResponse(self._endpoint.name, f"the body does not hold {wanted!r}", sent=True)

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _judge(self, failure: str) -> None:
        """Count the outcome, and change the endpoint's condition when there are enough of a kind. failure: "" for a
        pass."""
        health, truth = self._endpoint.health, self._truth
        record = health.record
        grown, ended = (Mark.PROBES_FAILED, Mark.PROBES_PASSED) if failure else (Mark.PROBES_PASSED, Mark.PROBES_FAILED)
        enough = self._config.unhealthy_after if failure else self._config.healthy_after
        with truth.changing():
            record[grown] += 1
            record[ended] = 0
            if record[grown] < enough:
                return
            before = health.condition
            event = Event.PROBES_FAILED if failure else Event.PROBES_PASSED
            if not health.observe(event, now_ms(), self._rules, True):
                return
            truth.changed()
        tell(self._upstream, self._endpoint.name, before, health.condition, failure or "probes pass")


def _at(endpoint: Endpoint, port: int) -> Endpoint:
    """The same with another port, to connect to. A unix socket has none, and stays what it is."""
    if not isinstance(endpoint.address, TcpAddress):
        return endpoint
    other = copy(endpoint)
    other.address = TcpAddress(endpoint.address.host, port)
    other.authority = Origin(other.address).authority.encode()
    if endpoint.host == endpoint.authority:
        other.host = other.authority
    return other


def _host(endpoint: Endpoint) -> str:
    return endpoint.address.host if isinstance(endpoint.address, TcpAddress) else endpoint.authority.decode()


def _context(upstream: str, config: UpstreamConfig) -> ssl.SSLContext | None:
    """What the probes of an upstream trust; None when they are not over TLS. Raises StartError."""
    tls = config.health.tls if config.health is not None else None
    return None if tls is None else client_context(f"upstreams.{upstream}.health.tls.ca", tls.ca, tls.verify)


def _over(probe: _Probe, task: asyncio.Task[None]) -> None:
    """Its endpoint is gone: so is the connection that was kept."""
    probe._drop()


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)
