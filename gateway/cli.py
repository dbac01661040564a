"""The command line: the only place where master meets worker."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import gateway
from gateway.config.paths import control_path, find
from gateway.config.problems import closest
from gateway.config.values import MOST_WORKERS
from gateway.errors import Absent, GatewayError
from gateway.master.control import ask

if TYPE_CHECKING:
    from gateway.config.model import Config

# What only some commands need is imported by them: one that asks the master a question is to answer soon.

_FILE = click.option(
    "-c",
    "--config",
    "path",
    metavar="FILE",
    help="The configuration file. Default: ./gateway.toml, then /etc/gateway/gateway.toml.",
)
_CONTROL = click.option("--control", metavar="PATH", help="The control socket, when it is not the file's.")


def _fail(error: object) -> NoReturn:
    """One plain sentence (or one for each mistake), exit 1."""
    click.echo(str(error), err=True)
    sys.exit(1)


def _guarded(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except GatewayError as error:
        _fail(error)


def _load(path: str | None) -> tuple[Path, Config]:
    """The file, and what it says. What that names and this machine lacks makes no difference to what it says."""
    from gateway.config.load import load
    from gateway.middleware import KINDS
    from gateway.worker.assembly import check

    found = find(path)
    config = load(found, kinds=KINDS)
    check(config, absent=lambda what: None)
    return found, config


def _checked(path: str | None, is_rehearsal: bool) -> tuple[Path, Config, list[str]]:
    """The same with warnings: of what it can't mean, and, where it is not about to be run, of what is not here."""
    from gateway.config.load import load_and_lint
    from gateway.middleware import KINDS
    from gateway.worker.assembly import check
    from gateway.worker.plugins import Plugins

    found = find(path)
    config, mistakes = load_and_lint(found, kinds=KINDS)
    absent: list[Absent] = []
    check(config, Plugins(config.process.python_path), None if is_rehearsal else absent.append)
    return found, config, [*map(str, mistakes), *(f"{one}; nothing starts without it" for one in absent)]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gateway.__version__, prog_name="gateway")
def main() -> None:
    """An HTTP gateway: one master, one worker per CPU, reloads that lose nothing."""


@main.command()
@_FILE
def run(path: str | None) -> None:
    """Start in the foreground."""
    from gateway.master.master import Master
    from gateway.middleware import KINDS
    from gateway.observer.observer import run_observer
    from gateway.scoreboard import Role
    from gateway.worker.assembly import check
    from gateway.worker.worker import run_worker

    def start() -> int:
        found = find(path).absolute()
        master = Master(found, {Role.WORKER: run_worker, Role.OBSERVER: run_observer}, check, KINDS)
        return master.run()

    sys.exit(_guarded(start))


@main.command()
@_FILE
@click.option("--strict", is_flag=True, help="Exit 1 for warnings, too.")
def check(path: str | None, strict: bool) -> None:
    """Read the configuration and say all that is wrong with it. What is right but can't be meant, and files and
    plug-ins that are not on this machine, are warned of."""
    from gateway.master.upgrade import is_rehearsal, unlike_the_running_one

    refused = unlike_the_running_one(os.environ)
    if refused:
        _fail(refused)
    found, config, warnings = _guarded(lambda: _checked(path, is_rehearsal(os.environ)))
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if strict and warnings:
        sys.exit(1)
    listeners, routes, upstreams = len(config.listeners), len(config.routes), len(config.upstreams)
    click.echo(f"{found}: ok ({listeners} listeners, {routes} routes, {upstreams} upstreams)")


@main.command()
@_FILE
def config(path: str | None) -> None:
    """Print the effective configuration, every default spelled out, secrets redacted."""
    from gateway.config.dump import effective

    click.echo(_guarded(lambda: effective(_load(path)[1])))


@main.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    from gateway.config.dump import schema
    from gateway.middleware import KINDS

    click.echo(schema(KINDS), nl=False)


@main.command()
@click.argument("kind", required=False)
@click.option("--markdown", "as_markdown", is_flag=True, help="All kinds with their options, as conf/middleware.md.")
def middleware(kind: str | None, as_markdown: bool) -> None:
    """List the kinds of layers that can stand around routes, or say what one of them does and may be told."""
    from gateway.middleware import MIDDLEWARE, reference

    if as_markdown:
        click.echo(reference.markdown(MIDDLEWARE), nl=False)
    elif kind is None:
        click.echo(reference.listing(MIDDLEWARE))
    elif kind in MIDDLEWARE:
        click.echo(reference.plain(kind, MIDDLEWARE[kind]))
    else:
        near = closest(kind, MIDDLEWARE)
        _fail(f'there is no kind "{kind}" of middleware' + (f' (did you mean "{near}"?)' if near else ""))


