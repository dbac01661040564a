"""What would become of a request, and why: the answers that the data path gives, asked one by one. Pure.

Nothing here depends on a listener but what it does with an ambiguous path, so that is told for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gateway.config.dump import without_secrets
from gateway.config.layers import Standing
from gateway.config.model import Config
from gateway.config.model import Route as RouteConfig
from gateway.config.upstreams import Upstream as UpstreamConfig
from gateway.errors import GatewayError
from gateway.proxy.paths import ambiguity, canonical
from gateway.proxy.redirect import Redirect
from gateway.proxy.rewrite import Rewrite, join
from gateway.proxy.routes import Asked, NoRoute, Table, Trial, compiled
from gateway.proxy.split import Choice
from gateway.wire import RequestHead, WireError, read_request


@dataclass(frozen=True, slots=True)
class Candidate:
    """A route that was looked at. failed: the predicates that don't hold, each with what it wants."""

    name: str
    failed: dict[str, str]


@dataclass(frozen=True, slots=True)
class Destination:
    """An endpoint that may get the request, and as what."""

    upstream: str
    address: str
    host: str
    target: str


@dataclass(frozen=True, slots=True)
class Portion:
    """An upstream that shares a route's requests. percent: of those that no canary takes."""

    upstream: str
    percent: float


@dataclass(frozen=True, slots=True)
class Shaping:
    """How a route's requests are shared and copied, where one upstream does not simply get them all.

    split_key, canary: what decides, "" for nothing; mirror: where copies go, mirror_percent of them.
    """

    shares: tuple[Portion, ...] = ()
    split_key: str = ""
    canary: str = ""
    canary_upstream: str = ""
    fallback: str = ""
    mirror: str = ""
    mirror_percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that the request goes through. where: "all", "route NAME" or "set NAME". options: those that are not the
    default."""

    name: str
    kind: str
    where: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """route: the one that takes the request, "" for none. status: of the gateway's own answer, 0 when an endpoint
    answers; location and allow go with it. upstream: the one that is asked, "" also when chance decides; decided_by:
    what chose it among several. destinations: of each upstream that may be asked first. onion: outermost first."""

    route: str
    status: int = 0
    location: str = ""
    allow: tuple[str, ...] = ()
    upstream: str = ""
    decided_by: str = ""
    shaping: Shaping = Shaping()
    upgrade: tuple[str, ...] | str = ()
    destinations: tuple[Destination, ...] = ()
    onion: tuple[Layer, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What becomes of a request.

    path: what routes are compared with. ambiguity: why the path can be read in two ways, "" when it can't; listeners:
    the path_policy of each then. candidates: every route, those whose host and path match first, in the order in which
    they are asked.
    """

    method: str
    host: str
    target: str
    client: str
    path: str
    ambiguity: str
    listeners: dict[str, str]
    candidates: tuple[Candidate, ...]
    outcome: Outcome

    @property
    def is_taken(self) -> bool:
        """Whether a route takes the request, on one listener at least."""
        return self.outcome.route != "" and (not self.ambiguity or "pass" in self.listeners.values())


def explain(config: Config, method: str, url: str, fields: list[tuple[str, str]], client: str) -> Explanation:
    """What becomes of a request. url: absolute, or a path with its query, for which Host is among the fields. client:
    the address that comes out when `trusted_proxies` have been believed.

    Raises GatewayError for what no route ever sees.
    """
    try:
        head = _head(method, url, fields)
    except WireError as error:
        raise GatewayError(f"refused before any route is asked: {error.status} {error.reason}") from None
    raw, _, query = head.target.partition(b"?")
    host = head.special.get(b"host", b"")
    path = canonical(raw)
    table = Table(
        [
            (route, compiled(route, index, None, config.takes_preflights(route)))
            for index, route in enumerate(config.routes)
        ]
    )
    asked = Asked(head.method, query, client, head.pairs)
    routes = {route.name: route for route in config.routes}
    found = table.find(host, path, asked)
    if isinstance(found, NoRoute):
        outcome = Outcome("", 405 if found.allow else 404, allow=tuple(name.decode() for name in found.allow))
        standing = config.onion(None)
    else:
        outcome = _outcome(config, routes[found.name], head, _Caller(client, host))
        standing = [*config.onion(None), *config.onion(routes[found.name])]
    outcome = replace(outcome, onion=tuple(map(_layer, standing)))
    ambiguous = ambiguity(raw) or ""
    return Explanation(
        method=method,
        host=_text(host),
        target=_text(head.target),
        client=client,
        path=_text(path.encode("utf-8", "surrogateescape")),
        ambiguity=ambiguous,
        listeners={one.name: one.path_policy for one in config.http_listeners} if ambiguous else {},
        candidates=tuple(_candidate(trial, routes[trial.route.name]) for trial in table.explain(host, path, asked)),
        outcome=outcome,
    )


