"""Which attack of a sweep does the most harm, and which others do as much: paired by seed."""

import math
from collections.abc import Callable
from statistics import fmean

from scipy.stats import t

from fedrobust.report.sweep import COLUMNS, SEED, Group, SweepCell, SweepRecords

_AXIS = "attack"
LEAST = 3
"""Seeds from which on an interval is given."""

CAPTION = (
    "Of the attacks at the same place on every other axis, the one with the greatest mean error, "
    "and the one with the least mean ρ̂, is the reference; the others show their mean difference "
    "from it over the seeds that both have, with a 95 % t-interval. An interval that holds 0 is "
    "a tie. The reference was chosen by looking, so a narrow lead is worth less than its interval "
    "says."
)

_MEASURES: dict[str, tuple[Callable[[SweepCell], float | None], bool]] = {
    "error": (COLUMNS["error"], True),
    "ρ̂": (COLUMNS["ρ̂"], False),
}


def paired(records: SweepRecords) -> tuple[list[str], list[tuple[Group, list[str]]]]:
    """The heads, and a row for each attacked group that has at least ``LEAST`` seeds."""
    if _AXIS not in records.axes:
        return [], []
    place = records.axes.index(_AXIS)
    panels: dict[tuple[str, ...], list[Group]] = {}
    for group in records.groups:
        if all(cell.attacked for cell in group.cells) and len(group.cells) >= LEAST:
            elsewhere = group.labels[:place] + group.labels[place + 1 :]
            panels.setdefault(elsewhere, []).append(group)
    members = [group for panel in panels.values() if len(panel) > 1 for group in panel]
    texts: dict[tuple[str, ...], list[str]] = {group.labels: [] for group in members}
    heads = []
    for name, (measure, most) in _MEASURES.items():
        if not all(_known(group, measure) for group in members):
            continue
        heads.append(f"{name}, against the {'greatest' if most else 'least'}")
        for panel in panels.values():
            if len(panel) == 1:
                continue
            best = (max if most else min)(panel, key=lambda g: fmean(_values(g, measure).values()))
            for group in panel:
                texts[group.labels].append(
                    "reference" if group is best else _difference(group, best, measure, name)
                )
    return heads, [(group, texts[group.labels]) for group in members]


def _known(group: Group, measure: Callable[[SweepCell], float | None]) -> bool:
    return len(_values(group, measure)) == len(group.cells)


def _values(group: Group, measure: Callable[[SweepCell], float | None]) -> dict[str, float]:
    """The measure of each seed."""
    found = {cell.labels[SEED]: measure(cell) for cell in group.cells}
    return {seed: value for seed, value in found.items() if value is not None}


def _difference(
    group: Group, best: Group, measure: Callable[[SweepCell], float | None], name: str
) -> str:
    mine, theirs = _values(group, measure), _values(best, measure)
    gaps = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    if len(gaps) < LEAST or not all(map(math.isfinite, gaps)):
        return "–"
    middle, half = interval(gaps)
    scale, form = (100, ".1f") if name == "error" else (1, ".3f")
    low, high = middle - half, middle + half
    text = f"{scale * middle:+{form}} ({scale * low:+{form}} to {scale * high:+{form}})"
    return text + (", a tie" if low <= 0 <= high else "")


def interval(values: list[float]) -> tuple[float, float]:
    """The mean of ``values`` and half the width of its 95 % t-interval."""
    n = len(values)
    mean = sum(values) / n
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    return mean, float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
