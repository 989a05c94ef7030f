"""What a shell offers as the value of an argument: names of components, experiments and choices.

A shell asks each time that a user presses Tab, so nothing here imports PyTorch.
"""

from collections.abc import Callable
from pathlib import Path

import typer

from fedrobust.cli.components import listing
from fedrobust.cli.experiments import reproductions
from fedrobust.config.shelf import experiments

Offer = Callable[[str], list[str]]

STARTERS = ("digits", "mnist", "fashion-mnist", "cifar10")
"""The data sets that ``fedrobust init`` has settings for."""
BUDGETS = ("quick", "standard", "full")
NORMS = ("linf", "l2")
BATCH_NORMS = ("refuse", "frozen", "to_group_norm")
LAUNCHERS = ("processes", "ray", "slurm")
SCALES = ("smoke", "cpu", "paper")
_KINDS = {
    "aggregator": "aggregator",
    "attack": "attack",
    "client.optimizer": "optimizer",
    "data": "data",
    "model": "model",
    "objective": "objective",
    "partition": "partition",
    "participation": "participation",
    "server.optimizer": "server-optimizer",
    "server.projection": "projection",
}
"""The keys of a config that name a component, with its kind."""
_CHOICES = {
    "batch_norm": ("refuse", "frozen", "to_group_norm", "local", "local_statistics"),
    "evaluation.audit": ("quick", "standard"),
    "evaluation.split": ("validation", "train"),
    "execution.backend": ("local", "ray"),
    "execution.device": ("cpu", "cuda"),
}
"""The keys of a config that take one of a few words."""


def one_of(*words: str) -> Offer:
    """Return what offers these words."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def component(kind: str, *more: str) -> Offer:
    """Return what offers the names of the components of a kind, and ``more`` words."""
    return lambda incomplete: one_of(*_names(kind), *more)(incomplete)


def config(incomplete: str) -> list[str]:
    """Offer the experiments that come with fedrobust, YAML files and folders."""
    return [*one_of(*experiments())(incomplete), *_files(incomplete, ".yaml", ".yml")]


def listed(incomplete: str) -> list[str]:
    """Offer what ``fedrobust list`` takes first: kinds, and the names of components."""
    known = listing()
    names = [member["name"] for members in known.values() for member in members]
    return one_of(*dict.fromkeys([*known, "experiment", *names]))(incomplete)


def of_kind(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer what ``fedrobust list KIND`` takes next."""
    kind = str(ctx.params.get("kind") or "")
    kind = kind if kind in listing() else kind.removesuffix("s")
    if kind == "experiment":
        return one_of(*experiments())(incomplete)
    return one_of(*_names(kind))(incomplete)


def reproduction(incomplete: str) -> list[str]:
    """Offer the published tables and figures that can be reproduced."""
    return one_of(*reproductions())(incomplete)


def model(incomplete: str) -> list[str]:
    """Offer what can be audited: folders and files of weights."""
    return _files(incomplete, ".safetensors")


def setting(incomplete: str) -> list[str]:
    """Offer ``key=value`` for the keys of a config that take a name or one of a few words."""
    known = {key: _names(kind) for key, kind in _KINDS.items()} | _CHOICES
    return one_of(*(f"{key}={value}" for key, values in known.items() for value in values))(
        incomplete
    )


def _names(kind: str) -> list[str]:
    return [member["name"] for member in listing().get(kind, [])]


def _files(incomplete: str, *endings: str) -> list[str]:
    """Return the folders and the files with these endings whose paths begin so."""
    folder, _, name = incomplete.rpartition("/")
    where = Path(f"{folder}/" if incomplete.startswith("/") or folder else ".")
    try:
        there = sorted(path for path in where.iterdir() if path.name.startswith(name))
    except OSError:
        return []  # a folder that is not there, or not ours to read, offers nothing
    before = incomplete[: len(incomplete) - len(name)]
    found = []
    for path in there:
        if path.name.startswith(".") and not name:
            continue
        if path.is_dir():
            found.append(f"{before}{path.name}/")
        elif path.suffix in endings:
            found.append(f"{before}{path.name}")
    return found