def _fields(context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = []
    for line in value:
        name, colon, said = line.partition(":")
        if not colon:
            raise click.BadParameter(f'expected "Name: value", got "{line}"')
        pairs.append((name, said.strip()))
    return pairs


def _client(context: click.Context, option: click.Parameter, value: str) -> str:
    try:
        return value if value == "unix" else str(ip_address(value))
    except ValueError:
        raise click.BadParameter(f'expected an IP address or "unix", got "{value}"') from None


@main.command()
@_FILE
@click.argument("method")
@click.argument("url")
@click.option("-H", "fields", metavar="'NAME: VALUE'", multiple=True, callback=_fields, help="A header field.")
@click.option(
    "--client",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    callback=_client,
    help="The address that comes out when trusted_proxies have been believed.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def explain(path: str | None, method: str, url: str, fields: list[tuple[str, str]], client: str, as_json: bool) -> None:
    """Say which route takes a request, why not the others, and what an endpoint gets. Exit 1: none takes it.

    URL is absolute, or a path; then give the host with -H 'Host: ...'.
    """
    from gateway.proxy.explain import explain
    from gateway.proxy.explained import explained

    told = _guarded(lambda: explain(_load(path)[1], method, url, fields, client))
    click.echo(json.dumps(asdict(told), indent=2) if as_json else explained(told))
    sys.exit(0 if told.is_taken else 1)


def _ask(
    path: str | None, control: str | None, question: dict[str, Any], timeout: float | None = 10.0
) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        return ask(control or control_path(find(path)), question, timeout)

    answer: dict[str, Any] = _guarded(work)
    return answer


@main.command()
@_FILE
@_CONTROL
def reload(path: str | None, control: str | None) -> None:
    """Reload the configuration and wait for the outcome."""
    answer = _ask(path, control, {"do": "reload"}, timeout=None)
    if not answer["ok"]:
        _fail(answer["error"])
    for line in answer["changes"]:
        click.echo(line)
    if not answer["changes"]:
        click.echo("nothing changed in the configuration")
    click.echo(f"generation {answer['generation']} serves")


@main.command()
@_FILE
@_CONTROL
def stop(path: str | None, control: str | None) -> None:
    """Stop gracefully: finish what is under way, then end."""
    _ask(path, control, {"do": "stop"})


@main.command()
@_FILE
@_CONTROL
@click.argument("workers", type=click.IntRange(1, MOST_WORKERS))
def scale(path: str | None, control: str | None, workers: int) -> None:
    """Run this many workers until the next reload."""
    answer = _ask(path, control, {"do": "scale", "workers": workers})
    if not answer["ok"]:
        _fail(answer["error"])
    click.echo(f"{workers} workers wanted")


@main.command()
@_FILE
@_CONTROL
def reopen(path: str | None, control: str | None) -> None:
    """Reopen the log files (after they were rotated)."""
    answer = _ask(path, control, {"do": "reopen"})
    if not answer["ok"]:
        _fail(answer["error"])


@main.command()
@_FILE
@_CONTROL
@click.option("--json", "as_json", is_flag=True, help="As JSON, also on a terminal.")
def status(path: str | None, control: str | None, as_json: bool) -> None:
    """Show the master, the observer and every worker."""
    answer = _ask(path, control, {"do": "status"})
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(_table(answer))


@main.group("endpoint")
def endpoint_group() -> None:
    """Look at the endpoints of the upstreams, take one out of use and back in."""


@endpoint_group.command("list")
@_FILE
@_CONTROL
@click.option("--json", "as_json", is_flag=True, help="As JSON, also on a terminal.")
def list_endpoints(path: str | None, control: str | None, as_json: bool) -> None:
    """Show every endpoint: its condition, what is in flight."""
    answer = _ask(path, control, {"do": "endpoints"})
    rows = answer["endpoints"]
    for one in answer.get("discovery", ()):
        if one["trouble"]:
            click.echo(_trouble(one), err=True)
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = "drained" if row["drained"] else row["condition"]
        click.echo(f"{row['upstream']:<16}{row['endpoint']:<28}{state:<10}{row['in_flight']:>6} in flight")


@endpoint_group.command("drain")
@_FILE
@_CONTROL
@click.option("--wait/--no-wait", default=True, help="Wait until nothing is in flight to it.")
@click.argument("upstream")
@click.argument("endpoint")
def drain_endpoint(path: str | None, control: str | None, wait: bool, upstream: str, endpoint: str) -> None:
    """Have an endpoint get nothing new, also after a reload, until it is taken back in."""
    _set_drained(path, control, upstream, endpoint, True)
    shown = None
    while wait:
        rows = _ask(path, control, {"do": "endpoints"})["endpoints"]
        left = sum(row["in_flight"] for row in rows if (row["upstream"], row["endpoint"]) == (upstream, endpoint))
        if left != shown:
            click.echo(f"{left} in flight")
            shown = left
        if not left:
            break
        time.sleep(_DRAIN_LOOK)


@endpoint_group.command("undrain")
@_FILE
@_CONTROL
@click.argument("upstream")
@click.argument("endpoint")
def undrain_endpoint(path: str | None, control: str | None, upstream: str, endpoint: str) -> None:
    """Take an endpoint back in."""
    _set_drained(path, control, upstream, endpoint, False)


_DRAIN_LOOK = 0.2  # seconds


def _set_drained(path: str | None, control: str | None, upstream: str, endpoint: str, drained: bool) -> None:
    question = {"do": "drain", "upstream": upstream, "endpoint": endpoint, "drained": drained}
    answer = _ask(path, control, question)
    if not answer["ok"]:
        _fail(answer["error"])


def _unfetched(one: dict[str, Any]) -> str:
    age = one["age_seconds"]
    left = "there is none to use" if age is None else f"the one of {age:.0f} s ago is used"
    return f"{one['url']}: fetching fails: {one['trouble']}; {left}"


def _trouble(one: dict[str, Any]) -> str:
    return f"{one['upstream']}: looking up endpoints fails: {one['trouble']}; it has {one['endpoints']}"


_COLUMNS = (
    ("process", 12), ("pid", 8), ("gen", 4), ("state", 9), ("age", 8), ("cpu s", 8), ("memory", 8), ("conns", 6),
    ("tunnels", 8), ("requests", 10),
)  # fmt: skip


def _table(answer: dict[str, Any]) -> str:
    """The human form of `status`."""
    rows = [_row("master", answer["master"] | {"generation": answer["generation"], "state": "running"})]
    if answer["observer"] is not None:
        rows.append(_row("observer", answer["observer"]))
    rows += [_row(f"worker {one['slot']}", one) for one in answer["workers"]]
    restarts = ", ".join(f"{count} {reason}" for reason, count in answer["restarts"].items() if count) or "none"
    tunnels = answer["tunnels"]
    listeners = ", ".join(
        f"{name} on {address}" + (f" ({tunnels[name]} tunnels)" if name in tunnels else "")
        for name, address in answer["listeners"].items()
    )
    return "\n".join(
        (
            f"gateway {answer['version']}, {answer['config']}, generation {answer['generation']}",
            f"listening: {listeners}" + (f"; admin on {answer['admin']}" if answer["admin"] else ""),
            f"workers wanted: {answer['workers_wanted']}; restarts: {restarts}",
            *(_trouble(one) for one in answer.get("discovery", ()) if one["trouble"]),
            *(_unfetched(one) for one in answer.get("documents", ()) if one["trouble"]),
            "",
            "".join(
                title.ljust(width) if index == 0 else title.rjust(width)
                for index, (title, width) in enumerate(_COLUMNS)
            ),
            *rows,
        )
    )


def _row(name: str, one: dict[str, Any]) -> str:
    cells = (
        name,
        one["pid"],
        one["generation"],
        one["state"],
        _span(one["age_seconds"]),
        f"{one['cpu_seconds']:.2f}",
        f"{one['private_bytes'] / 2**20:.1f}M",
        one.get("connections", "-"),
        sum(one["tunnels"].values()) if "tunnels" in one else "-",
        one.get("requests", "-"),
    )
    return "".join(
        str(cell).ljust(width) if index == 0 else str(cell).rjust(width)
        for index, (cell, (_, width)) in enumerate(zip(cells, _COLUMNS, strict=True))
    )


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.0f}s"


@main.command()
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True)
def demo(workers: int) -> None:
    """Start two small applications and a gateway in front of them, and say what to try."""
    from gateway.demo import run_demo

    sys.exit(_guarded(lambda: run_demo(workers)))


if __name__ == "__main__":
    main()
