"""Which route a request belongs to. Pure: a table built once from the configuration, asked once for each request.

Precedence is the Kubernetes Gateway API's, completed: explicit priority; host exact before the longest `*.suffix`
before none; path exact before the longest segment prefix before regex before none; then methods, more header
predicates, more query predicates, client addresses, file order. A host whose paths don't match falls through to the
next less specific. Where a layer takes preflights (CORS), one has the method that it asks for, too. Every step is a
dictionary look-up, so thousands of hosts cost what one costs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import parse_qsl

from gateway.config.model import Route as RouteConfig
from gateway.refusals import Style

# Hosts whose chain is remembered. Beyond it the memory is emptied: an attacker who invents names gains nothing.
_REMEMBERED = 4096
_LONGEST_HOST = 261  # 253 characters of a DNS name and a port; what is longer is no name we serve


@dataclass(slots=True, eq=False)
class Route:
    """A route with its predicates ready to be asked, and the application behind it."""

    name: str
    upstream: str  # the one that answers, or the first of several
    app: Any
    methods: frozenset[bytes]
    headers: tuple[tuple[bytes, bytes], ...]
    query: tuple[tuple[str, str], ...]
    networks: tuple[IPv4Network | IPv6Network, ...]
    pattern: re.Pattern[str] | None
    order: tuple[int, ...]
    series: dict[str, tuple[int, int]] = field(default_factory=dict)  # by listener: its metric cells
    preflights: bool = False  # whether those of CORS come here whose request would
    redact: Callable[[bytes], bytes] | None = None  # what takes credentials from a target that is written down
    style: Style | None = None  # how refusals look here, where it isn't the listener's to say
    is_layered: bool = False  # layers stand around the application

    @property
    def is_plain(self) -> bool:
        return not (self.methods or self.headers or self.query or self.networks)


@dataclass(slots=True)
class Asked:
    """What predicates may ask of a request. `pairs` is a call because it costs."""

    method: bytes
    query: bytes
    client: str
    pairs: Callable[[], list[tuple[bytes, bytes]]]


@dataclass(frozen=True, slots=True)
class NoRoute:
    """allow: the methods that would have matched (405), none for 404."""

    allow: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of comparing a route with a request. failed: the predicates that don't hold, by their keys."""

    route: Route
    failed: tuple[str, ...]


def compiled(config: RouteConfig, index: int, app: Any, preflights: bool = False) -> Route:
    """A route of the configuration, index being its place in the file. preflights: as in Route."""
    path = config.path
    return Route(
        name=config.name,
        upstream=next(iter(config.sides), ""),
        app=app,
        methods=frozenset(method.encode() for method in config.methods),
        headers=tuple((name.lower().encode(), value.encode()) for name, value in config.headers.items()),
        query=tuple(config.query.items()),
        networks=tuple(ip_network(network) for network in config.client_ip),
        pattern=re.compile(path.value) if path is not None and path.kind == "regex" else None,
        order=(*config.specificity, index),
        preflights=preflights,
    )


class _Paths:
    """The routes of one host at one priority."""

    __slots__ = ("any", "exact", "prefixes", "regexes")

    def __init__(self) -> None:
        self.exact: dict[str, list[Route]] = {}
        self.prefixes: dict[str, list[Route]] = {}
        self.regexes: list[Route] = []
        self.any: list[Route] = []

    def add(self, config: RouteConfig, route: Route) -> None:
        path = config.path
        if path is None or (path.kind == "prefix" and path.value == "/"):
            place = self.any if path is None else self.prefixes.setdefault("", [])
        elif path.kind == "exact":
            place = self.exact.setdefault(path.value, [])
        elif path.kind == "prefix":
            place = self.prefixes.setdefault(path.value.rstrip("/"), [])
        else:
            place = self.regexes
        place.append(route)
        place.sort(key=lambda known: known.order[-1:] if place is self.regexes else known.order)

    def candidates(self, path: str) -> Iterator[Route]:
        if self.exact and path in self.exact:
            yield from self.exact[path]
        if self.prefixes:
            at = path.rstrip("/")
            while True:
                if at in self.prefixes:
                    yield from self.prefixes[at]
                if not at:
                    break
                at = at[: at.rfind("/")]
        for route in self.regexes:
            if route.pattern is not None and route.pattern.match(path):
                yield route
        yield from self.any

    def all(self) -> Iterator[Route]:
        for routes in (*self.exact.values(), *self.prefixes.values(), self.regexes, self.any):
            yield from routes


