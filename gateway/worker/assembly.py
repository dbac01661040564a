"""From a configuration to the objects that serve it: the only file that sees every room, and the order of the onion.

Everything the configuration decides is decided here, once. What is built is not changed afterwards.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2s
from random import random
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from gateway.config import model as configured
from gateway.config.layers import Standing
from gateway.config.model import Config
from gateway.config.upstreams import Endpoint as EndpointConfig
from gateway.config.upstreams import Upstream as UpstreamConfig
from gateway.documents import Documents, wanted
from gateway.errors import Absent, StartError
from gateway.exchange import Exchange
from gateway.findings import MOST, Findings
from gateway.ledger import Ledger
from gateway.listeners.admission import Admission
from gateway.listeners.listener import Clock, Datagrams, Entry, HttpEntry
from gateway.metrics.plan import EVERY_ROUTE, Plan
from gateway.middleware import MIDDLEWARE
from gateway.middleware.identity.credential import Redact, redactor
from gateway.middleware.middleware import Middleware, Place
from gateway.middleware.onion import Onion
from gateway.pages import load_pages
from gateway.proxy.answers import Answers
from gateway.proxy.forward import Forward
from gateway.proxy.hash_key import HashKey, hash_key
from gateway.proxy.hedge import Hedging
from gateway.proxy.mirror import Copies, Mirror
from gateway.proxy.persistence import Persistence
from gateway.proxy.redirect import Redirect
from gateway.proxy.retry import Policy
from gateway.proxy.rewrite import Rewrite
from gateway.proxy.router import Refusing, Router, inside
from gateway.proxy.routes import Route, Table, compiled
from gateway.proxy.split import Choice, Side, Split
from gateway.proxy.tape import Shelf
from gateway.proxy.tunnel import Tunnel
from gateway.refusals import Style
from gateway.respond import Respond
from gateway.scoreboard import Cells, Scoreboard
from gateway.session import Session
from gateway.tls import client_context
from gateway.truth import Truth
from gateway.upstream.budget import Budget
from gateway.upstream.builder import Builder
from gateway.upstream.clients import Clients
from gateway.upstream.members import Members
from gateway.upstream.upstream import Upstream
from gateway.wheel import Wheel
from gateway.worker.entries import Entries


def pseudonym(control: str) -> bytes:
    """Our name in Via: not the host's, which tells outsiders more than they need, but its own for each gateway, so that
    one behind another is no loop (RFC 9110, section 7.6.3). The same in every worker and after a restart."""
    who = f"{socket.gethostname()}\0{control}".encode()
    return b"gateway-" + blake2s(who, digest_size=4).hexdigest().encode()


def _left_out(use: str) -> None:
    return None


class GatewayApp(Starlette):
    """The worker's application. Lifespan goes Starlette's way; a request goes straight to the proxy, which is the one
    route there is: matching it anew for each request would cost 4 us and always say yes."""

    def __init__(self, front: Any, lifespan: Any) -> None:
        super().__init__(routes=[Mount("/", app=front)], lifespan=lifespan)
        self._front = front

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        scope["app"] = self
        if scope["type"] == "http":
            return self._front(scope, receive, send)
        return self.router(scope, receive, send)


@dataclass(slots=True)
class Assembled:
    """A worker's object graph."""

    app: GatewayApp
    entries: list[Entry]
    datagrams: list[Datagrams]
    upstreams: dict[str, Upstream]
    members: dict[str, Members]  # by upstream
    clock: Clock
    clients: Clients

    @property
    def http_entries(self) -> list[HttpEntry]:
        return [entry for entry in self.entries if isinstance(entry, HttpEntry)]

    def renew(self, name: str, listed: Iterable[EndpointConfig]) -> None:
        """These are the endpoints of an upstream from here on. What is under way to others goes on."""
        upstream = self.upstreams.get(name)
        if upstream is not None:
            upstream.update(*self.members[name].take(listed))


@dataclass(slots=True)
class Common:
    """What all workers of a generation share. plugin: imports what "module:Name" names; without one, plug-ins are left
    out. absent: told of what layers name and this machine lacks; without one that is an error. own: where the gateway
    itself listens, as "[::]:80"."""

    findings: Findings = field(default_factory=Findings)
    documents: Documents = field(default_factory=Documents)
    ledger: Ledger = field(default_factory=Ledger.create)
    plugin: Callable[[str], Any] = _left_out
    absent: Callable[[Absent], None] | None = None
    own: tuple[str, ...] = ()


