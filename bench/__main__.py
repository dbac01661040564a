"""The command line: ``python -m bench compare``, ``conformance``, ``profile``, ``slow``, ``balancers``, ``middleware``
and ``streams``."""

import signal
import sys
from pathlib import Path

import click

from bench.balancers import as_text as balancers_text
from bench.balancers import balancers
from bench.chart import chart
from bench.compare import IDLE, Plan, compare
from bench.conformance import PATIENCE, PROXIES, conformance
from bench.conformance import Plan as ConformancePlan
from bench.conformance import as_text as conformance_text
from bench.conformance import save as save_conformance
from bench.goals import passed, verdicts
from bench.machine import commit, machine, today
from bench.middleware import as_markdown as middleware_markdown
from bench.middleware import as_text as middleware_text
from bench.middleware import middleware
from bench.peers import PEERS
from bench.peers.peer import Missing
from bench.peers.streams import STREAM_PEERS
from bench.profile import Unprofilable, profile
from bench.report import as_text, save
from bench.scenarios import SCENARIOS
from bench.slow import as_text as slow_text
from bench.slow import slow
from bench.slow import verdict as slow_verdict
from bench.streams import Plan as StreamPlan
from bench.streams import as_text as streams_text
from bench.streams import save as save_streams
from bench.streams import streams
from bench.streams import verdicts as stream_verdicts
from tests.conformance.cases import CASES
from tests.conformance.delivery import DELIVERIES

RESULTS = Path(__file__).parent / "results"
ALL_SCENARIOS = (*SCENARIOS, IDLE)
QUICK_SCENARIOS = ("small", "download", "upload")


def names(known: tuple[str, ...]) -> "click.ParamType[tuple[str, ...]]":
    """A comma-separated list out of these."""

    class Names(click.ParamType[tuple[str, ...]]):
        name = "a,b,.."

        def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
            chosen = tuple(part.strip() for part in str(value).split(",") if part.strip())
            for part in chosen:
                if part not in known:
                    self.fail(f"{part!r} is none of {', '.join(known)}", param, ctx)
            return chosen

    return Names()


@click.group()
def main() -> None:
    """Measure the gateway beside other reverse proxies on this machine."""
    # So that every "finally" runs and no proxy stays behind when the bench itself is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@main.command("compare")
@click.option("--peers", type=names(tuple(PEERS)), help=f"Default: all of {','.join(PEERS)}.")
@click.option("--scenarios", type=names(ALL_SCENARIOS), help=f"Default: all of {','.join(ALL_SCENARIOS)}.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=4.0, show_default=True, help="Length of each measure.")
@click.option("--quick", is_flag=True, help="One round of one second, without many connections: does it all run?")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, help="Where results go.")
@click.option("--check", is_flag=True, help="Exit 1 when a goal is missed.")
def compare_command(
    peers: tuple[str, ...] | None,
    scenarios: tuple[str, ...] | None,
    rounds: int,
    seconds: float,
    quick: bool,
    out: Path,
    check: bool,
) -> None:
    """Start every peer that is here, turn about, and say what a request costs each of them."""
    plan = Plan(
        peers=peers or tuple(PEERS),
        scenarios=scenarios or (QUICK_SCENARIOS if quick else ALL_SCENARIOS),
        rounds=1 if quick else rounds,
        seconds=1.0 if quick else seconds,
        warm_up=0.3 if quick else 1.0,
    )
    report = compare(plan, tell=lambda line: click.echo(line, err=True))
    click.echo(as_text(report) + "\n")
    for verdict in verdicts(report):
        click.echo(str(verdict))
    for path in save(report, chart(report), out):
        click.echo(f"written: {path}")
    if check and not passed(report, plan.scenarios):
        sys.exit(1)


DELIVERY = {delivery.name: delivery for delivery in DELIVERIES}


