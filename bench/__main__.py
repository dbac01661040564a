"""The command line: ``python -m bench compare`` and ``python -m bench profile``."""

import signal
import sys
from pathlib import Path

import click

from bench.chart import chart
from bench.compare import IDLE, Plan, compare
from bench.goals import passed, verdicts
from bench.peers import PEERS
from bench.profile import Unprofilable, profile
from bench.report import as_text, save
from bench.scenarios import SCENARIOS

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


@main.command("profile")
@click.option("--scenario", type=click.Choice(tuple(SCENARIOS)), default="small", show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=5.0, show_default=True)
def profile_command(scenario: str, seconds: float) -> None:
    """Sample the gateway's worker under load with py-spy: the functions in which its time goes."""
    try:
        click.echo(profile(scenario, seconds))
    except Unprofilable as why:
        raise click.ClickException(str(why)) from why


if __name__ == "__main__":
    main(prog_name="python -m bench")
