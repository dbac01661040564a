"""What the README promises in commands and files is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from gateway.cli import main
from gateway.config.load import load, load_and_lint
from gateway.middleware import KINDS, MIDDLEWARE
from gateway.upstream.health import NEXT

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    commands = re.findall(r"^    (python3 -m venv .*pytest)$", README, re.MULTILINE)
    assert len(commands) == 1
    assert commands[0] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_example_is_accepted(tmp_path: Path) -> None:
    example = _example('name = "chat"')
    tomllib.loads(example)
    path = tmp_path / "gateway.toml"
    path.write_text(example)
    assert [route.name for route in load(path).routes] == ["api", "health", "chat", "old", "shop", "rest"]


def test_the_example_of_shared_traffic_is_accepted_and_can_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[[listeners]]\nname = "web"\nlisten = ":8080"\n' + _example("mirror = "))
    loaded, warnings = load_and_lint(path)
    assert [route.name for route in loaded.routes] == ["shop", "rest"] and not warnings


def test_the_example_of_an_upstream_is_accepted_and_can_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[[listeners]]\nname = "web"\nlisten = ":8080"\n' + _example("STICKY_SECRET"))
    loaded, warnings = load_and_lint(path, {"STICKY_SECRET": "a secret of some length"})
    assert list(loaded.upstreams) == ["app"] and not warnings


def test_the_example_of_streams_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(_example("[[tcp_routes]]"))
    loaded, warnings = load_and_lint(path, {})
    assert {one.kind for one in loaded.listeners} == {"tcp"} and len(loaded.tcp_routes) == 1 and not warnings


def test_the_example_of_datagrams_is_accepted_and_can_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(_example('kind = "udp"'))
    loaded, warnings = load_and_lint(path)
    assert [listener.kind for listener in loaded.listeners] == ["udp"] and not warnings


def test_the_example_of_layers_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text('[[listeners]]\nname = "web"\nlisten = ":8080"\n' + _example("[[middleware]]"))
    loaded, warnings = load_and_lint(path, {}, KINDS)
    assert [len(loaded.onion(route)) for route in (None, *loaded.routes)] == [2, 6, 1] and not warnings


def test_every_kind_of_layer_is_named() -> None:
    start = README.index("| to | kinds |")
    named = re.findall(r"`(\w+)`", README[start : README.index("The order is meaning")])
    assert sorted(named) == sorted(MIDDLEWARE)


def _example(holding: str) -> str:
    """The one that has this in it."""
    examples: list[str] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    [example] = [one for one in examples if holding in one]
    return example


def test_the_map_names_every_file() -> None:
    start = README.index("The rooms, in the order")
    rooms = README[start : README.index("**A request.**")]
    for path in (ROOT / "gateway").rglob("*.py"):
        parts = path.relative_to(ROOT / "gateway").parts
        if path.name.startswith("__") or parts[0] in ("config", "metrics") or "balancers" in parts:
            continue
        assert path.name in rooms, path


def test_every_command_is_told() -> None:
    for name in main.commands:
        assert f"gateway {name}" in README, name


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_table_of_health_is_the_code_s() -> None:
    rows = [
        f"| {before.name.lower()} | {event.value} | {after.name.lower()} |" for (before, event), after in NEXT.items()
    ]
    assert "| is | and | becomes |\n|---|---|---|\n" + "\n".join(rows) + "\n" in README