def assemble(
    config: Config,
    plan: Plan,
    board: Scoreboard,
    cells: Cells,
    wheel: Wheel,
    finished: Callable[[Exchange], None],
    offset: float = 0.0,
    common: Common | None = None,
    ended: Callable[[Session], None] = lambda session: None,
) -> Assembled:
    """Build everything, also outside of an event loop, where nobody will listen.

    cells: the seat of this worker on the board. offset: 0 <= offset < 1, its place among its siblings; balancers start
    there.
    """
    truth = Truth(board)
    common = common or Common()
    build = Builder(plan, truth, cells, wheel, offset).upstream
    built = {name: build(name, one, common.findings.members(name, one)) for name, one in config.upstreams.items()}
    upstreams = {name: upstream for name, (upstream, _) in built.items()}
    members = {name: known for name, (_, known) in built.items()}
    clients = Clients(wheel, cells)
    via = pseudonym(config.process.control)
    shelf = Shelf()
    tunnels = {name: Tunnel(wheel, one.timeouts.tunnel_idle, cells) for name, one in config.upstreams.items()}

    listeners = [listener.name for listener in config.http_listeners]

    def forward(route: configured.Route, name: str, fallback: Any = None) -> Forward:
        one, upstream, group = config.upstreams[name], upstreams[name], plan.block("group", name)
        persistence = Persistence(
            upstream,
            Policy.of(one.retry),
            Budget(one.retry.budget, upstream.load, truth, cells, group),
            shelf,
            cells,
            group,
            one.timeouts.total,
            Hedging(one.hedge, cells, group) if one.hedge is not None else None,
            fallback,
        )
        upgrade, rewrite = _upgrade(route), _rewrite(route)
        return Forward(upstream, via, cells, tunnels[name], upgrade, rewrite, _hash_key(one), persistence)

    def mirrored(route: configured.Route, mirror: configured.Mirror, app: Any) -> Mirror:
        name = mirror.upstream
        one, at = config.upstreams[name], plan.block("mirror", route.name)
        copies = Copies(upstreams[name], one, mirror, via, _rewrite(route), _hash_key(one), cells, at)
        return Mirror(app, copies, mirror.percent, random, via, _upgrade(route))

    def application(route: configured.Route, made: Route) -> Any:
        if route.respond is not None:
            return Respond(route.respond)
        if route.redirect is not None:
            return Redirect(route.redirect)
        if route.upstream is None:
            return Refusing("no_route")  # a layer answers before this
        app = shared(route, made)
        return app if route.mirror is None else mirrored(route, route.mirror, app)

    def shared(route: configured.Route, made: Route) -> Forward | Split:
        def side(name: str, fallback: Side | None) -> Side:
            own = replace(made, upstream=name, app=forward(route, name, fallback))
            own.series = _series(plan, listeners, own)
            return Side(own)

        fallback = side(route.fallback, None) if route.fallback is not None else None
        names = route.sides
        if len(names) == 1:
            return forward(route, names[0], fallback)
        return Split(Choice(route), {name: side(name, fallback) for name in names}, random)

    layers: list[Middleware] = []

    def place(one: Standing, route: str) -> Place:
        return Place(
            identity=one.identity,
            route=route,
            layer=one.name,
            cells=cells,
            at=plan.block("layer", route, one.name),
            truth=truth,
            ledger=common.ledger,
            wheel=wheel,
            clients=clients,
            documents=common.documents,
            plugin=common.plugin,
        )

    def onion(route: configured.Route | None, around: Onion | None = None) -> Onion:
        where = EVERY_ROUTE if route is None else route.name
        layers = [(MIDDLEWARE[one.options.kind], one.options, place(one, where)) for one in config.onion(route)]
        return Onion(layers, around, common.absent)

    redactions = [_redact([*config.onion(None), *config.onion(route)]) for route in config.routes]
    # Which route's credential stands in the target of a request for none nobody knows.
    redact = _redact([one for route in (None, *config.routes) for one in config.onion(route)])
    routes = []
    # The onion, outermost first: router, the layers around all routes, those of the route, a core (so that these layers
    # see what becomes of errors; where there are none, answers: whatever is raised becomes a response), the route's own
    # application. They call each other as bound methods, as an Onion does.
    everywhere = onion(None)
    for index, route in enumerate(config.routes):
        made = compiled(route, index, None, config.takes_preflights(route))
        made.series = _series(plan, listeners, made)
        made.style = Style(load_pages(route.error_pages)) if route.error_pages else None
        made.redact = redactions[index]
        made.app = application(route, made).__call__
        own = onion(route, everywhere)
        made.is_layered = own.innermost is not None
        made.app = own.around(made.app, layers) if made.is_layered else Answers(made.app).__call__
        routes.append((route, made))
    around = everywhere.open(inside, layers) if config.middleware else None
    front = Router(Table(routes), around, redact).__call__

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        for layer in layers:
            layer.start()
        yield
        for layer in layers:
            await layer.close()
        entries.close()
        clients.close()
        for upstream in upstreams.values():
            upstream.close()

    app = GatewayApp(front, lifespan)
    clock = Clock()
    most = sum(one.pool.max_connections * (len(one.endpoints) or MOST) for one in config.upstreams.values())
    most += config.most_tunnels
    entries = Entries(
        config=config,
        app=app.__call__,
        plan=plan,
        cells=cells,
        wheel=wheel,
        clock=clock,
        ledger=common.ledger,
        via=via,
        own=common.own,
        absent=common.absent,
        upstreams=upstreams,
        admission=Admission(cells, most),
        finished=finished if redact is None else partial(_finished, finished, redact),
        ended=ended,
    )
    for listener in config.listeners:
        entries.add(listener)
    return Assembled(app, entries.made, entries.datagrams, upstreams, members, clock, clients)


