"""Expand one config with a ``grid:`` into its experiments."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedrobust.config.component import from_config, to_config
from fedrobust.config.docstring import example
from fedrobust.config.overrides import Setting, apply, named_alone, override
from fedrobust.config.shelf import found
from fedrobust.config.text import listed, quoted, shortened
from fedrobust.errors import ConfigError, OverrideWarning
from fedrobust.experiment import Experiment, Name, read_yaml
from fedrobust.runs.grid_axes import Choice, at, axes_of, require_kept

_CELLS = 10_000
"""The largest number of cells in a sweep. All cells are checked before the first is played."""
_NAMED = 3
"""So many cells are named for one problem."""


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep. ``labels`` has its label on every axis; ``name`` joins them."""

    name: str
    labels: dict[str, str]
    config: dict[str, Any]
    experiment: Experiment


@dataclass(frozen=True)
class Sweep:
    """A sweep: its name, the axes with their labels in order, and the cells.

    ``content`` is the whole config as a text, and equal configs give equal texts. ``reference`` is
    the attack that the report compares the other attacks with.
    """

    name: str
    axes: dict[str, tuple[str, ...]]
    cells: tuple[Cell, ...]
    content: str
    reference: str | None = None


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> Sweep:
    """Read the sweep of a YAML file: an experiment with a ``grid:``, or with a list of grids.

    ``path`` may also name a sweep that comes with fedrobust, such as "drfl/ring".
    A grid maps axes to choices. ``seed: [0, 1, 2]`` sets a dotted key to each of the values;
    ``rule: {none: {aggregator: {name: mean}}, ...}`` gives each choice a label and the dotted keys
    that it sets. The cells are all combinations of choices; a list of grids has the combinations of
    each grid. The key ``reference:`` may name a label of the axis ``attack``. ``overrides`` change
    the experiment that the grid is applied to; one that the grid undoes in every cell is refused. A
    choice that gives a component another name drops the keys that the new component does not have,
    with an ``OverrideWarning``; see :func:`fedrobust.config.overrides.apply`.

    Raises: ``ConfigError`` for an invalid grid, and for every cell that could not be run.
    """
    path = found(Path(path))
    content = read_yaml(path)
    if not isinstance(content, dict) or "grid" not in content:
        raise ConfigError(
            f"{path}: a sweep is an experiment's config with a grid: key, such as "
            "grid: {seed: [0, 1, 2]}; fedrobust run plays a single experiment"
        )
    base = {key: value for key, value in content.items() if key != "grid"}
    said = override(Experiment, base, overrides)
    reference = base.pop("reference", None)
    _require_name(path, base.get("name"))
    grids = content["grid"] if isinstance(content["grid"], list) else [content["grid"]]
    if not grids:
        raise ConfigError(f"{path}: grid is an empty list: give it axes, such as {{seed: [0, 1]}}")
    each = [axes_of(path, grid) for grid in grids]
    require_kept(path, each, said)
    _refuse_too_many(path, each)
    cells, axes = _cells(path, base, each, said), _joined(each)
    parts = {"base": base, "grid": _texts(grids)}
    if reference is not None:
        parts["reference"] = reference = _attack(path, str(reference), axes)
    whole = json.dumps(parts, sort_keys=True, default=str)
    return Sweep(base["name"], axes, cells, whole, reference)


def _require_name(path: Path, name: object) -> None:
    """Refuse a name that cannot be a folder's. Raises: ``ConfigError``."""
    if not isinstance(name, str):
        raise ConfigError(f"{path}: name: is required, and must be a text")
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise ConfigError(
            f"{path}: name: {quoted(name)} cannot name a folder: write letters, digits and "
            ". _ -, a letter or digit first, at most 200"
        ) from error


def _joined(grids: Sequence[Mapping[str, Sequence[Choice]]]) -> dict[str, tuple[str, ...]]:
    """The axes of all grids, each with its labels in order."""
    axes: dict[str, tuple[str, ...]] = {}
    for choices in grids:
        for axis, options in choices.items():
            labels = axes.get(axis, ()) + tuple(label for label, _ in options)
            axes[axis] = tuple(dict.fromkeys(labels))
    return axes


