"""The commands ``fedrobust leaderboard``: begin a rule's config, add results, check them."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from fedrobust.cli import completion
from fedrobust.cli.app import app, look_beside, say, tell, user_errors
from fedrobust.config.shelf import experiments, found

if TYPE_CHECKING:
    from fedrobust.runs.leaderboard.protocol import Protocol

leaderboard = typer.Typer(
    help="Rank rules by the worst attack, as the audit counts it.", no_args_is_help=True
)
app.add_typer(leaderboard, name="leaderboard")

ProtocolOption = Annotated[
    Path | None,
    typer.Option(
        "--protocol",
        help="A sweep's config, or an experiment. If left out: the one that fits.",
        autocompletion=completion.config,
    ),
]


@leaderboard.command("begin")
def begin(
    config: Annotated[Path, typer.Argument(help="The config to write; its name is the rule's.")],
    settings: Annotated[
        list[str],
        typer.Option(
            "-s", "--set", help="The rule: aggregator={name: 'my_rules:Mine'}. May be repeated."
        ),
    ],
    protocol: Annotated[
        Path,
        typer.Option(
            "--protocol",
            help="A sweep's config, or an experiment.",
            autocompletion=completion.config,
        ),
    ] = Path("leaderboard/mnist"),
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="May be repeated; 0 if left out.", min=0)
    ] = None,
) -> None:
    """Write the sweep that plays one rule under every attack of the protocol."""
    with user_errors():
        from fedrobust.runs.leaderboard.entry import write_entry

        look_beside(config)
        cells = write_entry(config, found(protocol), settings, seeds or (0,))
        say(f"config: {config}, {cells} cells; play it with: fedrobust sweep {quote(str(config))}")


@leaderboard.command("add")
def add_command(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs, or sweeps of them.")],
    by: Annotated[str, typer.Option(help="Who submits.")],
    out: Annotated[Path, typer.Option(help="The leaderboard.")] = Path("results/leaderboard"),
    protocol: ProtocolOption = None,
    rule: Annotated[
        str | None, typer.Option(help="The rule's name in the ranking; if left out, the sweep's.")
    ] = None,
) -> None:
    """Make one JSON file of each finished run of the protocol."""
    with user_errors():
        from fedrobust.runs.leaderboard.submission import add

        told = add(runs, out, _protocols(protocol), by, rule)
        for why in dict.fromkeys(told.refused.values()):
            first, *others = (path for path, other in told.refused.items() if other == why)
            more = f" and {len(others)} more" if others else ""
            tell(f"refused: {first}{more}: {why}")
        there = f", {len(told.there)} were there" if told.there else ""
        number = f"{len(told.files)} result{'s' * (len(told.files) != 1)} added{there}"
        any_there = told.files or told.there
        say(f"{number}; page: fedrobust report {quote(str(out))}" if any_there else number)
    if told.refused:
        raise typer.Exit(1)


@leaderboard.command("check")
def check_command(
    folder: Annotated[Path, typer.Argument(help="The leaderboard.")] = Path("results/leaderboard"),
    protocol: ProtocolOption = None,
) -> None:
    """Check every result: its form, its digest, its place, its protocol, and that it is single."""
    with user_errors():
        from fedrobust.runs.leaderboard.check import checked

        count = checked(folder, _protocols(protocol))
        say(f"{count} result{'s' * (count != 1)}: all are sound")


def _protocols(named: Path | None) -> "list[Protocol]":
    """Read the protocol that is named, or all that come with fedrobust."""
    from fedrobust.runs.leaderboard.protocol import Protocol

    if named is not None:
        return [Protocol.read(found(named))]
    known = experiments().items()
    return [Protocol.read(path) for name, path in known if name.startswith("leaderboard/")]
