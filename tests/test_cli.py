"""The command line, offline: what is printed, where, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import gateway
from gateway.cli import main

EXAMPLES = Path(__file__).parents[2] / "shared/examples"

GOOD = """
[process]
control = "control.sock"

[[listeners]]
name = "web"
listen = "127.0.0.1:0"

[upstreams.app]
endpoints = ["127.0.0.1:9001", { address = "127.0.0.1:9002", weight = 2 }]

[[routes]]
name = "app"
upstream = "app"
"""

BROKEN = """
[[listeners]]
name = "web"
listen = "127.0.0.1:0"
backlogg = 5

[upstreams.app]
endpoints = ["127.0.0.1:9001"]
balance = "round_robbin"

[[routes]]
name = "app"
upstream = "ap"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(GOOD)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _one_sentence(result: Result) -> str:
    """What a failure looks like: nothing on stdout, one line on stderr, no traceback, exit code 1."""
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert "Traceback" not in line
    return line


def test_version_and_help() -> None:
    result = run("--version")
    assert result.exit_code == 0 and gateway.__version__ in result.stdout
    result = run("-h")
    for command in (
        "run",
        "check",
        "config",
        "schema",
        "reload",
        "stop",
        "status",
        "scale",
        "reopen",
        "demo",
        "explain",
    ):
        assert f"\n  {command} " in result.stdout
        assert run(command, "-h").exit_code == 0


def test_check_of_a_good_file(file: Path) -> None:
    result = run("check", "-c", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{file}: ok (1 listeners, 1 routes, 1 upstreams)\n"


def test_check_warns_of_what_cannot_be_meant(file: Path) -> None:
    file.write_text(GOOD + '[[routes]]\nname = "never"\npath = { regex = "/a" }\nupstream = "app"\npriority = -1\n')
    result = run("check", "-c", file)
    assert result.exit_code == 0 and result.stdout == f"{file}: ok (1 listeners, 2 routes, 1 upstreams)\n"
    [warning] = result.stderr.splitlines()
    place = f"{file}:{len(GOOD.splitlines()) + 1}:3"
    assert warning.startswith(f"warning: {place}: routes[1]: never reached: routes[0] takes all its requests ({file}:")


HERE_NOTHING = """
[[middleware]]
kind = "ip_allow"
allow_file = "nobody.txt"

[[middleware]]
kind = "hooks"
use = "not_here:Plug"

[[middleware]]
kind = "jwt"
jwks = "no-keys.json"
algorithms = ["ES256"]
audience = "api"
"""


def test_check_warns_of_what_is_not_on_this_machine(file: Path) -> None:
    file.write_text(GOOD + HERE_NOTHING)
    result = run("check", "-c", file)
    assert result.exit_code == 0 and result.stdout == f"{file}: ok (1 listeners, 1 routes, 1 upstreams)\n"
    lines = result.stderr.splitlines()
    assert len(lines) == 3 and all(line.endswith("; nothing starts without it") for line in lines)
    there = file.parent
    for said in (
        f"warning: all/ip_allow#1: allow_file: {there}/nobody.txt: there is no such file;",
        f"warning: all/jwt#1: {there}/no-keys.json: there is no such file;",
        'warning: all/hooks#1: hooks "not_here:Plug": there is no module "not_here" in process.python_path',
    ):
        assert any(line.startswith(said) for line in lines), lines
    strict = run("check", "--strict", "-c", file)
    assert (strict.exit_code, strict.stdout, strict.stderr) == (1, "", result.stderr)
    assert run("check", "--strict", "-c", EXAMPLES / "http.toml").exit_code == 0


@pytest.mark.parametrize("name", ["http", "upstreams", "proxy", "middleware"])
def test_the_examples_are_accepted_wherever_they_are(name: str) -> None:
    assert run("check", "-c", EXAMPLES / f"{name}.toml").exit_code == 0


def test_check_tells_all_mistakes_at_once(file: Path) -> None:
    file.write_text(BROKEN)
    result = run("check", "-c", file)
    assert result.exit_code == 1 and result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith(str(file))]
    assert [line.split(":")[1] for line in lines] == ["5", "9", "13"]
    for wrong, meant in (("backlogg", "backlog"), ("round_robbin", "round_robin"), ('"ap"', '"app"')):
        assert wrong in result.stderr and meant in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["check", "config", "run"])
def test_a_file_that_is_missing(command: str, tmp_path: Path) -> None:
    assert str(tmp_path / "no.toml") in _one_sentence(run(command, "-c", tmp_path / "no.toml"))


