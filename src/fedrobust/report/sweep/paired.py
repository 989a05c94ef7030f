"""Compare the harm of a sweep's attacks in pairs of cells with the same seed."""

import math
from collections.abc import Callable
from statistics import fmean

from fedrobust.evaluation.intervals import of_mean
from fedrobust.report.sweep.columns import COLUMNS
from fedrobust.report.sweep.records import SEED, Group, SweepCell, SweepRecords

_AXIS = "attack"
LEAST = 3
"""The smallest number of seeds for which an interval is given."""

_CALM = "error, against no attack"
_CAPTION = (
    "Mean differences over the seeds that both have, with a 95 % t-interval. An interval that "
    "contains 0 is a tie. {first}The {others} columns compare the "
    "attacks at the same place on every other axis. Their reference is, of the attacks with the "
    "most seeds there, the one with the greatest mean error, or with the least mean ρ̂. It was "
    "chosen after seeing the results, so "
    "a narrow lead is worth less than its interval says."
)

_MEASURES: dict[str, tuple[Callable[[SweepCell], float | None], bool]] = {
    "error": (COLUMNS["error"], True),
    "ρ̂": (COLUMNS["ρ̂"], False),
}


def caption(heads: list[str]) -> str:
    """Return what a table with these heads shows."""
    calm = _CALM in heads
    first = "The first column compares with no attack. " if calm else ""
    return _CAPTION.format(first=first, others="next" if calm else "last")


Place = tuple[str, ...]
Panels = dict[Place, list[Group]]


def paired(records: SweepRecords) -> tuple[list[str], list[tuple[Group, list[str]]]]:
    """Return the heads, and a row for each attacked group that has at least ``LEAST`` seeds."""
    if _AXIS not in records.axes:
        return [], []
    axis, (panels, calm) = records.axes.index(_AXIS), _panels(records)
    members = [group for panel in panels.values() for group in panel]
    columns: dict[str, list[str]] = {}
    if any(place in calm for place in panels):
        columns[_CALM] = [
            difference(group, calm[place], "error") if place in calm else "–"
            for place, panel in panels.items()
            for group in panel
        ]
    for name, (measure, most) in _MEASURES.items():
        several = any(len(panel) > 1 for panel in panels.values())
        if several and all(_known(group, measure) for group in members):
            head = f"{name}, against the {'greatest' if most else 'least'}"
            columns[head] = [text for panel in panels.values() for text in _ranked(panel, name)]
    if any(group.labels[axis] == records.reference for group in members):
        chosen = [_labelled(panel, axis, records.reference) for panel in panels.values()]
        for name, (measure, _) in _MEASURES.items():
            if all(_known(group, measure) for group in members):
                columns[f"{name}, against {records.reference}"] = [
                    text
                    for panel, group in zip(panels.values(), chosen, strict=True)
                    for text in _against(panel, group, name)
                ]
    rows = [list(texts) for texts in zip(*columns.values(), strict=True)]
    return list(columns), list(zip(members, rows, strict=False))


def _panels(records: SweepRecords) -> tuple[Panels, dict[Place, Group]]:
    """Return the attacked groups of each place on the other axes, and the unattacked groups."""
    axis, panels, calm = records.axes.index(_AXIS), Panels(), dict[Place, Group]()
    for group in records.groups:
        place = group.labels[:axis] + group.labels[axis + 1 :]
        if len(group.cells) < LEAST:
            continue
        if all(cell.attacked for cell in group.cells):
            panels.setdefault(place, []).append(group)
        elif not any(cell.attacked for cell in group.cells):
            calm[place] = group
    told = {place: panel for place, panel in panels.items() if len(panel) > 1 or place in calm}
    return told, calm


def _ranked(panel: list[Group], name: str) -> list[str]:
    """Return the difference of each group from the group with the most harm by ``name``."""
    if len(panel) == 1:
        return ["–"]
    measure, most = _MEASURES[name]
    # A mean over fewer seeds is one of other cells: it may be lower although the attack is not.
    whole = max(len(group.cells) for group in panel)
    full = [group for group in panel if len(group.cells) == whole]
    best = (max if most else min)(full, key=lambda g: fmean(_values(g, measure).values()))
    return _against(panel, best, name)


def _labelled(panel: list[Group], axis: int, label: str | None) -> Group | None:
    """Return the group of a panel that has this label, if any."""
    return next((group for group in panel if group.labels[axis] == label), None)


def _against(panel: list[Group], best: Group | None, name: str) -> list[str]:
    """Return the difference of each group of a panel from ``best``."""
    if best is None:
        return ["–"] * len(panel)
    return ["reference" if group is best else difference(group, best, name) for group in panel]


def _known(group: Group, measure: Callable[[SweepCell], float | None]) -> bool:
    return len(_values(group, measure)) == len(group.cells)


def _values(group: Group, measure: Callable[[SweepCell], float | None]) -> dict[str, float]:
    """Return the measure of each seed."""
    seeds = [cell.labels.get(SEED, str(cell.config["seed"])) for cell in group.cells]
    found = dict(zip(seeds, map(measure, group.cells), strict=True))
    return {seed: value for seed, value in found.items() if value is not None}


def difference(group: Group, best: Group, name: str) -> str:
    """Return how much greater the measure ``name`` of ``group`` is: "error" in points, or "ρ̂".

    It is the mean over the seeds that both have, with its 95 % t-interval.
    """
    measure, _ = _MEASURES[name]
    mine, theirs = _values(group, measure), _values(best, measure)
    gaps = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    if len(gaps) < LEAST or not all(map(math.isfinite, gaps)):
        return "–"
    middle, half = of_mean(gaps)
    scale, form = (100, ".1f") if name == "error" else (1, ".3f")
    low, high = middle - half, middle + half
    text = f"{scale * middle:+{form}} ({scale * low:+{form}} to {scale * high:+{form}})"
    fewer = f" over {len(gaps)} seeds" if len(gaps) < len(mine) else ""
    return text + fewer + (", a tie" if low <= 0 <= high else "")
