"""Includes: merged into one document, with every key still at its own file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.document import gather
from gateway.config.load import load

from .conftest import MINIMAL, Mistakes, Write


def test_tables_are_merged_and_arrays_of_tables_appended(write: Write, tmp_path: Path) -> None:
    (tmp_path / "routes.d").mkdir()
    path = write(
        gateway_toml='include = ["routes.d/*.toml", "more.toml"]\n'
        + MINIMAL
        + '[process]\nworkers = 2\n[[routes]]\nname = "a"\nupstream = "app"\n',
        more_toml='include = ["${DIR}/deep.toml"]\n[process]\nmax_age = "1h"\n[upstreams.app]\nendpoints = ["app:1"]\n',
        deep_toml='[[listeners]]\nname = "two"\nlisten = ":81"\n[upstreams.app.pool]\nmax_idle = 1\n',
    )
    for name in "cb":
        (tmp_path / f"routes.d/{name}.toml").write_text(
            f'[[routes]]\nname = "{name}"\nupstream = "app"\npath = "/{name}"\n'
        )
    config = load(path, {"DIR": "."})
    assert [route.name for route in config.routes] == ["a", "b", "c"]
    assert (config.process.workers, config.process.max_age) == (2, 3600.0)
    assert [listener.name for listener in config.listeners] == ["web", "two"]
    assert config.upstreams["app"].pool.max_idle == 1
    places = gather(path, {"DIR": "."}).places
    assert places["routes", 0, "name"] == (str(path), 8, 1)
    assert places["routes", 2, "upstream"] == (str(tmp_path / "routes.d/c.toml"), 3, 1)
    assert places["process", "max_age"] == (str(tmp_path / "more.toml"), 3, 1)


def test_a_mistake_names_the_included_file(mistakes: Mistakes) -> None:
    assert mistakes(
        'include = ["more.toml"]\n' + MINIMAL + '[[routes]]\nname = "a"\nrespond = {}\n',
        more_toml='# more\n[[routes]]\nname = "a"\npath = "/x"\nupstream = "none"\n[proces]\n',
    ) == [
        'more.toml:3:1: routes[1].name: "a" is already the name of routes[0] (gateway.toml:5)',
        'more.toml:5:1: routes[1].upstream: there is no upstream "none"',
        'more.toml:6:2: proces: unknown key "proces" (did you mean "process"?)',
    ]


def test_a_value_given_twice_names_both_places(mistakes: Mistakes) -> None:
    assert mistakes(
        'include = ["more.toml"]\n' + MINIMAL + '[process]\nworkers = 1\n[upstreams.a]\nendpoints = ["a:1"]\n',
        more_toml='[process]\nworkers = 1\n[upstreams.a]\nendpoints = ["b:1"]\n[[admin]]\n',
    ) == [
        "more.toml:2:1: process.workers: already given at gateway.toml:6",
        "more.toml:4:1: upstreams.a.endpoints: already given at gateway.toml:8",
    ]


@pytest.mark.parametrize(
    ("include", "others", "told"),
    [
        (
            '"more.toml"',
            {},
            ['gateway.toml:1:1: include: expected an array of file patterns such as ["routes.d/*.toml"]'],
        ),
        ("[5]", {}, ['gateway.toml:1:1: include: expected an array of file patterns such as ["routes.d/*.toml"]']),
        ('["a.toml",\n"b.toml"]', {"a_toml": ""}, ["gateway.toml:2:1: include[1]: b.toml: no such file"]),
        ('["${NONE}"]', {}, ["gateway.toml:1:12: include[0]: the environment variable NONE is not set, "]),
        ('["*.toml"]', {}, ["gateway.toml:1:12: include[0]: gateway.toml includes itself"]),
        (
            '["a.toml"]',
            {"a_toml": 'include = ["b.toml"]', "b_toml": 'include = ["a.toml"]'},
            ["b.toml:1:12: include[0]: a.toml includes itself"],
        ),
        (
            '["a.toml", "b.toml"]',
            {"a_toml": 'include = ["b.toml"]', "b_toml": ""},
            ["gateway.toml:1:22: include[1]: b.toml is already included at a.toml:1"],
        ),
        # Every broken file is told of, and nothing that only follows from it.
        (
            '["a.toml", "b.toml"]\nworker = 1',
            {"a_toml": "x = ", "b_toml": b"\xff"},
            ["a.toml:1:5: invalid value at the end of the file", "b.toml:1:1: not UTF-8: byte 0xff"],
        ),
    ],
)
def test_what_keeps_files_apart(
    mistakes: Mistakes, include: str, others: dict[str, str | bytes], told: list[str]
) -> None:
    found = mistakes(f"include = {include}\n{MINIMAL}", **others)
    assert len(found) == len(told)
    assert all(line.startswith(start) for line, start in zip(found, told, strict=True)), found


def test_patterns_may_overlap_and_match_nothing(write: Write) -> None:
    include = 'include = ["m*.toml", "more.toml", "none.d/*.toml", "./more.toml"]\n'
    assert load(write(gateway_toml=include + MINIMAL, more_toml="[log]\n"), {}).log.level == "info"


def test_an_absolute_pattern(write: Write, tmp_path: Path) -> None:
    include = f'include = ["{tmp_path}/mo*.toml"]\n'
    assert load(write(gateway_toml=include + MINIMAL, more_toml="[log]\nlevel = 'debug'"), {}).log.level == "debug"


def test_thousands_of_routes_take_no_time(write: Write) -> None:
    """Merging looks at each key once, not once for each other key."""
    route = '[[routes]]\nname = "r{0}"\nhosts = ["h{0}.example.com"]\nrespond = {{ body = "{0}" }}\n'
    routes = "".join(route.format(number) for number in range(3000))
    config = load(write(gateway_toml='include = ["more.toml"]\n' + MINIMAL, more_toml=routes), {})
    assert len(config.routes) == 3000


def test_an_unreadable_include(mistakes: Mistakes, tmp_path: Path) -> None:
    (tmp_path / "dir.toml").mkdir()
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    assert mistakes('include = ["dir.toml", "loop.toml", "gone/x.toml"]') == [
        "dir.toml: is a directory",
        "loop.toml: too many levels of symbolic links",
        "gateway.toml:1:37: include[2]: gone/x.toml: no such file",
    ]
    assert len(mistakes('include = ["\\u0000"]')) == 1
