"""What nobody is shown: secrets of every kind, wherever a configuration is told about."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from gateway.config.diff import changes
from gateway.config.dump import effective, kept, restored
from gateway.config.environment import expand
from gateway.config.load import load
from gateway.config.model import Config
from gateway.config.problems import ConfigErrors, Problem
from gateway.config.values import Secret, is_telling, shown, without_credentials
from gateway.middleware import KINDS
from gateway.proxy.explain import explain

HUSH = "hush-1234567890"

PLAIN = """
[[listeners]]
name = "web"
listen = ":8080"
[upstreams.app]
endpoints = ["a:1"]
"""
ROUTE = """
[[routes]]
name = "app"
upstream = "app"
{}
"""
LAYERS = [
    f'{{ kind = "jwt", secret = "{HUSH * 4}", algorithms = ["HS256"] }}',
    f'{{ kind = "rate_limit", rate = "1/s", store = "redis://user:{HUSH}@host/0" }}',
    f'{{ kind = "asgi", use = "a:B", options = {{ secret_key = "{HUSH}", more = {{ apiKeys = ["{HUSH}"] }} }} }}',
    '{ kind = "asgi", use = "a:B", options = { salt = { env = "HUSH" } } }',
    '{ kind = "hooks", use = "a:B", options = { salt = { env = "NONE", default = "hush-1234567890" } } }',
    '{ kind = "hooks", use = "a:B", options = { salts = [{ file = "hush.txt" }, "x"], since = 2024-01-01 } }',
    f'{{ kind = "headers", request.set = {{ Authorization = "Bearer {HUSH}", x-api-key = "{HUSH}" }} }}',
    f'{{ kind = "headers", response.add = {{ Set-Cookie = "a={HUSH}" }}, request.default = {{ cookie = "{HUSH}" }} }}',
    f'{{ kind = "forward_auth", url = "http://a:1/check?token={HUSH}&a=b" }}',
    f'{{ kind = "respond", headers = {{ x-auth-token = "{HUSH}" }} }}',
]


def loaded(folder: Path, *, everywhere: str = "", route: str = "") -> Config:
    (folder / "hush.txt").write_text(HUSH + "\n")
    text = (f"middleware = [{everywhere}]\n" if everywhere else "") + PLAIN
    text += ROUTE.format(f"middleware = [{route}]\n" if route else "")
    path = folder / "gateway.toml"
    path.write_text(text)
    return load(path, {"HUSH": HUSH}, KINDS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_secret_of_a_layer_is_shown_nowhere(tmp_path: Path, layer: str) -> None:
    with_it = loaded(tmp_path, route=layer)
    two = loaded(tmp_path, route=layer + ", { kind = 'request_id' }")
    other = loaded(tmp_path, route=layer.replace("123", "321"))
    everywhere = loaded(tmp_path, everywhere=layer)
    without = loaded(tmp_path)
    said = [effective(with_it), effective(everywhere)]
    for old in (with_it, two, other, everywhere, without):
        for new in (with_it, two, other, everywhere, without):
            said += changes(old, new)
    for config in (with_it, everywhere):
        said.append(json.dumps(asdict(explain(config, "GET", "http://a/", [], "127.0.0.1")), default=str))
    assert len(said) > 10
    assert not [line for line in said if "hush" in line.replace("hush.txt", "")]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_secret_of_a_layer_is_handed_on(tmp_path: Path, layer: str) -> None:
    config = loaded(tmp_path, route=layer)
    data, marks = json.loads(json.dumps(kept(config)))
    found = restored(data, KINDS, marks)
    assert found == config
    assert found is not None and effective(found) == effective(config)


def options(config: Config) -> dict[str, Any]:
    options: dict[str, Any] = config.model_dump()["routes"][0]["middleware"][0]["options"]
    return options


def test_any_option_of_a_plug_in_may_be_a_secret(tmp_path: Path) -> None:
    layer = (
        '{ kind = "asgi", use = "a:B", options = { a = { env = "HUSH" }, b = [{ file = "hush.txt" }], c = { d = 1 } } }'
    )
    found = options(loaded(tmp_path, route=layer))
    assert found == {"a": HUSH, "b": [HUSH], "c": {"d": 1}}
    assert type(found["a"]) is type(found["b"][0]) is Secret


def test_the_options_themselves_are_no_secret(tmp_path: Path) -> None:
    for name in ("env", "file"):
        layer = f'{{ kind = "hooks", use = "a:B", options = {{ {name} = "words.txt" }} }}'
        assert options(loaded(tmp_path, route=layer)) == {name: "words.txt"}


def test_what_is_no_option_of_a_layer_is_left_alone() -> None:
    table = {"env": "HUSH"}
    for data in ({"options": {"a": table}}, {"middleware": [{"a": table}]}, {"upstreams": {"options": {"a": table}}}):
        assert expand(data, {"HUSH": HUSH}) == (data, [])


def test_a_secret_that_can_not_be_had(tmp_path: Path) -> None:
    where = ("middleware_sets", "s", "middleware", 0, "options", "a")
    data = {"middleware_sets": {"s": {"middleware": [{"options": {"a": {"env": "NONE"}}}]}}}
    _, problems = expand(data, {})
    assert problems == [Problem(where, "the environment variable NONE is not set, and no default is given")]
    for value, told in (
        ('{ file = "none.txt" }', "routes[0].middleware[0].options.a: cannot read none.txt: No such file or directory"),
        ('{ env = "EMPTY", default = "" }', "a secret can't be empty"),
    ):
        with pytest.raises(ConfigErrors) as raised:
            loaded(tmp_path, route=f'{{ kind = "asgi", use = "a:B", options = {{ a = {value} }} }}')
        assert told in str(raised.value)


def test_a_predicate_may_be_a_secret(tmp_path: Path) -> None:
    text = PLAIN + ROUTE.format(f'headers = {{ x-api-key = "{HUSH}" }}\nquery = {{ token = "{HUSH}" }}')
    (tmp_path / "gateway.toml").write_text(text)
    config = load(tmp_path / "gateway.toml", {}, KINDS)
    found = explain(config, "GET", "http://a/", [], "127.0.0.1")
    assert found.candidates[0].failed == {"headers": "x-api-key: (secret)", "query": "token=(secret)"}
    assert explain(config, "GET", f"http://a/?token={HUSH}", [("x-api-key", HUSH)], "").outcome.route == "app"


@pytest.mark.parametrize(
    ("name", "telling"),
    [
        *(
            (name, True)
            for name in ("authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "x-api-key", "apikey")
        ),
        *((name, True) for name in ("accessToken", "SECRET_KEY", "db.password", "X-Auth-Token", "tokens", "sig")),
        *((name, False) for name in ("token_url", "x-tenant", "keyboard", "monkey", "cookie_name", "", "authority")),
    ],
)
def test_telling_names(name: str, telling: bool) -> None:
    assert is_telling(name) is telling


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://user:pass@host/path", "https://(secret)@host/path"),
        ("https://user:p@ss@host", "https://(secret)@host"),
        ("https://host/a@b", "https://host/a@b"),
        ("https://host/?a=b&api_key=c&token=d#e", "https://host/?a=b&api_key=(secret)&token=(secret)#e"),
        ("user:pass@host?token=x", "user:pass@host?token=x"),  # no URL
    ],
)
def test_urls_without_credentials(text: str, left: str) -> None:
    assert without_credentials(text) == left
    # In a message it may be what is wrong with the URL that its password reaches further than that.
    told = shown(text)
    assert "pass" not in told.removeprefix('"user:pass@host') and "=c" not in told and "d#" not in told


def test_a_url_that_is_refused_is_quoted_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as raised:
        loaded(tmp_path, route=f'{{ kind = "forward_auth", url = "https://user:{HUSH}@a/check" }}')
    assert "https://(secret)@a/check" in str(raised.value) and HUSH not in str(raised.value)
