"""What concerns several places of a configuration at once: names that clash, names that lead nowhere.

Pure. It reads the raw document and not the model, so these mistakes are told together with all the others; whatever has
the wrong type here is left to the model to report.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from gateway.config.layers import Kinds, tables
from gateway.config.model import Route
from gateway.config.problems import KeyPath, Problem, closest, dotted
from gateway.config.values import Address, TcpAddress, parse_listen, shown


def check(data: dict[str, Any], kinds: Kinds) -> list[Problem]:
    listeners = [*_tables(data, "listeners")]
    routes = [*_tables(data, "routes")]
    upstreams = data.get("upstreams", {})
    passing = [*_tables(data, "tcp_routes")]
    return [
        *_names(listeners),
        *_names(routes),
        *_names(passing),
        *_addresses(data, listeners),
        *_answers(routes, kinds),
        *_sets(data),
        *_accounts(data),
        *(_destinations(routes, upstreams) if isinstance(upstreams, dict) else ()),
        *(_origins(upstreams) if isinstance(upstreams, dict) else ()),
        *_streams(data, listeners, passing),
        *_believed(listeners),
        *_unreachable(routes),
    ]


_Item = tuple[KeyPath, dict[str, Any]]


def _tables(data: dict[str, Any], key: str) -> Iterator[_Item]:
    value = data.get(key)
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict):
            yield (key, index), item


def _names(items: list[_Item]) -> Iterator[Problem]:
    first: dict[str, KeyPath] = {}
    for path, item in items:
        name = item.get("name")
        if isinstance(name, str) and (taken := first.setdefault(name, path)) != path:
            yield Problem((*path, "name"), f"{shown(name)} is already the name of {dotted(taken)}", other=taken)


def _addresses(data: dict[str, Any], listeners: list[_Item]) -> Iterator[Problem]:
    admin = data.get("admin")
    items = [*listeners, *([(("admin",), admin)] if isinstance(admin, dict) else [])]
    seen: list[tuple[KeyPath, bool, Address]] = []
    for path, item in items:
        is_udp = item.get("kind") == "udp"
        try:
            address = parse_listen(item.get("listen"))
        except ValueError:
            continue
        for other, other_is_udp, taken in seen:
            if is_udp is other_is_udp and _clash(address, taken):
                message = f"{address} is already taken by {dotted(other)}, which listens on {taken}"
                yield Problem((*path, "listen"), message, other=(*other, "listen"))
                break
        seen.append((path, is_udp, address))


def _clash(one: Address, two: Address) -> bool:
    """Whether both can't be bound. ":80" and "[::]:80" take all of IPv4 as well."""
    if not (isinstance(one, TcpAddress) and isinstance(two, TcpAddress)):
        return one == two
    if one.port != two.port or one.port == 0:  # with port 0 each gets a free one
        return False
    hosts = {_EVERYWHERE.get(host, host) for host in (one.host, two.host)}
    return len(hosts) == 1 or hosts == {"::", "0.0.0.0"}


_EVERYWHERE = {"": "::", "localhost": "127.0.0.1"}


def _answers(routes: list[_Item], kinds: Kinds) -> Iterator[Problem]:
    for path, route in routes:
        given = [key for key in ("upstream", "respond", "redirect") if key in route]
        if not given and not _is_answered(route, kinds):
            yield Problem(path, "a route needs one of upstream, respond and redirect")
        elif len(given) > 1:
            yield Problem((*path, given[1]), f"a route has either {' or '.join(given)}, not both")
        if "upstream" not in route:
            for key in ("rewrite", "upgrade", "split_key", "canary", "fallback", "mirror"):
                if key in route and given:
                    yield Problem((*path, key), f"{key} goes with upstream, not with {given[0]}")
        elif "split_key" in route and not isinstance(route["upstream"], list):
            yield Problem((*path, "split_key"), "split_key goes with an array of upstreams")
        rewrite = route.get("rewrite")
        if isinstance(rewrite, dict) and rewrite.get("strip_prefix") and not _has_prefix(route):
            yield Problem((*path, "rewrite", "strip_prefix"), "strip_prefix needs a prefix as the path of the route")


def _is_answered(route: dict[str, Any], kinds: Kinds) -> bool:
    """Whether a layer of the route answers what comes to it, all of it."""
    for _, layer in tables({"routes": [route]}):
        options = kinds.get(str(layer.get("kind")))
        if options is not None and options.answers(layer):
            return True
    return False


