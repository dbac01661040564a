"""From the listeners of a configuration to what accepts on their sockets: a method for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

from gateway.config import listeners as configured
from gateway.config.listeners import NO_EGRESS
from gateway.config.model import Config
from gateway.config.upstreams import UpstreamTimeouts
from gateway.errors import Absent, StartError
from gateway.exchange import Exchange
from gateway.ledger import Ledger
from gateway.listeners.admission import Admission
from gateway.listeners.crowd import Crowd
from gateway.listeners.egress import Egress
from gateway.listeners.forward import ForwardProxy
from gateway.listeners.http1 import Http1Connection
from gateway.listeners.identity import Introducer, Trust
from gateway.listeners.listener import Clock, Datagrams, Entry, HttpEntry
from gateway.listeners.preface import Expected
from gateway.listeners.resolver import Resolver, resolver_of
from gateway.listeners.sni import Names
from gateway.listeners.socks5 import Socks5Connection, Socks5Entry
from gateway.listeners.tcp import TcpConnection, TcpEntry, Way
from gateway.listeners.udp import Sessions
from gateway.metrics.plan import LISTENER_ACCEPTED, LISTENER_IDLE, LISTENER_OPEN, TUNNELS_OPEN, Plan
from gateway.middleware.identity.challenge import challenge
from gateway.middleware.identity.verifier import Verifier
from gateway.pages import load_pages
from gateway.proxy.answers import Answers
from gateway.proxy.destinations import Destinations
from gateway.proxy_protocol import v1, v2
from gateway.ranges import Ranges
from gateway.reasons import EGRESS_RULES, status_of
from gateway.refusals import Style
from gateway.relay import Bounds
from gateway.scoreboard import Cells
from gateway.session import Session
from gateway.upstream.upstream import Upstream
from gateway.wheel import Wheel
from gateway.wire import Pair, read_proxied


@dataclass(slots=True, kw_only=True)
class Entries:
    """Makes them; `made` and `datagrams` are what there is then. finished, ended: told once of each exchange, and of
    each session of the other listeners."""

    config: Config
    app: Any  # for requests that go to routes
    plan: Plan
    cells: Cells
    wheel: Wheel
    clock: Clock
    ledger: Ledger
    upstreams: Mapping[str, Upstream]
    admission: Admission
    own: tuple[str, ...]  # where the gateway itself listens, as "[::]:80"
    absent: Callable[[Absent], None] | None  # told of what this machine lacks; without it that is an error
    finished: Callable[[Exchange], None]
    ended: Callable[[Session], None]
    via: bytes  # our name
    made: list[Entry] = field(default_factory=list)
    datagrams: list[Datagrams] = field(default_factory=list)
    _destinations: list[Destinations] = field(default_factory=list)
    _egresses: dict[str, Egress] = field(default_factory=dict)
    _resolvers: dict[str | None, Resolver] = field(default_factory=dict)  # by the server that is asked
    _users: dict[str, Verifier] = field(default_factory=dict)  # by file

    def add(self, listener: configured.Listener) -> None:
        """Raises StartError."""
        try:
            self._add(listener)
        except Absent as error:
            if self.absent is None:
                raise
            self.absent(error)

    def _add(self, listener: configured.Listener) -> None:
        match listener:
            case configured.HttpListener():
                self.made.append(self._http(listener))
            case configured.TcpListener():
                self.made.append(self._tcp(listener))
            case configured.UdpListener():
                self.datagrams.append(self._udp(listener))
            case configured.Socks5Listener():
                self.made.append(self._socks5(listener))
            case configured.ForwardListener():
                self.made.append(self._forward(listener))

    def close(self) -> None:
        """Nobody will connect any more."""
        for destinations in self._destinations:
            destinations.close()
        for egress in self._egresses.values():
            egress.close()
        for users in self._users.values():
            users.close()

    def _egress(self, name: str | None) -> Egress:
        """The guard of that name, one for all listeners that name it."""
        name = name or NO_EGRESS
        known = self._egresses.get(name)
        if known is None:
            at = {rule: self.plan.block("denial", name, rule) for rule in EGRESS_RULES}
            count = partial(_count_denial, self.cells, at)
            config = self.config.egresses[name]
            # One for all that ask the same: the threads of this machine's own way are the process's.
            resolver = self._resolvers.get(config.resolver)
            if resolver is None:
                resolver = self._resolvers[config.resolver] = resolver_of(config.resolver)
            known = Egress(name, config, self.ledger, self.own, count, resolver)
            self._egresses[name] = known
        return known

    def _verifier(self, name: str, auth: configured.Auth | None) -> Verifier | None:
        """Who may use the listener of that name; None for anybody. Raises StartError."""
        if auth is None:
            return None
        known = self._users.get(auth.htpasswd)
        if known is None:
            try:
                known = self._users[auth.htpasswd] = Verifier(auth.htpasswd)
            except StartError as error:
                raise type(error)(f"listeners.{name}.auth: {error}") from None
        return known

    def _common(self, listener: configured.Listener) -> dict[str, Any]:
        """What every kind of `Entry` has."""
        block = self.plan.block("listener", listener.name)
        return {
            "name": listener.name,
            "wheel": self.wheel,
            "cells": self.cells,
            "open_cell": block + LISTENER_OPEN,
            "idle_cell": block + LISTENER_IDLE,
            "accepted_cell": block + LISTENER_ACCEPTED,
            "tunnels_cell": self.plan.block("tunnels", listener.name) + TUNNELS_OPEN,
            "backlog": listener.backlog,
            "admission": self.admission,
            "max_connections": listener.most_connections,
            "preface": self._preface(listener),
            "crowd": self._crowd(listener),
            "closes_tunnels": listener.on_reload == "close",
        }

    def _crowd(self, listener: configured.Listener) -> Crowd | None:
        most = listener.max_connections_per_client
        return Crowd(self.ledger, listener.name, most) if most is not None else None

    def _preface(self, listener: configured.Listener) -> Expected | None:
        """Whether a PROXY header comes first."""
        accepting = getattr(listener, "proxy_protocol", None)
        if not isinstance(accepting, configured.Accepting) or accepting.accept == "off":
            return None
        refused = self._refused_request if listener.IS_HTTP else self._refused_session
        return Expected(Trust(accepting.networks), accepting.accept == "require", accepting.timeout, refused)

    def _refused_request(self, entry: Any, client: str, port: int, started: float, reason: str) -> None:
        exchange = Exchange(entry, client, started)
        exchange.status, exchange.reason = status_of(reason), reason
        self.finished(exchange)

    def _refused_session(self, entry: Any, client: str, port: int, started: float, reason: str) -> None:
        session = Session(entry, client, port, started)
        session.reason = reason
        self.ended(session)

    def _http(self, listener: configured.HttpListener) -> HttpEntry:
        return HttpEntry(
            **self._common(listener),
            protocol=Http1Connection,
            app=self.app,
            limits=listener.limits,
            timeouts=listener.timeouts,
            clock=self.clock,
            finished=self.finished,
            introducer=Introducer(listener.forwarded, Trust(listener.trusted_proxies), "http"),
            style=Style(load_pages(listener.error_pages), listener.reason_header),
            strict_paths=listener.path_policy == "reject",
        )

    def _forward(self, listener: configured.ForwardListener) -> HttpEntry:
        timeouts = UpstreamTimeouts().model_copy(
            update={
                "connect": listener.connect_timeout,
                "response": listener.response_timeout,
                "idle": listener.idle_timeout,
                "tunnel_idle": listener.idle_timeout,
            }
        )
        destinations = Destinations(listener.name, self.via, timeouts, self.wheel, self.cells, listener.max_idle)
        self._destinations.append(destinations)
        app = ForwardProxy(
            egress=self._egress(listener.egress),
            onward=destinations,
            clients=Ranges(listener.clients) if listener.clients else None,
            users=self._verifier(listener.name, listener.auth),
            challenge=_challenge(listener.auth),
            via=self.via,
            wheel=self.wheel,
            cells=self.cells,
            connect_timeout=listener.connect_timeout,
            idle_timeout=listener.idle_timeout,
            bandwidth=listener.bandwidth,
        )
        return HttpEntry(
            **self._common(listener),
            protocol=Http1Connection,
            app=Answers(app),
            limits=listener.limits,
            timeouts=listener.timeouts,
            clock=self.clock,
            finished=self.finished,
            introducer=Introducer(listener.forwarded, Trust(), "http"),
            style=Style(reason_header=listener.reason_header),
            strict_paths=False,
            read=read_proxied,
        )

    def _tcp(self, listener: configured.TcpListener) -> TcpEntry:
        routes = self.config.tcp_routes_of(listener.name)
        return TcpEntry(
            **self._common(listener),
            protocol=TcpConnection,
            ended=self.ended,
            way=self._way(listener.upstream) if listener.upstream is not None else None,
            names=Names((name, self._way(route.upstream)) for route in routes for name in route.sni),
            hello_timeout=listener.hello_timeout,
            idle_timeout=listener.idle_timeout,
            bounds=Bounds(listener.max_duration or inf, listener.bandwidth or inf),
            header=_HEADERS[listener.proxy_protocol.send],
        )

    def _udp(self, listener: configured.UdpListener) -> Sessions:
        config = self.config.upstreams[listener.upstream]
        block = self.plan.block("listener", listener.name)
        return Sessions(
            listener,
            self.upstreams[listener.upstream],
            by_client=config.balance == "consistent_hash" and config.hash_key == "client_ip",
            sources=config.source_addresses,
            crowd=self._crowd(listener),
            admission=self.admission,
            ledger=self.ledger,
            wheel=self.wheel,
            cells=self.cells,
            accepted_cell=block + LISTENER_ACCEPTED,
            open_cell=block + LISTENER_OPEN,
            tunnels_cell=self.plan.block("tunnels", listener.name) + TUNNELS_OPEN,
            datagrams=self.plan.block("datagrams", listener.name),
            overflow_cell=self.plan.block("overflow", listener.name),
            ended=self.ended,
        )

    def _socks5(self, listener: configured.Socks5Listener) -> Socks5Entry:
        return Socks5Entry(
            **self._common(listener),
            protocol=Socks5Connection,
            ended=self.ended,
            clients=Ranges(listener.clients) if listener.clients else None,
            users=self._verifier(listener.name, listener.auth),
            egress=self._egress(listener.egress),
            takes_datagrams=listener.udp_associate,
            udp_address=listener.udp_address,
            handshake_timeout=listener.handshake_timeout,
            connect_timeout=listener.connect_timeout,
            idle_timeout=listener.idle_timeout,
            bandwidth=listener.bandwidth,
        )

    def _way(self, name: str) -> Way:
        config = self.config.upstreams[name]
        by_client = config.balance == "consistent_hash" and config.hash_key == "client_ip"
        return Way(self.upstreams[name], by_client, inf if config.timeouts.total is None else config.timeouts.total)


def _challenge(auth: configured.Auth | None) -> list[Pair]:
    """What a client of a proxy is told that has to say who it is."""
    if auth is None:
        return []
    return [(b"proxy-authenticate", value) for _, value in challenge("Basic", realm=auth.realm, charset="UTF-8")]


# What tells an endpoint whose connection it gets.
_HEADERS = {"off": None, "v1": v1, "v2": v2}


def _count_denial(cells: Cells, at: Mapping[str, int], rule: str) -> None:
    """rule: as logs have it, with its particulars."""
    cells[at[rule] if rule in at else at[rule.partition(" ")[0]]] += 1
