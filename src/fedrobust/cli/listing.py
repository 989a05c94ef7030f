"""The command ``fedrobust list``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedrobust.cli.app import app, user_errors
from fedrobust.cli.components import Component, listing
from fedrobust.cli.experiments import about, experiments, found
from fedrobust.config.text import quoted, suggestion
from fedrobust.errors import ConfigError

EXPERIMENTS = "experiment"


@app.command("list")
def list_command(
    kind: Annotated[str | None, typer.Argument(help="What to list, such as aggregator.")] = None,
    name: Annotated[str | None, typer.Argument(help="One of that kind, such as krum.")] = None,
) -> None:
    """List the kinds of components, the components of one kind, or the details of one.

    The kind experiment lists the configs that come with fedrobust.
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
        kind = _found("kind", kind, [*known, EXPERIMENTS])
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
    for column in ("name", "what it is"):
        table.add_column(column, overflow="fold")
    for each, path in experiments().items():
        table.add_row(Text(each), Text(about(path)))
    Console().print(table)


def _found(what: str, word: str, known: list[str]) -> str:
    if word not in known:
        raise ConfigError(
            f"there is no {what} {quoted(word)}{suggestion(word, known)}; "
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