def _sets(data: dict[str, Any]) -> Iterator[Problem]:
    """Where sets of layers are named."""
    sets = data.get("middleware_sets", {})
    known = list(sets) if isinstance(sets, dict) else []
    items = [((), data), *_tables(data, "routes")]
    for path, item in items:
        layers = item.get("middleware")
        for index, name in enumerate(layers if isinstance(layers, list) else ()):
            if isinstance(name, str) and name not in known:
                message = f"there is no set {shown(name)} in middleware_sets"
                yield Problem((*path, "middleware", index), message, closest(name, known))


def _accounts(data: dict[str, Any]) -> Iterator[Problem]:
    """Layers that would count under one name what a request does, and so count it twice."""
    sets = data.get("middleware_sets")
    items = [((), data), *_tables(data, "routes")]
    if isinstance(sets, dict):
        items += [(("middleware_sets", name), one) for name, one in sets.items() if isinstance(one, dict)]
    everywhere: dict[str, KeyPath] = {}
    for path, item in items:
        layers = item.get("middleware")
        named: dict[str, KeyPath] = {}
        used = everywhere if not path else dict(everywhere)
        for index, layer in enumerate(layers if isinstance(layers, list) else ()):
            here = (*path, "middleware", index)
            name = layer.get("name") if isinstance(layer, dict) else None
            if isinstance(name, str) and (taken := named.setdefault(name, here)) != here:
                yield Problem((*here, "name"), f"{shown(name)} is already the name of {dotted(taken)}", other=taken)
            elif isinstance(layer, str) and (taken := used.setdefault(layer, here)) != here:
                message = f"the set {shown(layer)} is already used by {dotted(taken)}: a request would pass it twice"
                yield Problem(here, message, other=taken)


def _streams(data: dict[str, Any], listeners: list[_Item], routes: list[_Item]) -> Iterator[Problem]:
    """Listeners other than HTTP, and what they and the routes of TLS connections name."""
    yield from _named_there(data, "upstreams", "upstream", [*listeners, *routes], "there is no upstream")
    yield from _named_there(data, "egress", "egress", listeners, "there is no egress")
    streams = [str(one.get("name")) for _, one in listeners if one.get("kind") == "tcp"]
    routed: set[str] = set()
    for path, route in routes:
        names = route.get("listeners")
        routed.update(map(str, names) if isinstance(names, list) and names else streams)
        for index, name in enumerate(names if isinstance(names, list) else ()):
            if isinstance(name, str) and name not in streams:
                message = f'there is no listener {shown(name)} of kind "tcp"'
                yield Problem((*path, "listeners", index), message, closest(name, streams))
    yield from _names_twice(routes, streams)
    for path, one in listeners:
        if one.get("kind") == "tcp" and "upstream" not in one and one.get("name") not in routed:
            yield Problem(path, 'a listener of kind "tcp" needs an upstream, or tcp_routes')
        if one.get("kind") == "udp" and str(one.get("listen")).startswith("unix:"):
            yield Problem((*path, "listen"), "datagrams are taken from UDP only, not from a unix socket")


def _believed(listeners: list[_Item]) -> Iterator[Problem]:
    """A PROXY header that is taken from nobody: with "require" nobody could connect."""
    for path, one in listeners:
        rules = one.get("proxy_protocol")
        if isinstance(rules, dict) and rules.get("accept") in ("optional", "require") and not rules.get("from"):
            message = f"accept = {shown(rules['accept'])} needs a list `from`: of those whose header is believed"
            yield Problem((*path, "proxy_protocol"), message)


def _names_twice(routes: list[_Item], streams: list[str]) -> Iterator[Problem]:
    """Names that lead to two places at one listener."""
    taken: dict[tuple[str, str], KeyPath] = {}
    for path, route in routes:
        names, where = route.get("sni"), route.get("listeners")
        for index, name in enumerate(names if isinstance(names, list) else ()):
            if not isinstance(name, str):
                continue
            places = [
                taken.setdefault((str(listener), name.lower().rstrip(".")), path)
                for listener in (where if isinstance(where, list) and where else streams)
            ]
            other = next((place for place in places if place != path), None)
            if other is not None:
                message = f"{shown(name)} is taken by {dotted(other)} already"
                yield Problem((*path, "sni", index), message, other=other)