def _layer(one: Standing) -> Layer:
    options = without_secrets(one.options.model_dump(exclude_defaults=True, exclude={"kind", "name"}))
    return Layer(one.name, one.options.kind, one.identity.partition("/")[0], options)


def _head(method: str, url: str, fields: list[tuple[str, str]]) -> RequestHead:
    """The request as a listener reads it: what can't be sent can't be explained."""
    url = url.partition("#")[0]
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        at = min((index for index in (rest.find("/"), rest.find("?")) if index >= 0), default=len(rest))
        authority, target = rest[:at], rest[at:]
        url = target if target.startswith("/") else "/" + target
        if not any(name.lower() == "host" for name, _ in fields):
            fields = [("host", authority), *fields]
    elif not any(name.lower() == "host" for name, _ in fields):
        fields = [("host", ""), *fields]
    lines = [f"{method} {url} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    read = read_request("\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape"))
    assert read is not None  # there is an empty line
    return read[0]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _candidate(trial: Trial, config: RouteConfig) -> Candidate:
    wanted = {
        "host": ", ".join(config.hosts),
        "path": f"{config.path.kind} {config.path.value}" if config.path is not None else "",
        "methods": ", ".join(config.methods),
        "headers": ", ".join(f"{name}: {value}" for name, value in without_secrets(config.headers).items()),
        "query": "&".join(f"{name}={value}" for name, value in without_secrets(config.query).items()),
        "client_ip": ", ".join(config.client_ip),
    }
    return Candidate(config.name, {key: wanted[key] for key in trial.failed})


@dataclass(frozen=True, slots=True)
class _Caller:
    """What keys may ask of an exchange."""

    client: str
    host: bytes


def _outcome(config: Config, route: RouteConfig, head: RequestHead, caller: _Caller) -> Outcome:
    if route.redirect is not None:
        location = Redirect(route.redirect).location(head.target.partition(b"?")[2])
        return Outcome(route.name, route.redirect.status, _text(location))
    if route.respond is not None:
        return Outcome(route.name, route.respond.status)
    if route.upstream is None:  # one of its layers answers
        return Outcome(route.name)
    choice = Choice(route)
    name = choice.decided(caller, head)
    shares = [share.name for share in route.upstream or () if share.weight]
    by = ""
    if route.canary is not None and choice.is_canary(caller, head):
        by = route.canary.by
    elif len(shares) > 1:
        by = "chance" if not name else route.split_key or ""
    target = _rewritten(route, head.target)
    destinations = [
        destination
        for asked in ([name] if name else shares)
        for destination in _destinations(asked, config.upstreams[asked], target, caller.host)
    ]
    return Outcome(
        route.name,
        upstream=name,
        decided_by=by,
        shaping=_shaping(route),
        upgrade=route.upgrade,
        destinations=tuple(destinations),
    )


def _shaping(route: RouteConfig) -> Shaping:
    shares = route.upstream or ()
    whole = sum(share.weight for share in shares)
    canary, mirror = route.canary, route.mirror
    return Shaping(
        shares=tuple(Portion(share.name, round(100 * share.weight / whole, 2)) for share in shares),
        split_key=route.split_key or "",
        canary=f"{canary.by} = {canary.value}" if canary is not None else "",
        canary_upstream=canary.upstream if canary is not None else "",
        fallback=route.fallback or "",
        mirror=mirror.upstream if mirror is not None else "",
        mirror_percent=mirror.percent if mirror is not None else 0.0,
    )


def _rewritten(route: RouteConfig, target: bytes) -> bytes:
    if route.rewrite is None:
        return target
    return Rewrite(route.rewrite, route.path.prefix or "" if route.path is not None else "").target(target)


def _destinations(name: str, upstream: UpstreamConfig, target: bytes, host: bytes) -> tuple[Destination, ...]:
    destinations = []
    if upstream.discovery is not None:
        found = upstream.discovery
        where = found.srv or found.path or f"{found.name}:{found.port}"
        sent = {"preserve": _text(host) or "its own", "endpoint": "its own"}.get(upstream.host, upstream.host)
        destinations.append(Destination(name, f"{found.kind}:{where}", sent, _text(target)))
    for endpoint in upstream.endpoints:
        authority = endpoint.address.authority
        sent = {"preserve": _text(host) or authority, "endpoint": authority}.get(upstream.host, upstream.host)
        joined = _text(join(endpoint.base.encode(), target))
        destinations.append(Destination(name, str(endpoint.address), sent, joined))
    return tuple(destinations)
