"""Every file that is shipped is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import load, load_and_lint
from gateway.config.paths import DEFAULT_FILES
from gateway.middleware import KINDS

CONF = Path(__file__).parents[2] / "conf"
WHOLE = sorted([*CONF.glob("*.toml"), *CONF.glob("examples/*.toml")])
PARTS = sorted(set(CONF.rglob("*.toml")) - set(WHOLE))


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.name)
def test_a_shipped_file_loads(path: Path) -> None:
    config, warnings = load_and_lint(path, {}, KINDS)
    assert (config.routes or config.tcp_routes) and warnings == []


def test_the_parts_belong_to_a_whole() -> None:
    """A file that others include is read with them."""
    loaded = load(CONF / "examples/sites.toml", {}, KINDS)
    assert {path.stem for path in PARTS} == set(loaded.upstreams)


def test_the_installed_file_answers_by_itself() -> None:
    loaded = load(CONF / "gateway.toml", {}, KINDS)
    assert [str(listener.listen) for listener in loaded.listeners] == [":8080"]
    assert loaded.admin and str(loaded.admin.listen) == "127.0.0.1:9900"
    (welcome,) = loaded.routes
    assert welcome.respond and "It works" in welcome.respond.body
    assert Path(DEFAULT_FILES[0]).name == "gateway.toml"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.toml")), ids=lambda path: path.name)
def test_editors_find_the_schema(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert (path.parent / first.removeprefix("#:schema ")).resolve() == CONF / "gateway.schema.json"
