"""The command ``fedrobust list``."""

import inspect
import json
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedrobust.cli.app import app, user_errors


def kinds() -> dict[str, tuple[type, ...]]:
    """Return the components that ``fedrobust list`` lists, by kind."""
    from fedrobust.aggregators import AGGREGATORS
    from fedrobust.attacks import ATTACKS
    from fedrobust.clients.optimizers import OPTIMIZERS
    from fedrobust.data import DATASETS, PARTITIONS
    from fedrobust.federation.participation import PARTICIPATIONS
    from fedrobust.federation.projection import PROJECTIONS
    from fedrobust.models import MODELS
    from fedrobust.objectives import OBJECTIVES
    from fedrobust.perturb import PERTURBATIONS

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
    name: Annotated[str | None, typer.Argument(help="One of that kind, such as krum.")] = None,
) -> None:
    """List the kinds of components, the components of one kind, or the details of one."""
    from fedrobust.config.kind import name_of

    known = kinds()
    if kind is None:
        for each, members in known.items():
            typer.echo(f"{each:14} {', '.join(name_of(member) for member in members)}")
        return
    with user_errors():
        singular = kind.removesuffix("s")
        kind = _found("kind", singular if singular in known else kind, list(known))
        by_name = {name_of(member): member for member in known[kind]}
        if name is None:
            Console().print(_table(kind, known[kind]))
        else:
            _describe(by_name[_found(kind, name, list(by_name))])


def _found(what: str, word: str, known: list[str]) -> str:
    from fedrobust.config.explain import quoted, suggestion
    from fedrobust.errors import ConfigError

    if word not in known:
        raise ConfigError(
            f"there is no {what} {quoted(word)}{suggestion(word, known)}; "
            f"there are: {', '.join(known)}"
        )
    return word


def _table(kind: str, members: tuple[type, ...]) -> Table:
    from fedrobust.config.kind import name_of

    table = Table(box=None, pad_edge=False)
    for column in ["name", "fields", "what it is"] + ["must know"] * (kind == "attack"):
        table.add_column(column, overflow="fold")
    for member in members:
        row = [name_of(member), _fields(member), (member.__doc__ or "").split("\n")[0]]
        row += [_knowledge(member)] if kind == "attack" else []
        table.add_row(*map(Text, row))  # as Text, brackets are not read as markup
    return table


def _describe(member: type) -> None:
    """Print the docstring and every field, nested ones too, by the names of a config and ``-s``."""
    typer.echo(f"{inspect.cleandoc(member.__doc__ or '')}\n")
    rows = _parts(member)
    width = max((len(path) for path, _ in rows), default=0)
    for path, value in rows:
        typer.echo(f"  {path:{width}}  {value}")


def _parts(owner: Any, path: str = "") -> list[tuple[str, str]]:
    """Return the fields of a component class or value, with nested components spelled out."""
    found = []
    for item in fields(owner):
        value, at = getattr(owner, item.name, MISSING), f"{path}{item.name}"
        if item.name == "name":
            found.append((at, str(value)))
        elif value is MISSING:
            found.append((at, "required"))
        elif is_dataclass(value):
            found += _parts(value, f"{at}.")
        else:
            found.append((at, _shown(value)))
    return found


def _knowledge(member: type) -> str:
    """Return what an attack must know beyond its own data."""
    from fedrobust.config.component import from_config
    from fedrobust.config.docstring import paragraph
    from fedrobust.config.yaml import read_yaml
    from fedrobust.federation.attack import Requirements, requirements
    from fedrobust.federation.threat import ThreatModel

    requires: Any = getattr(member, "requires", None)
    fixed = isinstance(requires, Requirements)
    if not fixed:
        example: Any = from_config(member, read_yaml(paragraph(member, "Example").strip("`")))
        requires = requirements(example)
    known = ", ".join(ThreatModel(colluders=False).lacks(requires.knowledge)) or "nothing more"
    return known if fixed else f"{known}, in its example; fields may change it"


def _fields(member: type) -> str:
    shown = []
    for item in fields(member):
        default: Any = getattr(member, item.name, MISSING)
        if item.name != "name":
            shown.append(item.name if default is MISSING else f"{item.name}={_shown(default)}")
    return ", ".join(shown)


def _shown(value: Any) -> str:
    """Write a value as in YAML; a component by its name and the fields that are not default."""
    from fedrobust.config.component import to_config

    if not is_dataclass(value):
        return value if isinstance(value, str) else json.dumps(to_config(value))
    names = [item.name for item in fields(value) if item.name != "name"]
    told = [
        f"{name}={_shown(getattr(value, name))}"
        for name in names
        if getattr(value, name) != getattr(type(value), name, MISSING)
    ]
    title = getattr(value, "name", type(value).__name__.lower())
    return f"{title}({', '.join(told)})" if told else str(title)