@pytest.mark.parametrize("command", ["check", "config", "run", "reload", "status"])
def test_no_file_at_all(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/etc/gateway/gateway.toml").exists():
        pytest.skip("this machine has one")
    monkeypatch.chdir(tmp_path)
    assert "-c FILE" in _one_sentence(run(command))


def test_the_default_file_is_the_one_here(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    result = run("check")
    assert result.exit_code == 0 and result.stdout.startswith("gateway.toml: ok")


def test_a_file_that_is_no_toml(file: Path) -> None:
    file.write_text("[process\n")
    result = run("check", "-c", file)
    assert result.exit_code == 1 and f"{file}:1:" in result.stderr and "Traceback" not in result.stderr


def test_config_is_the_effective_one(file: Path) -> None:
    result = run("config", "-c", file)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["process"]["drain_timeout"] == "30s"
    assert told["process"]["control"] == f"{file.parent}/control.sock"
    assert told["listeners"][0]["backlog"] == 4096
    endpoint = told["upstreams"]["app"]["endpoints"][1]
    assert (endpoint["address"], endpoint["weight"]) == ("127.0.0.1:9002", 2)


def test_config_of_a_broken_file(file: Path) -> None:
    file.write_text(BROKEN)
    result = run("config", "-c", file)
    assert result.exit_code == 1 and result.stdout == "" and "backlogg" in result.stderr


def test_schema_is_json_and_the_copy_in_conf_is_true() -> None:
    result = run("schema")
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    assert {"listeners", "upstreams", "routes"} <= schema["properties"].keys()
    [copy] = (Path(__file__).parents[1] / "conf").glob("*.schema.json")
    assert json.loads(copy.read_text()) == schema


EXPLAINED = (
    GOOD
    + """
[upstreams.base]
endpoints = ["http://127.0.0.1:9003/base", "127.0.0.1:9004"]
host = "endpoint"

[[routes]]
name = "shop"
hosts = ["shop.example"]
path = "/shop"
headers = { x-tenant = "blue" }
upstream = "base"
upgrade = []
rewrite = { strip_prefix = true }

[[routes]]
name = "old"
path = "/old"
methods = ["GET"]
redirect = { to = "/new", keep_query = true }
"""
)


@pytest.fixture
def explained(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(EXPLAINED)
    return path


def test_explain_of_a_rewritten_request(explained: Path) -> None:
    result = run("explain", "-c", explained, "GET", "http://shop.example:8080/sh%6Fp/x?a=b", "-H", "X-Tenant: blue")
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        result.stdout
        == """\
request    GET /sh%6Fp/x?a=b
host       shop.example:8080
client     127.0.0.1
path       /shop/x

routes, in the order in which they are asked
  shop  takes it
  app   would take it next
  old   no: path (prefix /old)

answer     from upstream base
upgrade    none
endpoint   http://127.0.0.1:9003/base  GET /base/x?a=b, host: 127.0.0.1:9003
endpoint   127.0.0.1:9004              GET /x?a=b, host: 127.0.0.1:9004
"""
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("GET", "/old?a=b"), 0, "answer     308 from the gateway, location: /new?a=b\n"),
        (("GET", "/", "-H", "Host: x"), 0, "endpoint   127.0.0.1:9001  GET /, host: x\n"),
        (("GET", "/shop", "-H", "Host: shop.example"), 0, "  shop  no: headers (x-tenant: blue)\n"),
        (("POST", "http://x/old"), 0, "  old   no: methods (GET)\n"),
        (("GET", "http://x/a%2Fb"), 1, "ambiguous  encoded_slash: listener web answers 400\n"),
        (("GET", "http://x/a%2Fb"), 1, "answer     400 (ambiguous_path)\n"),
    ],
)
def test_explain(explained: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    result = run("explain", "-c", explained, *arguments)
    assert result.exit_code == code and told in result.stdout


def test_explain_when_no_route_takes_it(explained: Path) -> None:
    explained.write_text(
        EXPLAINED.replace('name = "app"\nupstream = "app"', 'name = "app"\npath="/app"\nupstream="app"')
    )
    result = run("explain", "-c", explained, "GET", "http://x/none")
    assert result.exit_code == 1 and "answer     404 from the gateway\n" in result.stdout
    result = run("explain", "-c", explained, "PUT", "http://x/old")
    assert result.exit_code == 1 and "answer     405 from the gateway, allow: GET\n" in result.stdout


def test_explain_does_not_list_thousands(explained: Path) -> None:
    many = "".join(f'[[routes]]\nname = "r{n}"\nhosts = ["h{n}.example"]\nupstream = "app"\n' for n in range(100))
    explained.write_text(EXPLAINED + many)
    result = run("explain", "-c", explained, "GET", "http://h99.example/")
    assert "\n  r99   takes it\n  app   would take it next\n" in result.stdout
    assert "\n  and 81 more for other hosts and paths\n" in result.stdout
    assert len(result.stdout.splitlines()) < 35


def test_explain_as_json(explained: Path) -> None:
    result = run("explain", "-c", explained, "--json", "GET", "http://shop.example/shop")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["candidates"][0] == {"name": "shop", "failed": {"headers": "x-tenant: blue"}}
    assert told["outcome"]["route"] == "app"


SHAPED = (
    GOOD
    + """
[upstreams.next]
endpoints = ["127.0.0.1:9003"]

[[routes]]
name = "split"
path = "/split"
upstream = [{ name = "app", weight = 90 }, { name = "next", weight = 10 }]
split_key = "cookie:uid"
canary = { upstream = "next", by = "header:x-canary" }
fallback = "next"
mirror = { upstream = "next", percent = 5 }
"""
)


def test_explain_of_a_route_that_is_shared(file: Path) -> None:
    file.write_text(SHAPED)
    result = run("explain", "-c", file, "GET", "http://x/split")
    assert (result.exit_code, result.stderr) == (0, "")
    shaping = """\
share      90%  app
share      10%  next
canary     next, when header:x-canary = always
fallback   next, when no endpoint is ready
mirror     next, copies of 5%
upgrade    websocket
"""
    assert (
        result.stdout.partition("\n\nanswer")[2]
        == f"""\
     from upstream app or next, by chance: the request has no cookie:uid
{shaping}\
endpoint   app   127.0.0.1:9001  GET /split, host: x
endpoint   app   127.0.0.1:9002  GET /split, host: x
endpoint   next  127.0.0.1:9003  GET /split, host: x
"""
    )
    result = run("explain", "-c", file, "GET", "http://x/split", "-H", "x-canary: always")
    assert (
        result.stdout.partition("\n\nanswer")[2]
        == f"""\
     from upstream next, by header:x-canary
{shaping}\
endpoint   127.0.0.1:9003  GET /split, host: x
"""
    )
    result = run("explain", "-c", file, "GET", "http://x/split", "-H", "Cookie: uid=1")
    assert "answer     from upstream app, by cookie:uid\n" in result.stdout


def test_explain_of_what_is_no_request(explained: Path) -> None:
    line = _one_sentence(run("explain", "-c", explained, "GET", "http://a b/"))
    assert line.startswith("refused before any route is asked: 400 ")
    for wrong in (("-H", "Host"), ("--client", "localhost")):
        result = run("explain", "-c", explained, "GET", "/", *wrong)
        assert result.exit_code == 2 and "expected" in result.stderr


ASKING = [("reload",), ("stop",), ("status",), ("status", "--json"), ("scale", "2"), ("reopen",)]


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_nobody_runs(command: tuple[str, ...], file: Path) -> None:
    line = _one_sentence(run(*command, "-c", file))
    assert line == f"no gateway is running: there is no control socket {file.parent}/control.sock"


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_nobody_runs_any_more(command: tuple[str, ...], file: Path) -> None:
    path = file.parent / "left.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    line = _one_sentence(run(*command, "--control", path))
    assert line == f"no gateway is running: nobody answers at {path}"


def test_the_control_socket_is_found_also_in_a_broken_file(file: Path) -> None:
    file.write_text(GOOD + "\n[nonsense]\n")
    assert f"{file.parent}/control.sock" in _one_sentence(run("status", "-c", file))


@pytest.mark.parametrize("workers", ["0", "-1", "x", "1000"])
def test_a_number_of_workers_that_is_none(workers: str, file: Path) -> None:
    result = run("scale", "-c", file, "--", workers)
    assert result.exit_code == 2 and "Traceback" not in result.stderr


def test_an_unknown_command() -> None:
    assert run("restart").exit_code == 2


def test_as_a_program(file: Path) -> None:
    program = [sys.executable, "-m", "gateway"]
    done = subprocess.run([*program, "check", "-c", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    file.write_text(BROKEN)
    done = subprocess.run([*program, "run", "-c", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert "backlogg" in done.stderr and "Traceback" not in done.stderr


def test_who_asks_a_gateway_something_waits_for_no_model(file: Path) -> None:
    """Building it takes longer than all the rest of such a command."""
    program = [sys.executable, "-X", "importtime", "-m", "gateway", "status", "-c", str(file)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "no gateway is running" in done.stderr and "gateway.config.paths" in imported
    assert not imported & {"pydantic", "asyncio", "gateway.config.model"}


@pytest.mark.parametrize("arguments", [["schema"], ["--help"]])
def test_a_reader_that_goes_away_is_no_error_worth_a_traceback(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen([sys.executable, "-m", "gateway", *arguments], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, said = process.communicate(timeout=30)
    assert b"Traceback" not in said and b"BrokenPipe" not in said
    assert process.returncode in (1, -signal.SIGPIPE)


def test_explain_of_endpoints_that_are_looked_up(explained: Path) -> None:
    explained.write_text(
        '[[listeners]]\nname = "web"\nlisten = ":8080"\n[[routes]]\nname = "r"\nupstream = "app"\n'
        '[upstreams.app]\ndiscovery = { kind = "dns", name = "app.internal", port = 80 }\n'
    )
    result = run("explain", "-c", explained, "GET", "http://x/")
    assert result.exit_code == 0
    assert "endpoint   dns:app.internal:80  GET /, host: x" in result.output
