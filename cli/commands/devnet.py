"""`qenex devnet`: a network on this machine to run, load and break."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cli import output
from cli.settings import Settings
from state.errors import Rejected

HOME_DEFAULT: Final = ".devnet"
FAILURES_SHOWN_MAX: Final = 20

F = TypeVar("F", bound=Callable[..., Any])


def _set_home(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Settings).home_given = value.expanduser()


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Settings).json = True


def _options(command: F) -> F:
    """Adds --home, which has another default here than elsewhere, and --json."""
    command = click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        expose_value=False,
        callback=_set_home,
        help=f"The network's directory [default: {HOME_DEFAULT}].",
    )(command)
    return click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=_set_json, help="Answer in JSON."
    )(command)


def _home(settings: Settings) -> Path:
    return settings.home_given or Path(HOME_DEFAULT)


@click.group("devnet")
def command() -> None:
    """Run, load and break a network on this machine. Its keys are NOT ENCRYPTED: for tests only."""


def _offset(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    offsets: dict[str, int] = {}
    for value in values:
        name, separator, ms = value.partition("=")
        if not separator or not ms.removeprefix("-").isdecimal():
            raise click.BadParameter(f"{value!r} is not NAME=MS")
        offsets[name] = int(ms)
    return offsets


@command.command("up")
@click.option("--validators", type=click.IntRange(4, 16), help="Validators [default: 4, or as the home has them].")
@click.option("--full-nodes", type=click.IntRange(0, 64), help="Full nodes [default: none, or as the home has them].")
@click.option("--fresh", is_flag=True, help="Throw away the network in the home and make a new one.")
@click.option("--seed", help="Make the same keys and genesis each time [default: random ones].")
@click.option("--base-port", type=click.IntRange(1, 65_535), help="The first port, three a node [default: free ones].")
@click.option(
    "--accounts",
    type=click.IntRange(0, 10_000_000),
    help="Funded accounts for load, beside the named ones [default: 1000, or as the home has them].",
)
@click.option(
    "--clock-offset",
    "clock_offsets",
    multiple=True,
    metavar="NAME=MS",
    callback=_offset,
    help="Set a node's clock apart from the machine's, by 0 too to set it later; may be repeated.",
)
@_options
@click.pass_obj
def up(
    settings: Settings,
    validators: int | None,
    full_nodes: int | None,
    fresh: bool,
    seed: str | None,
    base_port: int | None,
    accounts: int | None,
    clock_offsets: dict[str, int],
) -> None:
    """Start a network in the foreground; Ctrl-C stops all of it.

    The first run makes it, later ones resume its chain. `devnet.json` in the home says where the nodes answer. With
    --json, one event a line. A node that ends is not started again: see `qenex devnet node`.
    """
    from devnet.fleet import Fleet
    from devnet.launcher import launch
    from devnet.prepare import Wish, prepare
    from devnet.show import make_show
    from qenex_node.exitcodes import exit_code_of

    home = _home(settings)
    wish = Wish(validators=validators, full_nodes=full_nodes, accounts=accounts, seed=seed)

    def make_fleet() -> Fleet:
        return Fleet(prepare(home, wish, fresh=fresh, base_port=base_port), clock_offsets_ms=clock_offsets)

    show = make_show(f"QENEX devnet in {home}", settings.json)
    try:
        launch(home, make_fleet, show)
    except Rejected as error:
        if not settings.json:
            raise
        # Whoever reads events reads lines: the usual form of an error has many.
        show.event("failed", error.message, code=error.code, data=error.data)
        click.get_current_context().exit(exit_code_of(error.code))


@command.command("load")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Transactions a second [default: as taken].")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="How long.")
@click.option("--accounts", type=click.IntRange(2), default=1_000, show_default=True, help="Sending accounts.")
@click.option("--transfers", type=click.IntRange(1, 256), default=1, show_default=True, help="Recipients of each.")
@click.option("--in-flight", type=click.IntRange(4, 20_000), default=4_000, show_default=True, help="Without --rate.")
@click.option(
    "--wait",
    type=click.Choice(["accepted", "committed"]),
    help="What each request waits for [default: committed up to 300/s; else accepted, and blocks tell the rest].",
)
@_options
@click.pass_obj
def load(
    settings: Settings,
    rate: float | None,
    seconds: float,
    accounts: int,
    transfers: int,
    in_flight: int,
    wait: str | None,
) -> None:
    """Send signed transfers through all validators, measure, and check that none was lost or doubled.

    Latency is from when a transaction was due (with --rate) or sent, to when its client learned that it is final.
    """
    from devnet.load.run import Load, LoadPlan
    from qenex_node.exitcodes import ExitCode

    plan = LoadPlan(rate, seconds, accounts, transfers, in_flight, wait)

    def tell(text: str) -> None:
        if not settings.json:
            click.echo(text, err=True)

    result = Load(_home(settings), plan, tell).run()
    told = result.to_json()
    shown = {name: value for name, value in told.items() if name not in ("nodes", "latency_ms", "head", "problems")}
    shown |= {f"latency_{name}_ms": value for name, value in told["latency_ms"].items()}
    output.answer(settings, told, output.fields(shown), *(f"PROBLEM: {problem}" for problem in result.problems))
    if not settings.json:
        columns = ("name", "cpu_s", "cpu_share", "rss", "rss_anon")
        output.table("Nodes", columns, [[use[column] for column in columns] for use in told["nodes"]])
    if not result.ok:
        click.get_current_context().exit(ExitCode.AUDIT_FAILED)


def _seeds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int]:
    first, _, end = value.partition("..")
    last = end or first
    if not (first.isdecimal() and last.isdecimal()) or int(last) < int(first):
        raise click.BadParameter(f"{value!r} is not a range of seeds such as 0..9999")
    return int(first), int(last)


@command.command("simulate")
@click.option("--seeds", metavar="A..B", default="0..999", show_default=True, callback=_seeds, help="From A to B.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop after so long [default: when done].")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes [default: one for each core].")
@click.option("--plan", default="mixed", show_default=True, help="How a run is drawn from its seed.")
@click.option("--results", type=click.Path(dir_okay=False, path_type=Path), help="Where results add up.")
@click.option("--replay", type=click.IntRange(0), metavar="SEED", help="Show one run, line by line, instead.")
@_options
@click.pass_obj
def simulate(
    settings: Settings,
    seeds: tuple[int, int],
    minutes: float | None,
    workers: int | None,
    plan: str,
    results: Path | None,
    replay: int | None,
) -> None:
    """Simulate networks under faults by seed, check every law, and add up the results.

    Seeds that these very sources have run already are not run again; Ctrl-C ends it at any time, with all that is
    finished counted. A seed that breaks a law is shown with the command that replays it. Results stand in
    simulations.json in the home unless --results names another file.
    """
    from devnet.simulation.campaign import Campaign, Results, Tally, run_campaign, sources_tag
    from devnet.simulation.plan import PLANS
    from qenex_node.exitcodes import ExitCode

    if plan not in PLANS:
        raise click.BadParameter(f"there are {', '.join(sorted(PLANS))}", param_hint="--plan")
    if replay is not None:
        _replay(plan, replay)
        return
    path = results or _home(settings) / "simulations.json"
    tag = sources_tag()
    campaign = Campaign(plan, *seeds, workers or os.cpu_count() or 1, None if minutes is None else minutes * 60)

    def tell(tally: Tally, failures: list[dict[str, Any]]) -> None:
        for failure in failures:
            click.echo(f"seed {failure['seed']}: VIOLATION of {failure['law']}: {failure['what']}", err=True)
            click.echo(f"  replay: {failure['replay']}", err=True)
        if sys.stderr.isatty():
            click.echo(f"\r{tally.seeds} seeds, {tally.failed} failed, {tally.wall_seconds:.0f} s ", nl=False, err=True)

    tally = run_campaign(campaign, Results(path), tag, tell)
    if settings.json:
        output.answer(settings, {"sources": tag, "plan": plan, "results": str(path), **_summary(tally)})
    else:
        shown = {"sources": tag, "plan": plan, "results": path, **_in_words(_summary(tally))}
        output.answer(settings, shown, output.fields(shown))
    if tally.failed:
        click.get_current_context().exit(ExitCode.AUDIT_FAILED)


def _summary(tally: Any) -> dict[str, Any]:
    """Returns what a tally says."""
    return {
        "seeds": tally.seeds,
        "failed": tally.failed,
        "simulated_hours": round(tally.simulated_us / 3.6e9, 2),
        "wall_seconds": round(tally.wall_seconds, 1),
        "cpu_seconds": round(tally.cpu_seconds, 1),
        "seeds_per_second": round(tally.seeds / tally.wall_seconds, 2) if tally.wall_seconds else None,
        "heights": tally.heights,
        "heights_least": tally.heights_least,
        "validators": dict(sorted(tally.sizes.items(), key=lambda item: int(item[0]))),
        "faults": dict(sorted(tally.faults.items())),
        "events": dict(sorted(tally.events.items())),
        "failures": tally.failures,
    }


def _in_words(summary: dict[str, Any]) -> dict[str, Any]:
    """Returns a summary as people read it, without the events, which are many."""
    words = {name.replace("_", " "): value for name, value in summary.items() if name != "events"}
    for name in ("validators", "faults"):
        words[name] = ", ".join(f"{key}: {count}" for key, count in summary[name].items())
    shown = [f"{failure['law']}: {failure['replay']}" for failure in summary["failures"][:FAILURES_SHOWN_MAX]]
    words["failures"] = "\n".join(shown) or "none"
    return words


def _replay(plan: str, seed: int) -> None:
    from devnet.simulation.__main__ import report
    from devnet.simulation.cluster import run
    from devnet.simulation.plan import PLANS
    from qenex_node.exitcodes import ExitCode

    result = run(PLANS[plan](seed), write=click.echo)
    click.echo(report(result, plan))
    if result.violation is not None:
        click.get_current_context().exit(ExitCode.AUDIT_FAILED)


@command.group("node")
def node() -> None:
    """Break single nodes of a running network, and bring them back."""


def _node_command(op: str, summary: str, *, needs_name: bool = True) -> None:
    @node.command(op, help=summary)
    @click.argument("name", required=needs_name)
    @_options
    @click.pass_obj
    def run(settings: Settings, name: str | None) -> None:
        from devnet.control import ask

        told = ask(_home(settings), op, name=name or "")
        output.answer(settings, told, output.fields(told))


_node_command("stop", "Let a node end cleanly (SIGTERM).")
_node_command("kill", "End a node at once (SIGKILL).")
_node_command("pause", "Stop a node in its tracks (SIGSTOP).")
_node_command("resume", "Let a paused node go on (SIGCONT).")
_node_command("start", "Start a node that ended.")
_node_command("add", "Add a further full node, permitted by all others, and start it.", needs_name=False)
_node_command(
    "add-validator",
    "Add a node, let it fetch the chain, and have the validators vote it in.",
    needs_name=False,
)
_node_command("remove-validator", "Have the validators vote one of them out; its node goes on as a full node.")


@node.command("clock", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("offset_ms", type=int, metavar="MS")
@_options
@click.pass_obj
def set_clock(settings: Settings, name: str, offset_ms: int) -> None:
    """Set a node's clock MS ahead of the machine's while it runs; negative is behind."""
    from devnet.control import ask

    told = ask(_home(settings), "clock", name=name, offset_ms=offset_ms)
    output.answer(settings, told, output.fields(told))


@node.command("list")
@_options
@click.pass_obj
def list_nodes(settings: Settings) -> None:
    """Show the nodes of a running network."""
    from devnet.control import ask

    nodes = ask(_home(settings), "nodes")["nodes"]
    if settings.json:
        output.answer(settings, nodes)
        return
    columns = ("name", "state", "pid", "height", "view", "primary", "peers", "ready")
    output.table("Nodes", columns, [[entry[column] for column in columns] for entry in nodes])


@command.command("run-node", hidden=True)
@_options
@click.pass_obj
def run_node(settings: Settings) -> None:
    """Run one node by a clock that can be set; the launcher's own command."""
    import trio

    from devnet.node import run_node_with_clock
    from qenex_node import logs
    from qenex_node.homes import open_home, read_keys

    node_home = open_home(_home(settings))
    said = node_home.config.logging
    undo = logs.setup(said.format, said.level, node=node_home.config.node.name)
    try:
        trio.run(run_node_with_clock, node_home, read_keys(node_home, None))
    finally:
        undo()
