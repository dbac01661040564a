"""The configuration in force, and the schema, agree with what `load` takes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from gateway.config.document import INCLUDE
from gateway.config.dump import effective, restored, schema
from gateway.config.model import Config
from gateway.config.section import Section, documented
from gateway.middleware import KINDS

from .test_load import WRONG

CONF = Path(__file__).parents[2] / "conf"


def test_what_is_dumped_can_be_read_again(config: Callable[..., Config]) -> None:
    loaded = config("""
        [admin]
        listen = "[::1]:99"
        [upstreams.app]
        endpoints = ["a:1", { address = "unix:/run/b", weight = 2 }]
        [upstreams.base]
        endpoints = ["http://c/base"]
        host = "app.example"
        [[routes]]
        name = "r"
        path = { regex = "/x" }
        upstream = "app"
        upgrade = "any"
        rewrite = { regex = "/(x)", to = '/\\1' }
        error_pages = { 404 = "404.html", 5xx = "5xx.html" }
        [[routes]]
        name = "s"
        path = "/s"
        upstream = "base"
        rewrite = { strip_prefix = true }
        [[routes]]
        name = "t"
        path = "/t"
        redirect = { to = "/u", keep_query = true }
        """)
    text = effective(loaded)
    assert Config.model_validate(json.loads(text)) == loaded
    assert restored(json.loads(json.dumps(loaded.model_dump())), KINDS) == loaded
    assert restored({"listeners": [], "of_another_version": 1}, KINDS) is None and restored(None, KINDS) is None
    data = json.loads(text)
    assert data["process"]["drain_timeout"] == "30s"
    assert data["listeners"][0]["limits"]["body"] == "1GiB"
    assert data["listeners"][0]["listen"] == ":8080"
    endpoint = data["upstreams"]["app"]["endpoints"][1]
    assert endpoint == {"address": "unix:/run/b", "weight": 2, "max_requests": None, "backup": False}
    [base] = data["upstreams"]["base"]["endpoints"]
    assert base == {"address": "http://c:80/base", "weight": 1, "max_requests": None, "backup": False}
    assert data["listeners"][0]["timeouts"]["body_min_rate"] == "1KiB/s"
    assert data["routes"][0]["path"] == {"regex": "/x"}
    assert data["routes"][2]["redirect"] == {"to": "/u", "status": 308, "keep_query": True}


def sections() -> list[type[Section]]:
    return Section.__subclasses__()


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_field_is_described(section: type[Section]) -> None:
    texts = documented(section)
    for name in section.model_fields:
        assert texts[name].endswith("."), name
    assert section.__doc__ and section.model_config["extra"] == "forbid" and section.model_config["frozen"]


def test_the_committed_schema_is_true() -> None:
    assert (CONF / "gateway.schema.json").read_text() == schema(KINDS), (
        "write it anew: gateway schema > conf/gateway.schema.json"
    )


@pytest.fixture
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(json.loads(schema(KINDS)))
    return Draft202012Validator(json.loads(schema(KINDS)))


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.toml")), ids=str)
def test_the_schema_takes_files_as_they_are_written(validator: Draft202012Validator, path: Path) -> None:
    assert [*validator.iter_errors(tomllib.loads(path.read_text()))] == []


def test_the_schema_knows_what_load_knows(validator: Draft202012Validator) -> None:
    """Editors mark most of what `load` refuses; names that lead nowhere are beyond a schema."""
    found = [*validator.iter_errors(tomllib.loads(WRONG))]
    errors = {error.json_path for one in found for error in (one, *(one.context or ()))}  # of a kind of listener
    assert {
        "$",
        "$.process.workers",
        "$.log.level",
        "$.listeners[0].limits.body",
        "$.upstreams.api.endpoints",
    } <= errors
    assert {"$.upstreams.app.endpoints[1]", "$.routes[0].path", "$.routes[1].methods[0]"} <= errors


def test_the_schema_speaks_of_toml() -> None:
    found = json.loads(schema(KINDS))

    def nodes(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            yield node
        for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from nodes(item)

    assert not any(node.get("type") == "null" for node in nodes(found))
    assert found["properties"][INCLUDE]
    assert found["$defs"]["Process"]["properties"]["drain_timeout"]["default"] == "30s"
