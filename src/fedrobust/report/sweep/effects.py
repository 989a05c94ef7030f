"""What each setting of a two-level design changes: main effects, beside what chance would show."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedrobust.report.style import ACCURACY, MUTED, NARROW, PAPER, ROBUST, printable
from fedrobust.report.sweep.columns import COLUMNS
from fedrobust.report.sweep.records import SweepRecords

_SETTINGS, _PLACES = 3, 8
"""The least settings and places for which effects are shown."""
COLOURS = {"accuracy": ACCURACY, "robust accuracy": ROBUST}
_CAPTION = (
    "Mean over half of the places minus the mean over the other half, in points: the last model on "
    "the test split. Bars: Lenth's margin; an effect beyond it is more than the scatter of the "
    "design's own contrasts."
)


_MIXED = (
    " In this design the effect of one setting is mixed with the effects of two others together."
)


@dataclass(frozen=True)
class Effects:
    """The main effect of each setting on one figure, and the margin beyond which it counts."""

    effects: tuple[float, ...]
    margin: float


def effects(levels: NDArray[np.int64], values: Sequence[float]) -> Effects:
    """Return the main effects on ``values`` of settings at ``levels``, with Lenth's margin.

    levels: [places, settings], of -1 and 1, with orthogonal columns. An effect is the mean of the
    values at 1 minus their mean at -1. The margin comes from the main effects and those of two
    settings together (:func:`contrasts_of`), most of which are taken to be nothing but scatter:

    s₀ = 1.5 · median |c|; PSE = 1.5 · median of the |c| < 2.5 s₀; margin = t(0.975; m/3) · PSE,

    for the m contrasts c.

    Reference: Lenth, "Quick and easy analysis of unreplicated factorials", Technometrics 1989.
    """
    from scipy.special import stdtrit

    columns = contrasts_of(levels)
    contrasts = np.array([2 * np.mean(column * np.asarray(values)) for column in columns])
    sizes = np.abs(contrasts)
    first = 1.5 * np.median(sizes)
    scatter = 1.5 * np.median(sizes[sizes < 2.5 * first]) if first > 0 else 0.0
    margin = float(stdtrit(len(contrasts) / 3, 0.975) * scatter)
    return Effects(tuple(map(float, contrasts[: levels.shape[1]])), margin)


def contrasts_of(levels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the columns of the main effects, and of the pairs that are at right angles to all.

    A pair whose column is another's, but for its sign, is the same contrast and counts once. Where
    a pair is a mix of others, as in the designs of Plackett and Burman, only main effects are
    taken.
    """
    columns = [levels[:, i] for i in range(levels.shape[1])]
    mains = len(columns)
    for pair in [a * b for a, b in combinations(columns, 2)]:
        alike = [abs(int(pair @ column)) for column in columns]
        if any(0 < share < len(pair) for share in alike):
            return columns[:mains]
        if not any(alike):
            columns.append(pair)
    return columns


def aliased(levels: NDArray[np.int64]) -> bool:
    """Whether a main effect is mixed with the effect of two settings together."""
    columns = [levels[:, i] for i in range(levels.shape[1])]
    pairs = [a * b for a, b in combinations(columns, 2)]
    return any(pair @ column for pair in pairs for column in columns)


def caption(levels: NDArray[np.int64]) -> str:
    """Return what the figure of a design at ``levels`` shows."""
    return _CAPTION + (_MIXED if aliased(levels) else "")


def design(records: SweepRecords) -> NDArray[np.int64] | None:
    """Return the levels [places, settings] of a two-level design; None where there is none.

    Every setting has two labels, half of the places have each, and no two settings go together.
    """
    labels = [
        list(dict.fromkeys(group.labels[i] for group in records.groups))
        for i in range(len(records.axes))
    ]
    if len(labels) < _SETTINGS or len(records.groups) < _PLACES:
        return None
    if any(len(two) != 2 or "" in two for two in labels):
        return None
    rows = [
        [2 * labels[i].index(g.labels[i]) - 1 for i in range(len(labels))] for g in records.groups
    ]
    levels = np.array(rows)
    balanced = not levels.sum(axis=0).any()
    apart = np.array_equal(levels.T @ levels, len(levels) * np.eye(len(labels), dtype=np.int64))
    return levels if balanced and apart else None


def drawn(records: SweepRecords, width: float) -> Figure:
    """Draw the effect of each setting on accuracy and robust accuracy."""
    levels = design(records)
    assert levels is not None  # the page asks only where there is a design
    names = []
    for i, axis in enumerate(records.axes):
        low, high = (
            next(
                g.labels[i] for g, row in zip(records.groups, levels, strict=True) if row[i] == way
            )
            for way in (-1, 1)
        )
        names.append(printable(f"{axis}: {low} → {high}", 24 if width <= NARROW else 40))
    figure = Figure(figsize=(width, 0.5 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    for shift, (name, colour) in zip((-0.14, 0.14), COLOURS.items(), strict=True):
        found = [group.spread(COLUMNS[name]) for group in records.groups]
        seen = effects(levels, [100 * spread.middle for spread in found if spread is not None])
        at = np.arange(len(names)) + shift
        axes.barh(at, 2 * seen.margin, left=-seen.margin, height=0.2, color=colour, alpha=0.15)
        axes.plot(seen.effects, at, "o", color=colour, mec=PAPER, ms=7.5, label=name)
    axes.axvline(0, color=MUTED, lw=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("points")
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x")
    axes.legend(frameon=False, loc="best")
    return figure