def _redact(layers: Iterable[Standing]) -> Redact | None:
    """What takes the credentials of these layers from a target."""
    names = {name for layer in layers for name in layer.options.secret_parameters()}
    return redactor(names) if names else None


def _finished(finished: Callable[[Exchange], None], redact: Redact, exchange: Exchange) -> None:
    """An exchange is over, also one that the listener refused."""
    if exchange.route is None:
        exchange.target = redact(exchange.target)
    finished(exchange)


def _hash_key(upstream: UpstreamConfig) -> HashKey | None:
    return hash_key(upstream.hash_key) if upstream.balance == "consistent_hash" else None


def _upgrade(route: configured.Route) -> frozenset[bytes] | None:
    return None if route.upgrade == "any" else frozenset(token.encode() for token in route.upgrade)


def _rewrite(route: configured.Route) -> Rewrite | None:
    if route.rewrite is None:
        return None
    return Rewrite(route.rewrite, route.path.value if route.path is not None and route.path.kind == "prefix" else "")


def _series(plan: Plan, listeners: list[str], route: Route) -> dict[str, tuple[int, int]]:
    latency = plan.block("latency", route.name)
    return {name: (plan.block("route", name, route.name, route.upstream), latency) for name in listeners}


def check(
    config: Config, plugin: Callable[[str], Any] = _left_out, absent: Callable[[Absent], None] | None = None
) -> None:
    """Build it all and throw it away: what can't be assembled must not reach a running gateway. plugin, absent: as in
    `Common`; the master imports no plug-ins, and leaves theirs to its workers. Raises GatewayError."""
    plan = Plan()
    if not plan.has_room(config):
        raise StartError(
            "the scoreboard has no room for the endpoints of this configuration: no two may share a record"
        )
    plan.cover(config)
    board, common = Scoreboard.create(), Common(plugin=plugin, absent=absent)
    wheel = Wheel(lambda seconds, callback: None, lambda: 0.0)
    assemble(config, plan, board, board.seat(1), wheel, lambda exchange: None, common=common)
    board.close()
    common.ledger.close()
    for name, upstream in config.upstreams.items():  # what the observer will need
        tls = upstream.health.tls if upstream.health is not None else None
        if tls is not None and tls.ca is not None:
            client_context(f"upstreams.{name}.health.tls.ca", tls.ca, tls.verify)
    for document in wanted(config).values():
        if document.ca is not None:
            client_context(f"the ca for {document.url}", document.ca, True)


def running_wheel() -> Wheel:
    """A wheel on the running event loop."""
    loop = asyncio.get_running_loop()
    return Wheel(loop.call_later, loop.time)