@main.command("conformance")
@click.option("--peers", type=names(PROXIES), default=",".join(PROXIES), show_default=True)
@click.option("--deliveries", type=names(tuple(DELIVERY)), default="whole,bytes,odd-1", show_default=True)
@click.option("--only", default="", help="Cases whose group and name hold this text.")
@click.option("--ours", is_flag=True, help="The gateway also plays what only it promises; no comparison then.")
@click.option("--all", "every_case", is_flag=True, help="A line for each case.")
@click.option("--failures", is_flag=True, help="What each proxy did where it failed.")
@click.option("--patience", type=click.FloatRange(0.1), default=PATIENCE, show_default=True, help="Seconds to wait.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    is_flag=False,
    flag_value=RESULTS,
    help="Write the results as Markdown and JSON, to bench/results or a folder.",
)
@click.option("--check", is_flag=True, help="Exit 1 when the gateway is not ahead of every other.")
def conformance_command(
    peers: tuple[str, ...],
    deliveries: tuple[str, ...],
    only: str,
    ours: bool,
    every_case: bool,
    failures: bool,
    patience: float,
    out: Path | None,
    check: bool,
) -> None:
    """Play the conformance suite against the gateway, nginx and HAProxy."""
    plan = ConformancePlan(
        proxies=("gateway",) if ours else peers,
        cases=[case for case in CASES if only in repr(case)],
        deliveries=[DELIVERY[name] for name in deliveries],
        ours=ours,
        patience=patience,
    )
    comparison = conformance(plan, tell=lambda line: click.echo(line, err=True))
    click.echo(conformance_text(comparison, every_case, failures))
    for path in save_conformance(comparison, out) if out is not None else ():
        click.echo(f"written: {path}")
    if check and not comparison.gateway_is_ahead:
        sys.exit(1)


@main.command("profile")
@click.option("--scenario", type=click.Choice(tuple(SCENARIOS)), default="small", show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=5.0, show_default=True)
def profile_command(scenario: str, seconds: float) -> None:
    """Sample the gateway's worker under load with py-spy: the functions in which its time goes."""
    try:
        click.echo(profile(scenario, seconds))
    except Unprofilable as why:
        raise click.ClickException(str(why)) from why


@main.command("slow")
@click.option("--peers", type=names(tuple(PEERS)), default="gateway", show_default=True)
@click.option("--connections", type=click.IntRange(2), default=1000, show_default=True, help="Of the attacker.")
@click.option("--seconds", type=click.IntRange(1), default=25, show_default=True, help="Length of each attack.")
@click.option("--check", is_flag=True, help="Exit 1 when the honest client was not well served.")
def slow_command(peers: tuple[str, ...], connections: int, seconds: int, check: bool) -> None:
    """Attack with slowhttptest and say what an honest client gets meanwhile."""
    try:
        found = slow(peers, connections, seconds, tell=lambda line: click.echo(line, err=True))
    except Missing as why:
        raise click.ClickException(str(why)) from why
    click.echo(slow_text(found))
    click.echo(slow_verdict(found))
    if check and not all(seen.good for seen in found):
        sys.exit(1)


@main.command("balancers")
@click.option("--quick", is_flag=True, help="One short run of each: does it all run?")
def balancers_command(quick: bool) -> None:
    """Say what a pick costs with each balancing policy, for 3 to 1,000 endpoints."""
    click.echo(balancers_text(balancers(quick=quick)))


@main.command("middleware")
@click.option("--quick", is_flag=True, help="One short run of each: does it all run?")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    is_flag=False,
    flag_value=RESULTS,
    help="Write the table as Markdown, to bench/results or a folder.",
)
def middleware_command(quick: bool, out: Path | None) -> None:
    """Say what a request costs in each kind of layer that lets it pass."""
    rows = middleware(quick=quick)
    click.echo(middleware_text(rows))
    if out is not None:
        facts = machine()
        path = out / f"{today()}-middleware.md"
        title = f"What a layer costs: {today()}, commit {commit()}, " + ", ".join(f"{k} {v}" for k, v in facts.items())
        path.write_text(middleware_markdown(rows, title))
        click.echo(f"written: {path}")


@main.command("streams")
@click.option("--peers", type=names(tuple(STREAM_PEERS)), default=",".join(STREAM_PEERS), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=4.0, show_default=True, help="Length of each measure.")
@click.option("--quick", is_flag=True, help="One round of one second and few tunnels: does it all run?")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, help="Where results go.")
@click.option("--check", is_flag=True, help="Exit 1 when a goal is missed.")
def streams_command(peers: tuple[str, ...], rounds: int, seconds: float, quick: bool, out: Path, check: bool) -> None:
    """Say what it costs to relay connections: bulk, new ones, and many that are open."""
    plan = StreamPlan(peers, 1, 1.0, 500) if quick else StreamPlan(peers, rounds, seconds)
    report = streams(plan, tell=lambda line: click.echo(line, err=True))
    click.echo(streams_text(report))
    for path in () if quick else save_streams(report, out):
        click.echo(f"written: {path}")
    if check and any(met is False for _, met in stream_verdicts(report)):
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="python -m bench")
