"""From one config with a ``grid:`` to the experiments that it means."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

from fedrobust.component import from_config, to_config
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment, completed, override, put, read_yaml

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep. ``labels`` is its place on every axis, ``name`` their sum."""

    name: str
    labels: dict[str, str]
    config: dict[str, Any]
    experiment: Experiment


@dataclass(frozen=True)
class Sweep:
    """A name, the axes with their labels in order, and the cells.

    ``content`` is the whole config as a text, the same for the same config. ``reference`` is the
    attack with which the report compares the others.
    """

    name: str
    axes: dict[str, tuple[str, ...]]
    cells: tuple[Cell, ...]
    content: str
    reference: str | None = None


Choice = tuple[str, dict[str, Any]]
"""A label, and the dotted keys that it sets."""


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a YAML file: an experiment with a ``grid:``, or a list of grids.

    A grid maps axes to choices. ``seed: [0, 1, 2]`` sets a dotted key to each of the values;
    ``rule: {none: {aggregator: {name: mean}}, ...}`` gives each choice a label and the dotted keys
    that it sets. The cells are all combinations; of a list of grids, those of each. ``reference:``
    beside it may name a label of the axis ``attack``. ``overrides`` change the config beneath.

    Raises: ``ConfigError`` for a grid that is none, and for every cell that could not be run.
    """
    path = Path(path)
    content = read_yaml(path)
    if not isinstance(content, dict) or "grid" not in content:
        raise ConfigError(
            f"{path}: a sweep is an experiment's config with a grid: key, such as "
            "grid: {seed: [0, 1, 2]}; fedrobust run plays a single experiment"
        )
    base = {key: value for key, value in content.items() if key != "grid"}
    for text in overrides:
        override(base, text)
    reference = base.pop("reference", None)
    if not isinstance(base.get("name"), str):
        raise ConfigError(f"{path}: name: is required, and must be a text")
    grids = content["grid"] if isinstance(content["grid"], list) else [content["grid"]]
    cells: dict[str, Cell] = {}
    axes: dict[str, tuple[str, ...]] = {}
    problems = []
    for grid in grids:
        choices = _axes(path, grid)
        for axis, options in choices.items():
            labels = axes.get(axis, ()) + tuple(label for label, _ in options)
            axes[axis] = tuple(dict.fromkeys(labels))
        for place, config in _combinations(base, choices):
            name = "-".join(place.values())
            if name in cells:
                raise ConfigError(f"{path}: two cells are called {name}: give them other labels")
            config["name"] = f"{base['name']}-{name}"
            try:
                cells[name] = Cell(name, place, config, from_config(Experiment, config))
            except ConfigError as error:
                problems.append(f"cell {name}: " + str(error).replace("\n", "\n  "))
    if problems:
        shown = "\n".join(dict.fromkeys(problems[:10]))
        more = f"\nand {len(problems) - 10} cells more" if len(problems) > 10 else ""
        raise ConfigError(f"{path}:\n{shown}{more}")
    parts = {"base": base, "grid": grids}
    if reference is not None:
        parts["reference"] = reference = _attack(path, str(reference), axes)
    whole = json.dumps(parts, sort_keys=True, default=str)
    return Sweep(base["name"], axes, tuple(cells.values()), whole, reference)


def _attack(path: Path, label: str, axes: Mapping[str, Sequence[str]]) -> str:
    """``label`` itself. Raises: ``ConfigError`` where no choice of the axis attack is called so."""
    if label not in axes.get("attack", ()):
        there = ", ".join(axes.get("attack", ())) or "this grid has none"
        raise ConfigError(f"{path}: reference: {label} is no choice of the axis attack ({there})")
    return label


def _axes(path: Path, grid: object) -> dict[str, list[Choice]]:
    if not isinstance(grid, Mapping) or not grid:
        raise ConfigError(f"{path}: grid must map axes to choices, such as {{seed: [0, 1, 2]}}")
    axes = {str(axis): _choices(f"{path}: grid.{axis}", str(axis), v) for axis, v in grid.items()}
    keys = {axis: {key for _, sets in choices for key in sets} for axis, choices in axes.items()}
    for one, other in permutations(axes, 2):
        for a, b in product(keys[one], keys[other]):
            if a == b or b.startswith(f"{a}."):
                raise ConfigError(
                    f"{path}: grid.{one} and grid.{other} both set {b}: one would undo the other; "
                    "put what belongs together on one axis"
                )
    return axes


def _choices(where: str, axis: str, value: object) -> list[Choice]:
    if isinstance(value, Mapping):
        made: list[Choice] = []
        for label, keys in value.items():
            if not isinstance(keys, Mapping):
                raise ConfigError(f"{where}.{label}: must map dotted keys to values; got {keys!r}")
            made.append((str(label), {str(k): v for k, v in keys.items()}))
    elif isinstance(value, list):
        made = [(_label(item), {axis: item}) for item in value]
    else:
        raise ConfigError(f"{where}: must be a list of values, or a mapping of labels to keys")
    if not made:
        raise ConfigError(f"{where}: has no choices")
    labels = [label for label, _ in made]
    for label in labels:
        if labels.count(label) > 1 or not _LABEL.fullmatch(label):
            raise ConfigError(
                f"{where}: {label!r} cannot name a choice (letters, digits, . _ -; once each): "
                "write the axis as a mapping of labels to keys"
            )
    return made


def _label(item: object) -> str:
    if isinstance(item, Mapping) and "name" in item:
        rest = [str(value) for key, value in item.items() if key != "name"]
        return "-".join([str(item["name"]), *rest])
    return str(item)


def _combinations(
    base: dict[str, Any], axes: dict[str, list[Choice]]
) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    for chosen in product(*axes.values()):
        config = deepcopy(base)
        for _, keys in chosen:
            for key, value in keys.items():
                put(config, key, deepcopy(value))
        yield {axis: label for axis, (label, _) in zip(axes, chosen, strict=True)}, config


def same(cell: Cell, stored: Mapping[str, Any]) -> bool:
    """Whether ``stored``, the config of a run, is this cell's, whatever its execution plan."""
    asked = to_config(cell.experiment)
    return {k: v for k, v in completed(stored).items() if k != "execution"} == {
        k: v for k, v in asked.items() if k != "execution"
    }
