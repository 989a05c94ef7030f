"""What all cells of a sweep have in common, and what its labels stand for."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedrobust.report import wording
from fedrobust.report.sweep.records import SEED, SweepRecords

_NOTHING = object()
_OWN = ("name", "seed")
"""The keys of a config that name a cell; the seeds are an axis of their own."""


def setup(records: SweepRecords) -> list[tuple[str, str]]:
    """Return the settings that all cells have in common, in words."""
    same = _common([cell.config for cell in records.cells])
    return [(key, wording.component(value)) for key, value in same.items()]


def varied(records: SweepRecords) -> list[tuple[str, str]]:
    """Return each axis of the sweep with its labels."""
    axes = [*records.axes, *([SEED] if len(records.labels(SEED)) > 1 else [])]
    return [(axis, ", ".join(label or "–" for label in records.labels(axis))) for axis in axes]


def meanings(records: SweepRecords) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what each label of each axis stands for: the settings that it brings.

    These are the settings that all cells with this label have in common, and not all cells.
    """
    same = _common([cell.config for cell in records.cells])
    found = []
    for axis in records.axes:
        rows = []
        for label in records.labels(axis):
            configs = [c.config for c in records.cells if c.labels.get(axis, "") == label]
            if configs and label and (text := _brought(_common(configs), same)):
                rows.append((label, text))
        if rows:
            found.append((axis, rows))
    return found


def _brought(mine: Mapping[str, Any], same: Mapping[str, Any]) -> str:
    told = [
        f"{key.replace('_', ' ')}: {wording.component(value)}"
        for key, value in mine.items()
        if key not in same or same[key] != value
    ]
    return "; ".join(told)


def _common(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the part of the configs that is equal in all of them, without what names a cell."""
    found = _shared([{k: v for k, v in c.items() if k not in _OWN} for c in configs])
    return found if isinstance(found, dict) else {}


def _shared(nodes: Sequence[Any]) -> Any:
    first = nodes[0]
    if all(node is first or node == first for node in nodes):
        return dict(first) if isinstance(first, Mapping) else first
    if not all(isinstance(node, Mapping) for node in nodes):
        return _NOTHING
    if len({str(node.get("name")) for node in nodes}) > 1:
        return _NOTHING  # two components of different names have nothing in common
    keys = [key for key in first if all(key in node for node in nodes)]
    found = {key: _shared([node[key] for node in nodes]) for key in keys}
    return {key: value for key, value in found.items() if value is not _NOTHING} or _NOTHING
