"""The axes of a grid: what each choice sets, and what an override can still change."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path

from fedrobust.config.explain import shown
from fedrobust.config.overrides import Setting, dotted
from fedrobust.config.text import quoted, shortened
from fedrobust.errors import ConfigError, OverrideWarning

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Choice = tuple[str, tuple[Setting, ...]]
"""A label, and the keys that it sets."""


def axes_of(path: Path, grid: object) -> dict[str, list[Choice]]:
    """Return the choices of each axis of a grid. Raises: ``ConfigError``."""
    if not isinstance(grid, Mapping) or not grid:
        raise ConfigError(f"{path}: grid must map axes to choices, such as {{seed: [0, 1, 2]}}")
    axes = {
        str(axis): _choices(f"{path}: {at(str(axis))}", str(axis), value)
        for axis, value in grid.items()
    }
    keys = {axis: {s.path for _, sets in choices for s in sets} for axis, choices in axes.items()}
    for one, other in permutations(axes, 2):
        for key in keys[other]:
            if any(key[:end] in keys[one] for end in range(1, len(key) + 1)):
                raise ConfigError(
                    f"{path}: {at(one)} and {at(other)} both set "
                    f"{shortened(shown(key))}: one would undo the other; put what belongs "
                    "together on one axis"
                )
    return axes


def at(axis: str) -> str:
    """Return the place of an axis in the config."""
    return shown(["grid", *axis.split(".")])


def _choices(where: str, axis: str, value: object) -> list[Choice]:
    made: list[Choice] = []
    if isinstance(value, Mapping):
        for label, keys in value.items():
            there = f"{where}.{shown([label])}"
            if not isinstance(keys, Mapping):
                raise ConfigError(f"{there}: must map dotted keys to values; got {quoted(keys)}")
            made.append((str(label), tuple(_set(there, str(k), v) for k, v in keys.items())))
    elif isinstance(value, list):
        made += [(_label(item), (_set(where, axis, item),)) for item in value]
    else:
        raise ConfigError(f"{where}: must be a list of values, or a mapping of labels to keys")
    if not made:
        raise ConfigError(f"{where}: has no choices")
    count = Counter(label for label, _ in made)
    for label in count:
        if count[label] > 1 or not _LABEL.fullmatch(label):
            raise ConfigError(
                f"{where}: {quoted(label)} cannot name a choice (letters, digits, . _ -; once "
                "each): write the axis as a mapping of labels to keys"
            )
    return made


def _set(where: str, key: str, value: object) -> Setting:
    try:
        return Setting(dotted(key), value)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _label(item: object) -> str:
    if isinstance(item, Mapping) and "name" in item:
        rest = [str(value) for key, value in item.items() if key != "name"]
        return "-".join([str(item["name"]), *rest])
    return str(item)


def require_kept(
    path: Path, grids: Sequence[Mapping[str, Sequence[Choice]]], said: Sequence[Setting]
) -> None:
    """Refuse an override that the grid undoes in every cell. Raises: ``ConfigError``.

    Warns: ``OverrideWarning`` where it undoes an override in some of the cells.
    """
    for setting in said:
        for leaf in _leaves(setting.path, setting.value):
            undone = [
                (axis, [any(leaf[: len(s.path)] == s.path for s in sets) for _, sets in options])
                for choices in grids
                for axis, options in choices.items()
            ]
            where = [axis for axis, each in undone if any(each)]
            if not where:
                continue
            key = shortened(shown(leaf))
            if sum(all(each) for _, each in undone) == len(grids):
                raise ConfigError(
                    f"-s {key}: {at(where[0])} sets it in every cell, and would undo this; change "
                    f"the grid in a copy of {path}"
                )
            warnings.warn(
                f"-s {key}: {at(where[0])} sets it in some of the cells, which do not change",
                OverrideWarning,
                stacklevel=4,
            )


def _leaves(path: tuple[str, ...], value: object) -> Iterator[tuple[str, ...]]:
    """Yield the dotted keys that an override sets: of a mapping, those within it."""
    if not isinstance(value, Mapping) or not value:
        yield path
        return
    for key, item in value.items():
        yield from _leaves((*path, str(key)), item)