def _named_there(data: dict[str, Any], section: str, key: str, items: list[_Item], message: str) -> Iterator[Problem]:
    known = data.get(section, {})
    for path, item in items:
        name = item.get(key)
        if isinstance(name, str) and isinstance(known, dict) and name not in known:
            yield Problem((*path, key), f"{message} {shown(name)}", closest(name, known))


def _has_prefix(route: dict[str, Any]) -> bool:
    path = route.get("path")
    return isinstance(path, str) or (isinstance(path, dict) and "prefix" in path)


def _destinations(routes: list[_Item], upstreams: dict[str, Any]) -> Iterator[Problem]:
    for path, route in routes:
        for key, name in _named(route):
            if isinstance(name, str) and name not in upstreams:
                yield Problem((*path, *key), f"there is no upstream {shown(name)}", closest(name, upstreams))
        shares = route.get("upstream")
        if isinstance(shares, list):
            yield from _shares((*path, "upstream"), shares)


def _named(route: dict[str, Any]) -> Iterator[tuple[KeyPath, object]]:
    """Where a route names upstreams."""
    shares = route.get("upstream")
    if isinstance(shares, list):
        for index, share in enumerate(shares):
            if isinstance(share, dict):
                yield ("upstream", index, "name"), share.get("name")
    else:
        yield ("upstream",), shares
    yield ("fallback",), route.get("fallback")
    for key in ("canary", "mirror"):
        table = route.get(key)
        if isinstance(table, dict):
            yield (key, "upstream"), table.get("upstream")


def _shares(path: KeyPath, shares: list[Any]) -> Iterator[Problem]:
    tables = [share for share in shares if isinstance(share, dict)]
    names = [share.get("name") for share in tables]
    for index, name in enumerate(names):
        if isinstance(name, str) and name in names[:index]:
            yield Problem((*path, index, "name"), f"{shown(name)} is here already")
    if tables and all(share.get("weight") == 0 for share in tables):
        yield Problem(path, "one of them needs a weight above 0")


def _origins(upstreams: dict[str, Any]) -> Iterator[Problem]:
    for name, upstream in upstreams.items():
        if not isinstance(upstream, dict):
            continue
        path: KeyPath = ("upstreams", name)
        if "endpoints" in upstream and "discovery" in upstream:
            yield Problem((*path, "discovery"), "an upstream has either endpoints or discovery, not both")
        elif "endpoints" not in upstream and "discovery" not in upstream:
            yield Problem(path, "an upstream needs endpoints or discovery")
        yield from _probe_port((*path, "health", "port"), upstream)


def _probe_port(path: KeyPath, upstream: dict[str, Any]) -> Iterator[Problem]:
    health, endpoints = upstream.get("health"), upstream.get("endpoints")
    if not (isinstance(health, dict) and "port" in health and isinstance(endpoints, list)):
        return
    addresses = [one.get("address") if isinstance(one, dict) else one for one in endpoints]
    for address in addresses:
        if isinstance(address, str) and address.startswith("unix:"):
            yield Problem(path, f"{shown(address)} has no other port: it is a unix socket")


def _unreachable(routes: list[_Item]) -> Iterator[Problem]:
    """Routes whose every request an identical route takes: the one of higher priority, else the first in the file."""
    valid: list[tuple[KeyPath, Route]] = []
    for path, item in routes:
        try:
            valid.append((path, Route.model_validate({**item, "middleware": []})))
        except ValidationError:
            continue
    takers: dict[object, KeyPath] = {}
    for path, route in sorted(valid, key=lambda item: -item[1].priority):
        predicates = (
            _paths(route),
            frozenset(route.methods),
            frozenset(route.headers.items()),
            frozenset(route.query.items()),
            frozenset(route.client_ip),
        )
        hosts = dict.fromkeys(route.hosts or ("",))
        taken = [takers.setdefault((host, predicates), path) for host in hosts]
        if path not in taken:
            yield Problem(path, f"never reached: identical to {dotted(taken[0])}", other=taken[0])


def _paths(route: Route) -> tuple[str, str]:
    """A prefix is the same with and without a slash at its end, and "/" takes any path."""
    if route.path is None:
        return "prefix", ""
    return route.path.kind, route.path.value.rstrip("/") if route.path.kind == "prefix" else route.path.value
