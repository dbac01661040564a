"""The contract of a way to find endpoints, over the table of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from gateway.config.upstreams import Discovery as Config
from gateway.config.upstreams import Upstream
from gateway.errors import DiscoveryError
from gateway.upstream.discovery import DISCOVERIES, Found, discovery_of
from tests.support.dns_server import DnsServer


@dataclass(frozen=True, slots=True)
class Place:
    """Where endpoints are looked up. put: these are there from now on; lose: what is there can't be read any more."""

    upstream: dict[str, Any]
    put: Callable[[list[str]], None]
    lose: Callable[[], None]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, Place]]:
    with DnsServer() as server:
        path = tmp_path / "endpoints.toml"

        def into_dns(addresses: list[str]) -> None:
            server.says.clear()
            server.records["app.test", "A"] = [address.removesuffix(":80") for address in addresses]

        def into_file(addresses: list[str]) -> None:
            path.write_text(f"endpoints = {addresses}")

        dns = {"kind": "dns", "name": "app.test", "port": 80, "resolver": [server.address]}
        yield {
            "static": Place({"endpoints": ["10.0.0.1:80", "10.0.0.2:80"]}, lambda addresses: None, lambda: None),
            "dns": Place({"discovery": dns}, into_dns, lambda: server.says.update({"app.test": "SERVFAIL"})),
            "file": Place({"discovery": {"kind": "file", "path": str(path)}}, into_file, lambda: path.unlink()),
        }


every = pytest.mark.parametrize("kind", DISCOVERIES)
looking = pytest.mark.parametrize("kind", [kind for kind in DISCOVERIES if kind != "static"])


def addresses(found: Found) -> list[str]:
    return sorted(str(one.address) for one in found.endpoints)


def test_the_configuration_knows_the_same_names() -> None:
    assert {"static", *get_args(Config.model_fields["kind"].annotation)} == DISCOVERIES.keys()


@every
def test_what_is_there_is_found(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    place.put(["10.0.0.1:80", "10.0.0.2:80"])
    discovery = discovery_of(Upstream.model_validate(place.upstream))
    assert type(discovery) is DISCOVERIES[kind]
    found = asyncio.run(discovery.find())
    assert (addresses(found), found.trouble) == (["10.0.0.1:80", "10.0.0.2:80"], "")
    assert found.again is None if kind == "static" else found.again is not None and 1 <= found.again <= 30
    assert asyncio.run(discovery.find()) == found


@looking
def test_what_changes_is_found_the_next_time(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    discovery = discovery_of(Upstream.model_validate(place.upstream))
    for there in (["10.0.0.1:80"], ["10.0.0.1:80", "10.0.0.3:80"], ["10.0.0.3:80"]):
        place.put(there)
        assert addresses(asyncio.run(discovery.find())) == there


@looking
def test_who_never_found_anything_says_so_in_one_sentence(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    place.put(["10.0.0.1:80"])
    place.lose()
    discovery = discovery_of(Upstream.model_validate(place.upstream))
    said = set()
    for _ in range(3):
        with pytest.raises(DiscoveryError) as caught:
            asyncio.run(discovery.find())
        assert caught.value.again >= 1
        said.add(str(caught.value))
    [sentence] = said  # the same each time, or the log would repeat it
    assert sentence and "\n" not in sentence
    place.put(["10.0.0.2:80"])
    assert addresses(asyncio.run(discovery.find())) == ["10.0.0.2:80"]


@looking
def test_what_can_not_be_looked_up_any_more_is_not_gone(places: dict[str, Place], kind: str) -> None:
    place = places[kind]
    place.put(["10.0.0.1:80"])
    discovery = discovery_of(Upstream.model_validate(place.upstream))
    asyncio.run(discovery.find())
    place.lose()
    for _ in range(4):
        try:
            found = asyncio.run(discovery.find())
        except DiscoveryError:
            continue
        assert addresses(found) == ["10.0.0.1:80"] and found.trouble