class Table:
    """All routes. `find` is the question of every request, `explain` that of people."""

    def __init__(self, routes: Sequence[tuple[RouteConfig, Route]]) -> None:
        self._levels: list[dict[str, _Paths]] = []  # by falling priority; keys "host", "*.suffix" and ""
        for priority in sorted({config.priority for config, _ in routes}, reverse=True):
            level: dict[str, _Paths] = {}
            for config, route in routes:
                if config.priority == priority:
                    for host in config.hosts or ("",):
                        level.setdefault(host, _Paths()).add(config, route)
            self._levels.append(level)
        self._chains: dict[bytes, list[_Paths]] = {}
        only = routes[0] if len(routes) == 1 else None
        self._only = None
        if only is not None and only[1].is_plain and not only[0].hosts and only[0].path is None:
            self._only = only[1]

    @property
    def only(self) -> Route | None:
        """The route that takes every request whatever it is, when the configuration is that simple."""
        return self._only

    def find(self, host: bytes, path: str, asked: Asked) -> Route | NoRoute:
        chain = self._chains.get(host)
        if chain is None:
            chain = self._remember(host)
        allow: set[bytes] = set()
        for paths in chain:
            for route in paths.candidates(path):
                if route.is_plain or _admits(route, asked, allow):
                    return route
        return NoRoute(tuple(sorted(allow)))

    def explain(self, host: bytes, path: str, asked: Asked) -> list[Trial]:
        """Every route once: those whose host and path match in the order in which they are asked, of which the first
        without a failed predicate is what `find` finds; then the others in the order of the file."""
        chain = list(self._chain(host_name(host)))
        trials = {route: Trial(route, _lacking(route, asked)) for paths in chain for route in paths.candidates(path)}
        others: dict[Route, Trial] = {}
        for paths in (*chain, *(paths for level in self._levels for paths in level.values())):
            matching = set(paths.candidates(path))
            for route in paths.all():
                if route not in trials and route not in others:
                    failed = (() if paths in chain else ("host",)) + (() if route in matching else ("path",))
                    others[route] = Trial(route, failed)
        return [*trials.values(), *sorted(others.values(), key=lambda trial: trial.route.order[-1])]

    def _remember(self, host: bytes) -> list[_Paths]:
        chain = list(self._chain(host_name(host)))
        if len(host) <= _LONGEST_HOST:
            if len(self._chains) >= _REMEMBERED:
                self._chains.clear()
            self._chains[host] = chain
        return chain

    def _chain(self, host: str) -> Iterator[_Paths]:
        """The tables of this host, most specific first, level by level."""
        for level in self._levels:
            if host in level and host:
                yield level[host]
            at = host.find(".")
            while at >= 0:
                suffix = "*" + host[at:]
                if suffix in level:
                    yield level[suffix]
                at = host.find(".", at + 1)
            if "" in level:
                yield level[""]


def host_name(host: bytes) -> str:
    """A Host value as routes compare it: lower case, without port and trailing dot."""
    name = host.decode("latin-1").lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0].removesuffix(".")


def _admits(route: Route, asked: Asked, allow: set[bytes]) -> bool:
    """Whether the predicates other than host and path hold. Methods that alone are missing go into allow."""
    if route.headers and not _has_headers(route, asked):
        return False
    if route.query and not _has_query(route, asked):
        return False
    if route.networks and not _is_from_there(route, asked):
        return False
    if route.methods and asked.method not in route.methods and not _is_preflight(route, asked):
        allow.update(route.methods)
        return False
    return True


def _lacking(route: Route, asked: Asked) -> tuple[str, ...]:
    """Which of these predicates don't hold."""
    return tuple(
        key
        for key, fails in (
            ("methods", route.methods and asked.method not in route.methods and not _is_preflight(route, asked)),
            ("headers", route.headers and not _has_headers(route, asked)),
            ("query", route.query and not _has_query(route, asked)),
            ("client_ip", route.networks and not _is_from_there(route, asked)),
        )
        if fails
    )


def _is_preflight(route: Route, asked: Asked) -> bool:
    """Whether a request asks if a page may do what this route is for: by the Fetch standard one of OPTIONS with Origin
    and Access-Control-Request-Method."""
    if not route.preflights or asked.method != b"OPTIONS":
        return False
    fields = dict(reversed(asked.pairs()))  # of several the first counts, as for the layer
    return b"origin" in fields and fields.get(b"access-control-request-method") in route.methods


def _has_headers(route: Route, asked: Asked) -> bool:
    pairs = asked.pairs()
    return all(wanted in pairs for wanted in route.headers)


def _has_query(route: Route, asked: Asked) -> bool:
    given = parse_qsl(asked.query.decode("latin-1"), keep_blank_values=True)
    return all(wanted in given for wanted in route.query)


def _is_from_there(route: Route, asked: Asked) -> bool:
    try:
        address = ip_address(asked.client)
    except ValueError:
        return False
    return any(address in network for network in route.networks)
