"""What is allowed and yet can't be meant: routes that no request reaches, endpoints that are the gateway itself, keys
without effect, secrets that are none.

Pure. Only what can be proved is said: each warning is true whatever requests come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from gateway.config.layers import Layers
from gateway.config.listeners import PUBLIC, ForwardListener, Socks5Listener, TcpListener, UdpListener
from gateway.config.model import Config, PathMatch, Route, Share
from gateway.config.problems import KeyPath, Problem, dotted
from gateway.config.section import Section
from gateway.config.values import FdAddress, SystemdAddress, TcpAddress, UnixAddress, shown


def lint(config: Config) -> list[Problem]:
    """The warnings of a configuration that is right."""
    return [
        *_taken_before(config.routes),
        *_never_asked_for(config),
        *_loops(config),
        *_without_effect(config),
        *_made_twice(config),
        *_weak_cookies(config),
        *_claims_of_nobody(config),
        *_not_below_http(config),
        *_of_no_listener(config),
        *_probes_without_header(config),
        *_open_proxies(config),
        *_too_wide(config),
    ]


def _taken_before(routes: tuple[Route, ...]) -> Iterator[Problem]:
    """Routes for which another one, asked before, takes every request that they would take."""
    places: dict[tuple[str, str, str], list[int]] = {}
    for index, route in enumerate(routes):
        for host in route.hosts or ("",):
            places.setdefault((host, *_place(route.path)), []).append(index)
    for index, route in enumerate(routes):
        takers = [_taker(routes, index, host, places) for host in route.hosts or ("",)]
        if takers[0] is not None and None not in takers:
            other: KeyPath = ("routes", takers[0])
            yield Problem(("routes", index), f"never reached: {dotted(other)} takes all its requests", other=other)


def _taker(
    routes: tuple[Route, ...], index: int, host: str, places: dict[tuple[str, str, str], list[int]]
) -> int | None:
    """The route that takes, before this one is asked, all its requests for this host."""
    route = routes[index]
    for wider in _wider_hosts(host):
        for place in _wider_places(route.path):
            for other in places.get((wider, *place), ()):
                before = routes[other]
                if other == index or not _admits_all(before, route):
                    continue
                # A wider host is asked later, unless priority says otherwise.
                if before.priority > route.priority or (
                    wider == host and before.priority == route.priority and _rank(before, other) < _rank(route, index)
                ):
                    return other
    return None


def _wider_hosts(host: str) -> Iterator[str]:
    """What matches all hosts that this one matches, itself first."""
    yield host
    at = host.find(".", 2 if host.startswith("*.") else 0)
    while at >= 0:
        yield "*" + host[at:]
        at = host.find(".", at + 1)
    if host:
        yield ""


def _place(path: PathMatch | None) -> tuple[str, str]:
    """A kind of path and its value. No path and the prefix "/" take the same requests."""
    if path is None:
        return "prefix", ""
    return path.kind, path.value.rstrip("/") if path.kind == "prefix" else path.value


def _wider_places(path: PathMatch | None) -> Iterator[tuple[str, str]]:
    """What matches all paths that this one matches, itself first."""
    kind, value = _place(path)
    if kind != "prefix":
        yield kind, value
    if kind != "regex":
        stem = value.rstrip("/")
        while stem:
            yield "prefix", stem
            stem = stem[: stem.rfind("/")]
    yield "prefix", ""


def _rank(route: Route, index: int) -> tuple[int, ...]:
    """The order in which routes of one host and priority are asked."""
    if route.path is None:
        return 3, *route.specificity, index
    match route.path.kind:
        case "exact":
            return 0, *route.specificity, index
        case "prefix":
            return 1, -len(route.path.value.rstrip("/")), *route.specificity, index
        case "regex":
            return 2, index


def _admits_all(wide: Route, narrow: Route) -> bool:
    """Whether the predicates other than host and path admit whatever those of the other admit."""
    return (
        (not wide.methods or (bool(narrow.methods) and set(narrow.methods) <= set(wide.methods)))
        and wide.headers.items() <= narrow.headers.items()
        and wide.query.items() <= narrow.query.items()
        and (not wide.client_ip or _lie_within(narrow.client_ip, wide.client_ip))
    )


def _lie_within(narrow: tuple[str, ...], wide: tuple[str, ...]) -> bool:
    networks = [ip_network(one) for one in wide]
    return bool(narrow) and all(any(_is_part(ip_network(one), network) for network in networks) for one in narrow)


def _is_part(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.subnet_of(other)
    return isinstance(other, IPv6Network) and one.subnet_of(other)


_NO_NORMAL_FORM = re.compile(r"%(?!2F|25)[0-9A-Fa-f]{2}|//|/\.{1,2}(?:/|$)")


def _never_asked_for(config: Config) -> Iterator[Problem]:
    """Predicates that hold for no request as we read requests."""
    strict = all(listener.path_policy == "reject" for listener in config.http_listeners)
    for index, route in enumerate(config.routes):
        for name in route.headers:
            if "_" in name:
                message = 'never matches: header fields with "_" in their names are dropped'
                yield Problem(("routes", index, "headers", name), message)
        if route.path is None or route.path.kind == "regex":
            continue
        path, (_, value) = ("routes", index, "path", route.path.kind), _place(route.path)
        if found := _NO_NORMAL_FORM.search(value):
            yield Problem(path, f'never matches: paths are compared decoded and normalised, without "{found[0]}"')
        elif strict and (found := re.search(r"%2F|\\", value)):
            yield Problem(path, f'never matches: with path_policy = "reject" a path with "{found[0]}" is answered 400')


def _loops(config: Config) -> Iterator[Problem]:
    for name, upstream in config.upstreams.items():
        for index, endpoint in enumerate(upstream.endpoints):
            for listener in config.http_listeners:
                if _is_same(endpoint.address.peer, listener.listen):
                    message = f"this is the listener {listener.name}: requests that come round are answered 508"
                    yield Problem(("upstreams", name, "endpoints", index), message)
                    break
    for stream, name in _streams(config):
        for index, endpoint in enumerate(config.upstreams[name].endpoints):
            if _is_same(endpoint.address.peer, stream.listen):
                message = f"this is the listener {stream.name}, which leads here: what comes goes round without end"
                yield Problem(("upstreams", name, "endpoints", index), message)


def _is_same(peer: TcpAddress | UnixAddress, listen: TcpAddress | UnixAddress | FdAddress | SystemdAddress) -> bool:
    """Whether who connects to peer reaches this listener, as far as that can be told without asking the machine."""
    if not isinstance(peer, TcpAddress) or not isinstance(listen, TcpAddress):
        return peer == listen
    if peer.port != listen.port:
        return False
    if listen.host in ("", "::", "0.0.0.0"):
        return _is_here(peer.host) and not (listen.host == "0.0.0.0" and ":" in peer.host)
    return _names(peer.host) & _names(listen.host) != set()


def _is_here(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _names(host: str) -> set[str]:
    return {"127.0.0.1", "::1"} if host == "localhost" else {host}


def _without_effect(config: Config) -> Iterator[Problem]:
    """Keys that change nothing, whatever requests come."""
    for name, upstream in config.upstreams.items():
        if "hash_key" in upstream.model_fields_set and upstream.balance != "consistent_hash":
            message = f'not used: balance is "{upstream.balance}", not "consistent_hash"'
            yield Problem(("upstreams", name, "hash_key"), message)
    for name, stream in {name: stream for stream, name in _streams(config)}.items():
        upstream = config.upstreams[name]
        if upstream.balance == "consistent_hash" and upstream.hash_key != "client_ip":
            message = f"not used for what comes by the listener {stream.name}: of that only client_ip is known"
            yield Problem(("upstreams", name, "hash_key"), message)
        if upstream.sticky is not None:
            message = f"not used for what comes by the listener {stream.name}: that has no cookies"
            yield Problem(("upstreams", name, "sticky"), message)
    for index, route in enumerate(config.routes):
        if route.sides == (route.fallback,):
            message = "never used: it is the upstream that all requests of the route go to"
            yield Problem(("routes", index, "fallback"), message)
        if route.canary is not None and route.sides == (route.canary.upstream,):
            message = "changes nothing: all requests of the route go there"
            yield Problem(("routes", index, "canary", "upstream"), message)
        if route.mirror is not None and any(share.name == route.mirror.upstream for share in _dealt(route)):
            message = f"{shown(route.mirror.upstream)} gets requests of this route and copies of them too"
            yield Problem(("routes", index, "mirror", "upstream"), message)


def _streams(config: Config) -> Iterator[tuple[TcpListener | UdpListener, str]]:
    """Listeners of streams and datagrams, and each upstream that they lead to."""
    for listener in config.listeners:
        if isinstance(listener, TcpListener | UdpListener):
            names = [route.upstream for route in config.tcp_routes_of(listener.name)] if listener.kind == "tcp" else []
            for name in dict.fromkeys([listener.upstream, *names]):
                if name is not None:
                    yield listener, name


def _dealt(route: Route) -> list[Share]:
    return [share for share in route.upstream or () if share.weight]


_NOT_IDEMPOTENT = ("POST", "PATCH")  # RFC 9110, section 9.2.2; RFC 5789


def _made_twice(config: Config) -> Iterator[Problem]:
    for name, upstream in config.upstreams.items():
        for index, method in enumerate(upstream.retry.methods if upstream.retry.attempts else ()):
            if method in _NOT_IDEMPOTENT:
                message = f"what a {method} does may be done twice: an attempt that failed may have had its effect"
                yield Problem(("upstreams", name, "retry", "methods", index), message)


_LEAST_SECRET = 16  # bytes: with fewer all of them can be tried


def _weak_cookies(config: Config) -> Iterator[Problem]:
    for name, upstream in config.upstreams.items():
        sticky = upstream.sticky
        if sticky is None:
            continue
        path: KeyPath = ("upstreams", name, "sticky")
        if sticky.secret == "change me":
            yield Problem((*path, "secret"), "this is the secret of the examples, which everybody knows")
        elif len(sticky.secret.encode()) < _LEAST_SECRET:
            message = f"shorter than {_LEAST_SECRET} bytes: it can be guessed, and then the cookie can be forged"
            yield Problem((*path, "secret"), message)
        if sticky.same_site == "none" and sticky.secure == "never":
            message = 'browsers refuse a cookie of same_site = "none" that is not secure'
            yield Problem((*path, "secure"), message)


# Kinds that say what a request's claims are, and such as run code that may.
_CLAIMING = ("jwt", "asgi", "hooks")
_OF_CLAIM = re.compile(r"^jwt:[^{}]+$|(?<!\{)\{jwt:")


def _claims_of_nobody(config: Config) -> Iterator[Problem]:
    """Layers that count by a claim where no token has been verified."""
    yield from _unverified(config, (), config.middleware, is_known=False)
    is_known = any(one.options.kind in _CLAIMING for one in config.onion(None))
    for index, route in enumerate(config.routes):
        yield from _unverified(config, ("routes", index), route.middleware, is_known)


def _unverified(config: Config, at: KeyPath, layers: Layers, is_known: bool) -> Iterator[Problem]:
    """is_known: the claims are, outside of these."""
    for index, item in enumerate(layers):
        for layer in config.middleware_sets[item].middleware if isinstance(item, str) else (item,):
            is_known = is_known or layer.kind in _CLAIMING
            key = getattr(layer, "key", None)
            if not is_known and isinstance(key, str) and _OF_CLAIM.search(key):
                path = (*at, "middleware", index)
                what = f"{shown(item)} counts by {shown(key)}" if isinstance(item, str) else f"counts by {shown(key)}"
                message = f"{what}, but no jwt layer is outside of it: no request has such a claim"
                yield Problem(path if isinstance(item, str) else (*path, "key"), message)


# Of an upstream: what only requests have, or, for datagrams, connections.
_NOT_FOR: dict[str, tuple[tuple[str, ...], ...]] = {
    "connections": (
        ("timeouts", "response"),
        ("timeouts", "idle"),
        ("timeouts", "tunnel_idle"),
        ("host",),
        ("pool",),
        ("retry",),
        ("hedge",),
    ),
    "datagrams": (("timeouts",), ("host",), ("pool",), ("retry",), ("hedge",), ("queue",)),
}


def _not_below_http(config: Config) -> Iterator[Problem]:
    """What is said of an upstream and means nothing for the connections and datagrams that are all it gets."""
    asked = {name for route in config.routes for name in (*route.upstreams, *_mirrored(route))}
    sources: dict[str, dict[str, str]] = {}
    for stream, name in _streams(config):
        what = "connections" if isinstance(stream, TcpListener) else "datagrams"
        sources.setdefault(name, {}).setdefault(what, stream.name)
    for name, come in sources.items():
        upstream = config.upstreams[name]
        if name in asked:
            continue
        all_that = " and ".join(f"{what} of {come[what]}" for what in sorted(come))
        first, *others = (_NOT_FOR[what] for what in sorted(come))  # the one that has it in more detail first
        for keys in sorted(first, key=len, reverse=True):
            if not _is_set(upstream, keys) or not all(any(keys[: len(one)] == one for one in rest) for rest in others):
                continue
            if keys == ("host",) and upstream.health is not None and upstream.health.kind == "http":
                continue  # probes say it
            message = f"not used: all that comes here are {all_that}"
            if keys == ("retry",) and "connections" in come:
                message += "; each endpoint that is ready is tried"
            yield Problem(("upstreams", name, *keys), message)


def _is_set(section: Section, keys: tuple[str, ...]) -> bool:
    key, *rest = keys
    if key not in section.model_fields_set:
        return False
    return not rest or _is_set(getattr(section, key), tuple(rest))


def _of_no_listener(config: Config) -> Iterator[Problem]:
    named = set(config.egresses)
    for name in config.egress:
        if name not in named:
            yield Problem(("egress", name), "not used: no listener names it")
    for index, listener in enumerate(config.listeners):
        if listener.DATAGRAMS and "backlog" in listener.model_fields_set:
            yield Problem(("listeners", index, "backlog"), "not used: datagrams wait in the receive buffer")
        if isinstance(listener, Socks5Listener) and listener.udp_address is not None and not listener.udp_associate:
            yield Problem(("listeners", index, "udp_address"), "not used: udp_associate is false")


def _mirrored(route: Route) -> tuple[str, ...]:
    return (route.mirror.upstream,) if route.mirror is not None else ()


def _probes_without_header(config: Config) -> Iterator[Problem]:
    """Probes that say something at the same port where connections begin with a PROXY header."""
    for name, stream in {name: stream for stream, name in _streams(config)}.items():
        health = config.upstreams[name].health
        if not isinstance(stream, TcpListener) or stream.proxy_protocol.send == "off" or health is None:
            continue
        if health.proxy_protocol == "off" and health.port is None and (health.kind == "http" or health.tls):
            message = (
                f"connections of the listener {stream.name} begin with a PROXY header here, and probes with none: "
                "endpoints that require one refuse them; see proxy_protocol"
            )
            yield Problem(("upstreams", name, "health"), message)


def _open_proxies(config: Config) -> Iterator[Problem]:
    for index, listener in enumerate(config.listeners):
        if not isinstance(listener, ForwardListener | Socks5Listener) or listener.auth is not None or listener.clients:
            continue
        if _is_reached(listener.listen):
            message = "anybody who reaches this may use it: it has neither auth nor clients"
            yield Problem(("listeners", index), message)


def _is_reached(listen: TcpAddress | UnixAddress | FdAddress | SystemdAddress) -> bool:
    """Whether others than this machine may connect, as far as that can be told without asking it."""
    if not isinstance(listen, TcpAddress):
        return False
    try:
        return not (listen.host and ip_address(listen.host).is_loopback)
    except ValueError:
        return False  # a name


_WIDE = 8  # bits of a prefix: who lists a shorter one means the internet, and not some network
_NOT_MEANT = (
    ("loopback", ip_network("127.0.0.0/8")),
    ("metadata", ip_network("169.254.169.254")),
    ("loopback", ip_network("::1")),
    ("metadata", ip_network("fd00:ec2::254")),
)


def _too_wide(config: Config) -> Iterator[Problem]:
    """Networks that let clients go to this machine, and to where clouds keep its credentials."""
    for name, egress in config.egress.items():
        denied = [ip_network(text) for text in egress.deny]
        for index, text in enumerate(egress.allow):
            if text == PUBLIC or (network := ip_network(text)).prefixlen >= _WIDE:
                continue
            inside = [what for what, one in _NOT_MEANT if _is_part(one, network) and not _is_in(one, denied)]
            if inside:
                message = f'also lets clients go to {" and ".join(inside)} addresses; say "{PUBLIC}"'
                yield Problem(("egress", name, "allow", index), message)


def _is_in(one: IPv4Network | IPv6Network, networks: list[IPv4Network | IPv6Network]) -> bool:
    return any(_is_part(one, network) for network in networks)
