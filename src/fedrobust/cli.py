"""The command line: run, sweep, audit, attack learn, report, list, data get."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedrobust.errors import UserError

app = typer.Typer(
    help="Train federated models meant to be robust, attack their training, measure honestly.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Get and check data sets.", no_args_is_help=True)
attack = typer.Typer(help="Prepare attacks.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(attack, name="attack")


@contextmanager
def _user_errors() -> Iterator[None]:
    """A user's mistake is one message and exit code 2; anything else is a bug, with traceback."""
    try:
        yield
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedrobust {version('fedrobust')}")
        raise typer.Exit


@app.callback()
def options(
    wanted: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Train federated models meant to be robust, attack their training, measure honestly."""


@app.command("run")
def run_command(
    config: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", help="Override a key: aggregator.f=12. May be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run directory to write; runs/NAME if left out.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that is there.")
    ] = False,
) -> None:
    """Play one experiment and record it."""
    from fedrobust.display import Display
    from fedrobust.experiment import load
    from fedrobust.training import run

    # A config may name a user's own module:Class, next to it or where the command is given.
    sys.path[:0] = [str(Path.cwd()), str(config.resolve().parent)]
    with _user_errors():
        experiment = load(config, settings or [])
        directory = out or Path("runs") / experiment.name
        display = Display(Console(stderr=True))
        try:
            with display:
                result = run(experiment, directory, resume, progress=display.progress)
        except KeyboardInterrupt as stop:
            typer.echo(f"stopped; go on with --resume --out {directory}", err=True)
            raise typer.Exit(130) from stop
    chosen, final = result.summary["test"]["best"], result.summary["test"]["final"]
    for label, scores in (("chosen on validation", chosen), ("final", final)):
        typer.echo(
            f"round {scores['round']} ({label}): {scores['accuracy']:.2%} accurate, "
            f"{scores['robust_accuracy']:.2%} robust on {scores['examples']:,} test examples"
        )
    for trouble in result.summary["troubles"]:
        typer.echo(f"warning: {trouble}")
    typer.echo(f"records: {directory}")


@app.command("sweep")
def sweep_command(
    config: Annotated[Path, typer.Argument(help="An experiment with a grid:, a YAML file.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", help="Override a key of every cell. May be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; runs/NAME if left out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep there.")] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Cells at a time; as many as cores if left out.", min=1)
    ] = None,
) -> None:
    """Play every cell of a grid, and report on all."""
    from fedrobust.display import SweepDisplay
    from fedrobust.grid import load_sweep
    from fedrobust.report import write_report
    from fedrobust.sweep import run_sweep

    sys.path[:0] = [str(Path.cwd()), str(config.resolve().parent)]
    with _user_errors():
        sweep = load_sweep(config, settings or [])
        directory = out or Path("runs") / sweep.name
        display = SweepDisplay(Console(stderr=True), len(sweep.cells))
        try:
            with display:
                failed = run_sweep(sweep, directory, resume, jobs=jobs, watch=display.watch)
        except KeyboardInterrupt as stop:
            typer.echo(f"stopped; go on with --resume --out {directory}", err=True)
            raise typer.Exit(130) from stop
        for name, reason in failed.items():
            typer.echo(f"failed: {name}: {reason} (see {directory}/failed/{name}.txt)", err=True)
        done = len(sweep.cells) - len(failed)
        typer.echo(f"{done} of {len(sweep.cells)} cells are done; records: {directory}")
        if done:
            typer.echo(f"report: {write_report([directory])}")
    if failed:
        raise typer.Exit(1)


@attack.command("learn")
def attack_learn(
    config: Annotated[Path, typer.Argument(help="An experiment whose attack is learned.")],
    out: Annotated[Path, typer.Option(help="The policy to write, a .safetensors file.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", help="Override a key: attack.horizon=200. May be repeated."),
    ] = None,
) -> None:
    """Train a policy, for attack: {name: learned, policy: FILE}."""
    from fedrobust.attacks.learned.files import require_new, save_policy
    from fedrobust.attacks.learned.learning import learn_policy
    from fedrobust.display import Display
    from fedrobust.experiment import load

    sys.path[:0] = [str(Path.cwd()), str(config.resolve().parent)]
    with _user_errors():
        require_new(out)
        experiment = load(config, settings or [])
        try:
            with Display(Console(stderr=True)):
                policy, about = learn_policy(experiment)
        except KeyboardInterrupt as stop:
            typer.echo("stopped; nothing was written", err=True)
            raise typer.Exit(130) from stop
        save_policy(policy, out, about)
    spent = about["report"]
    typer.echo(
        f"{spent['simulated_rounds']:,} simulated rounds, {spent['seconds']:.0f} s, after "
        f"{spent['observed_rounds']} observed ones; policy: {out}"
    )
    for trouble in spent["troubles"]:
        typer.echo(f"warning: {trouble}")


@app.command("audit")
def audit_command(
    model: Annotated[
        str, typer.Argument(help="A run directory, a .safetensors file, or module:name.")
    ],
    eps: Annotated[
        str | None,
        typer.Option(help="The radius, such as 0.3 or 8/255; a run knows its own."),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="linf, which is the default, or l2; a run knows its own.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The data set, by name; a run knows its own.")
    ] = None,
    network: Annotated[
        str | None, typer.Option("--model", help="The network that a .safetensors file holds.")
    ] = None,
    budget: Annotated[str, typer.Option(help="quick or standard.")] = "quick",
    samples: Annotated[int, typer.Option(help="Test examples, drawn at random.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the examples and of what attacks draw.")] = 0,
    last: Annotated[bool, typer.Option("--last", help="A run's last model, not its best.")] = False,
    out: Annotated[Path | None, typer.Option(help="A JSON file to write.")] = None,
) -> None:
    """Is the robustness that plain PGD shows real? A battery of attacks, and a verdict."""
    from fedrobust.evaluation.auditing.command import audited, radius

    sys.path[:0] = [str(Path.cwd())]
    with _user_errors():
        found = audited(
            model,
            eps=radius(eps) if eps is not None else None,
            norm=norm,
            data=data,
            network=network,
            budget=budget,
            samples=samples,
            seed=seed,
            last=last,
            out=out,
            watch=lambda name, examples: typer.echo(f"{name}: {examples:,} examples", err=True),
        )
    typer.echo(str(found))


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories, several to compare, or a sweep.")
    ],
    out: Annotated[Path | None, typer.Option(help="The folder of the report.")] = None,
) -> None:
    """Make one self-contained HTML page, and its figures as PNG and SVG."""
    from fedrobust.report import write_report

    with _user_errors():
        typer.echo(f"report: {write_report(runs, out)}")


def kinds() -> dict[str, tuple[type, ...]]:
    """What ``fedrobust list`` lists: the members of every union."""
    from fedrobust.aggregators import AGGREGATORS
    from fedrobust.attacks import ATTACKS
    from fedrobust.data import DATASETS, PARTITIONS
    from fedrobust.models import MODELS
    from fedrobust.objectives import OBJECTIVES
    from fedrobust.optimizers import OPTIMIZERS
    from fedrobust.participation import PARTICIPATIONS
    from fedrobust.perturb import PERTURBATIONS
    from fedrobust.projection import PROJECTIONS

    return {
        "data": DATASETS,
        "partition": PARTITIONS,
        "model": MODELS,
        "objective": OBJECTIVES,
        "perturbation": PERTURBATIONS,
        "optimizer": OPTIMIZERS,
        "participation": PARTICIPATIONS,
        "attack": ATTACKS,
        "aggregator": AGGREGATORS,
        "projection": PROJECTIONS,
    }


@app.command("list")
def list_command(
    kind: Annotated[str | None, typer.Argument(help="What to list, such as aggregator.")] = None,
) -> None:
    """List the components of a kind, with their fields; without a kind, list the kinds."""
    from fedrobust.component import name_of, suggestion
    from fedrobust.errors import ConfigError

    known = kinds()
    with _user_errors():
        if kind is None:
            for name, members in known.items():
                typer.echo(f"{name:14} {', '.join(name_of(member) for member in members)}")
            return
        singular = kind.removesuffix("s")
        if singular not in known and kind not in known:
            raise ConfigError(
                f"there is no kind {kind!r}{suggestion(kind, known)}; there are: {', '.join(known)}"
            )
    table = Table(box=None, pad_edge=False)
    singular = kind.removesuffix("s")
    heads = ["name", "fields", "what it is"] + (["must know"] if singular == "attack" else [])
    for column in heads:
        table.add_column(column, overflow="fold")
    for member in known[kind if kind in known else singular]:
        row = [name_of(member), _fields(member), (member.__doc__ or "").split("\n")[0]]
        table.add_row(*row, *([_knowledge(member)] if singular == "attack" else []))
    Console().print(table)


def _knowledge(member: type) -> str:
    """What an attack must know beyond its own data."""
    from fedrobust.threat import ThreatModel

    needs: Any = getattr(member, "needs", frozenset())
    if not isinstance(needs, frozenset):
        return "depends on its fields"
    return ", ".join(ThreatModel(colluders=False).lacks(needs)) or "nothing more"


def _fields(member: type) -> str:
    shown = []
    for item in fields(member):
        default: Any = getattr(member, item.name, MISSING)
        if item.name != "name":
            shown.append(item.name if default is MISSING else f"{item.name}={default}")
    return ", ".join(shown)


@data.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="A data set; `fedrobust list data` names them.")],
) -> None:
    """Find or download a data set, check it, and say where it is."""
    from fedrobust.data import get

    with _user_errors():
        get(name, typer.echo)


def main() -> None:
    """The entry point of ``fedrobust``."""
    app()
