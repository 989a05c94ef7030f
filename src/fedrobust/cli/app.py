"""The command-line program. It tells a user's mistakes apart from bugs."""

import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from fedrobust import errors
from fedrobust.cli import completion
from fedrobust.config import beside
from fedrobust.config.text import printable

app = typer.Typer(
    help="Train federated models meant to be robust, attack their training, measure honestly.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

OtherProcessor: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--other-processor",
        help="Go on although it began on another kind of processor.",
    ),
]

Quiet: TypeAlias = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="Show no progress and no result: only warnings and errors."),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, and nothing else, to stdout.")
]

CellSettings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "-s",
        "--set",
        help="Override a key of every cell. May be repeated.",
        autocompletion=completion.setting,
    ),
]
Jobs: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Cells at a time. If left out: as many as cores here, one on a GPU; on a cluster all "
        "that fit.",
        min=1,
    ),
]
On: TypeAlias = Annotated[
    str,
    typer.Option(
        "--on",
        help="Where cells are played: processes (this machine), ray (a Ray cluster), or slurm "
        "(SLURM jobs). A sweep that goes on may name another.",
        metavar="[processes|ray|slurm]",
        autocompletion=completion.one_of(*completion.LAUNCHERS),
    ),
]
Address: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="With --on ray: HOST:PORT of the cluster. If left out: RAY_ADDRESS, or the cluster "
        "that this machine is part of.",
    ),
]
SlurmArgs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm-arg",
        help="With --on slurm: an argument of the jobs, such as timeout_min=60, mem_gb=8 or "
        "slurm_partition=gpu. cluster=local tries it on this machine. May be repeated.",
        metavar="KEY=VALUE",
    ),
]


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into one message and exit code 2; other errors keep their traceback.

    fedrobust's own warnings are printed as one line each.
    """
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if category.__module__ == errors.__name__:
                tell(f"warning: {message}")
            else:
                others(message, category, *place, **more)

        warnings.showwarning = show
        try:
            yield
        except errors.UserError as error:
            tell(f"error: {error}")
            raise typer.Exit(2) from error


def tell(message: str) -> None:
    """Print a message to the standard error, as :func:`say` does."""
    say(message, err=True)


def say(text: str, err: bool = False) -> None:
    """Print a text. Characters that are not valid text, as in some paths, are shown as codes.

    The text may come from somebody else's records, so control characters are shown as codes too.
    """
    typer.echo(printable(text.encode("utf-8", "backslashreplace").decode()), err=err)


def tell_cells(failed: dict[str, str], cells: int, directory: Path, quiet: bool = False) -> int:
    """Tell which cells of a sweep or a reproduction failed; return how many are done.

    A cell's name has the name of its sweep before it where there are several: "mnist/krum".
    """
    for name, reason in failed.items():
        sweep, _, cell = name.rpartition("/")
        why = directory / sweep / "failed" / f"{cell}.txt"
        more = f" (see {why})" if why.is_file() else ""
        say(f"failed: {name}: {reason}{more}", err=True)
    done = cells - len(failed)
    if not quiet:
        say(f"{done} of {cells} cells are done; records: {directory}")
    return done


def look_beside(config: Path | None = None) -> None:
    """Let a user's own ``module:Class`` lie beside the config or in the working directory.

    Raises: ``ConfigError`` where such a folder does not exist, as for a link to itself.
    """
    try:
        places = [*([] if config is None else [config.resolve().parent]), Path.cwd()]
    except (OSError, RuntimeError) as error:
        raise errors.ConfigError(f"cannot look beside {config or 'here'}: {error}") from error
    beside.look_in(places)


def tell_stopped(context: typer.Context) -> None:
    """Tell how a command that was interrupted goes on: as it was given, and with ``--resume``."""
    words = context.command_path.split(" ")
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name == "resume":
            continue
        value = context.params[name]
        for each in value if isinstance(value, list | tuple) else [value]:
            if parameter.param_type_name == "option":
                words.append(parameter.opts[-1])
            if not isinstance(each, bool):
                words.append(str(each))
    say(f"stopped; go on with: {shlex.join([*words, '--resume'])}", err=True)


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