def _cells(
    path: Path,
    base: dict[str, Any],
    grids: Sequence[dict[str, list[Choice]]],
    said: Sequence[Setting],
) -> tuple[Cell, ...]:
    """The cells of all grids, every one checked.

    Raises: ``ConfigError`` for two cells of one name, and for all cells that could not be run.
    """
    cells: dict[str, Cell] = {}
    twins = dict[str, str]()
    problems, dropped = dict[str, list[str]](), dict[str, None]()
    cures = dict[tuple[str, str, str], tuple[bool, str]]()
    count = 0
    for choices in grids:
        for place, config, gone in _combinations(base, choices, said):
            count += 1
            dropped |= dict.fromkeys(gone)
            name = "-".join(place.values())
            if name in cells:
                raise ConfigError(
                    f"{path}: two cells are called {shortened(name)}: give them other labels"
                )
            config["name"] = f"{base['name']}-{name}"
            try:
                cells[name] = Cell(name, place, config, from_config(Experiment, config))
            except ConfigError as error:
                for problem in str(error).split("\n"):
                    problems.setdefault(problem, []).append(name)
                for choice, cure in _in_full(choices, place, config):
                    cures[choice] = max(cures.get(choice, cure), cure, key=lambda each: each[0])
            else:
                _require_new(path, cells[name], twins)
    if problems:
        told = (f"{_where(names, count)}: {problem}" for problem, names in problems.items())
        written = dict.fromkeys(line for _, line in cures.values())
        raise ConfigError("\n".join([f"{path}:", listed(told, "problems"), *written]))
    if dropped:
        warnings.warn(listed(dropped, "names"), OverrideWarning, stacklevel=3)
    return tuple(cells.values())


def _where(names: Sequence[str], count: int) -> str:
    """Return in words which of the ``count`` cells have a problem."""
    if len(names) == count > 1:
        return "every cell"
    shown = ", ".join(shortened(name) for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"cell{'s' * (len(names) > 1)} {shown}{more}"


def _require_new(path: Path, cell: Cell, twins: dict[str, str]) -> None:
    """Refuse a cell that is another one of its place, in all but name. Raises: ``ConfigError``."""
    there = {axis: label for axis, label in cell.labels.items() if axis != "seed"}
    config = to_config(cell.experiment) | {"name": ""}
    key = json.dumps([there, config], sort_keys=True, default=str)
    if (twin := twins.setdefault(key, cell.name)) != cell.name:
        raise ConfigError(
            f"{path}: the cells {shortened(twin)} and {shortened(cell.name)} are the same run: "
            "leave one of them out"
        )


def _in_full(
    axes: Mapping[str, Sequence[Choice]], place: Mapping[str, str], config: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, str, str], tuple[bool, str]]]:
    """Yield how the grid writes each choice that is a component's name and needs more than that.

    It yields the axis, the choice and its key; then whether somebody attacks in this cell, and the
    line. Where nobody attacks, the rule of the example tolerates a fifth of the clients.
    """
    for axis, choices in axes.items():
        for key in dict(choices)[place[axis]]:
            found = named_alone(Experiment, config, key.path)
            if found is None:
                continue
            partition = config.get("partition")
            clients = partition.get("clients") if isinstance(partition, Mapping) else None
            f = config.get("malicious") or (clients // 5 if type(clients) is int else None)
            written = example(found, **({"f": f} if type(f) is int else {}))
            line = f"{place[axis]}: {{{key.key}: {written}}}"
            told = f"write {line} in {at(axis)}, a mapping of labels"
            yield (axis, place[axis], key.key), (bool(config.get("malicious")), told)


def _attack(path: Path, label: str, axes: Mapping[str, Sequence[str]]) -> str:
    """Return ``label`` if the axis attack has it. Raises: ``ConfigError``."""
    if label not in axes.get("attack", ()):
        there = ", ".join(axes.get("attack", ())) or "this grid has none"
        raise ConfigError(
            f"{path}: reference: {shortened(label)} is no choice of the axis attack "
            f"({shortened(there, 300)})"
        )
    return label


def _refuse_too_many(path: Path, grids: Sequence[Mapping[str, Sequence[Choice]]]) -> None:
    count = sum(math.prod(map(len, axes.values())) for axes in grids)
    if count > _CELLS:
        raise ConfigError(
            f"{path}: the grid has {count:,} cells, more than {_CELLS:,}: split it into sweeps"
        )


def _combinations(
    base: dict[str, Any], axes: dict[str, list[Choice]], said: Sequence[Setting]
) -> Iterator[tuple[dict[str, str], dict[str, Any], list[str]]]:
    """Yield the labels of each cell, its config, and messages about keys dropped from ``base``."""
    for chosen in product(*axes.values()):
        config = deepcopy(base)
        settings = [Setting(s.path, deepcopy(s.value)) for _, sets in chosen for s in sets]
        dropped = apply(Experiment, config, settings, said)
        place = {axis: label for axis, (label, _) in zip(axes, chosen, strict=True)}
        yield place, config, dropped


def _texts(node: Any) -> Any:
    """Return ``node`` with texts as keys, since JSON cannot sort numbers among texts."""
    if isinstance(node, Mapping):
        return {str(key): _texts(value) for key, value in node.items()}
    return [_texts(item) for item in node] if isinstance(node, list) else node
