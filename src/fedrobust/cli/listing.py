"""``fedrobust list``."""

from dataclasses import MISSING, fields
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fedrobust.cli.app import app, user_errors


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
    from fedrobust.component import name_of
    from fedrobust.errors import ConfigError
    from fedrobust.messages import suggestion

    known = kinds()
    with user_errors():
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
