"""The command ``fedrobust list``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedrobust.cli import completion
from fedrobust.cli.app import app, user_errors
from fedrobust.cli.components import Component, Listing, listing
from fedrobust.cli.experiments import about, command, costs
from fedrobust.config.shelf import experiments, found
from fedrobust.config.text import quoted, shortened, suggestion
from fedrobust.errors import ConfigError

EXPERIMENTS = "experiment"
_SHORT = 100
"""The most characters of what a table says of an experiment."""


@app.command("list")
def list_command(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="What to list, such as aggregator; or a component: krum.",
            autocompletion=completion.listed,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(help="One of that kind, such as krum.", autocompletion=completion.of_kind),
    ] = None,
) -> None:
    """List the kinds of components, the components of one kind, or the details of one.

    The kind experiment lists the configs that come with fedrobust, with the command that plays each
    and its cost.
    """
    known = listing()
    if kind is None:
        for each, members in known.items():
            typer.echo(f"{each:16} {', '.join(member['name'] for member in members)}")
        typer.echo(f"{EXPERIMENTS:16} {len(experiments())} configs that come with fedrobust")
        return
    with user_errors():
        singular = kind.removesuffix("s")
        kind = singular if singular in (*known, EXPERIMENTS) else kind
        if kind == EXPERIMENTS:
            _experiments(name)
            return
        if kind not in known and name is None and _by_name(kind, known):
            return
        kind = _found("kind", kind, [*known, EXPERIMENTS], _names(known))
        by_name = {member["name"]: member for member in known[kind]}
        if name is None:
            Console().print(_table(kind, known[kind]))
        else:
            _describe(by_name[_found(kind, name, list(by_name))])


def _experiments(name: str | None) -> None:
    """Print the names of the experiments that come with fedrobust, or the text of one."""
    if name is not None:
        typer.echo(found(Path(name)).read_text("utf-8"), nl=False)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("command", no_wrap=True)
    table.add_column("cost", overflow="fold", max_width=24)
    table.add_column("what it is", overflow="fold")
    known = costs()
    for each, path in experiments().items():
        row = (each, command(path), known.get(path, "–"), shortened(about(path), _SHORT))
        table.add_row(*map(Text, row))
    Console().print(table)
    typer.echo("The whole of one: fedrobust list experiments NAME")


def _by_name(name: str, known: Listing) -> bool:
    """Describe the component or the experiment of this name; return whether there is one."""
    found = [
        (kind, member)
        for kind, members in known.items()
        for member in members
        if member["name"] == name
    ]
    for kind, member in found:
        typer.echo(f"{name}, {'an' if kind[0] in 'aeiou' else 'a'} {kind}\n")
        _describe(member)
    if not found and name in experiments():
        _experiments(name)
        return True
    return bool(found)


def _names(known: Listing) -> list[str]:
    """Return the names of all components and experiments."""
    return [*(member["name"] for each in known.values() for member in each), *experiments()]


def _found(what: str, word: str, known: list[str], also: Sequence[str] = ()) -> str:
    """Return ``word``, which must be ``known``. A word that is like one of ``also`` is hinted at.

    Raises: ``ConfigError``.
    """
    if word not in known:
        raise ConfigError(
            f"there is no {what} {quoted(word)}{suggestion(word, [*known, *also])}; "
            f"there are: {', '.join(known)}"
        )
    return word


def _table(kind: str, members: list[Component]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ["name", "fields", "what it is"] + ["must know"] * (kind == "attack"):
        table.add_column(column, overflow="fold")
    for member in members:
        row = [member["name"], member["fields"], member["doc"].split("\n")[0]]
        row += [member["knowledge"]] if member["knowledge"] is not None else []
        table.add_row(*map(Text, row))  # as Text, brackets are not read as markup
    return table


def _describe(member: Component) -> None:
    """Print the docstring and every field."""
    typer.echo(f"{member['doc']}\n")
    width = max((len(path) for path, _ in member["parts"]), default=0)
    for path, value in member["parts"]:
        typer.echo(f"  {path:{width}}  {value}")
