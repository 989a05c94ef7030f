"""Figures of a sweep: the error and the loss of its models under shift."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from fedrobust.report.style import INK, MUTED, PAPER, RULE, percent_axis, printable
from fedrobust.report.sweep.figures import (
    curve_name,
    ends,
    grid,
    in_grey,
    legend,
    panels,
    plain_inside,
    shown,
    styles,
)
from fedrobust.report.sweep.records import Group, SweepCell, SweepRecords

_TIMES = {"error": 2.5, "loss": 10.0}
"""A curve beyond so many times the usual value would flatten the others."""
_HUGE = 1e300
"""The loss by which a model that has blown up is ranked."""


def shift(
    records: SweepRecords, method: str, what: str, width: float, certificate: bool = False
) -> Figure:
    """Draw ``what`` (error or loss) of the last model against the level ρ of shift.

    A curve that would flatten all others is named, with its range, and not drawn.
    """
    groups = panels(records)
    figure, axes = grid(groups, width, 2.9)
    drawn = styles(records)
    named = ends(records, lambda cell: min(_curve(cell, method, what)[-1], _HUGE))
    top = _ceiling(records, method, what)
    for panel, (title, members) in zip(axes, groups.items(), strict=True):
        panel.set_title(printable(title, 30))
        above, grey = [], list[tuple[Sequence[float], Sequence[float]]]()
        for group in members:
            style = drawn[curve_name(group)]
            reached = np.array([_curve(cell, method, "reached") for cell in group.cells])
            rows = np.array([_curve(cell, method, what) for cell in group.cells])
            levels = np.median(reached, axis=0)
            # The loss of a model that has blown up is infinite, which ends the curve.
            middle, low, high = np.median(rows, axis=0), rows.min(axis=0), rows.max(axis=0)
            if middle.max() > top:
                above.append(f"{printable(curve_name(group), 40)} ({_range(middle, what)})")
                continue
            if curve_name(group) not in named:
                grey.append((levels.tolist(), _drawn(middle).tolist()))
                continue
            panel.plot(levels, _drawn(middle), **style.drawn, ms=4)
            if len(rows) > 1:
                panel.fill_between(
                    levels, _drawn(low), _drawn(np.minimum(high, top)), color=style.colour,
                    alpha=0.15, lw=0,
                )  # fmt: skip
            if certificate and (bound := _bound(group)) is not None:
                gamma, surrogate = bound
                line = gamma * np.array(levels) + surrogate
                panel.plot(levels, line, color=style.colour, ls=(0, (2, 2)), lw=1)
            if not any(cell.attacked for cell in group.cells):
                _mark(panel, group, what)
        in_grey(panel, grey)
        if above:
            _name_above(panel, above)
        if panel.xaxis.get_tick_params()["labelbottom"]:
            panel.set_xlabel("shift ρ (mean squared distance)")
    if what == "error":
        _share_axis(axes)
    else:
        _loss_axis(axes)
    axes[0].set_ylabel("misclassified" if what == "error" else "mean loss")
    plain_inside(axes)
    legend(figure, shown(drawn, named), width)
    return figure


def _name_above(panel: Axes, above: list[str]) -> None:
    """Name the curves of a panel that are off its scale, one a line."""
    panel.annotate(
        "off the scale:\n" + "\n".join(above), (0.98, 0.97), xycoords="axes fraction", ha="right",
        va="top", color=INK, fontsize=7.5, zorder=5,
        bbox={"boxstyle": "round,pad=0.3", "fc": PAPER, "ec": RULE, "alpha": 0.9},
    )  # fmt: skip


def _range(values: NDArray[Any], what: str) -> str:
    """Return from where to where a curve goes, in words."""
    low, high = float(values.min()), float(values.max())
    if math.isinf(low):
        return "infinite"
    scale, unit, form = (100, " %", ".0f") if what == "error" else (1, "", ".2g")
    first, last = (f"{scale * value:{form}}".replace("inf", "∞") for value in (low, high))
    return f"{first}{'' if first == last else f' to {last}'}{unit}"


def _share_axis(axes: Sequence[Axes]) -> None:
    """Make the vertical axis of shares end at the tenth above all that is drawn."""
    curves = [line for panel in axes for line in panel.lines if _is_curve(line)]
    drawn = [float(np.nanmax(np.asarray(line.get_ydata(), dtype=float))) for line in curves]
    for panel in axes:
        percent_axis(panel, max(drawn, default=1.0))


def _is_curve(line: Line2D) -> bool:
    return line.get_marker() not in ("None", "", None)


def _loss_axis(axes: Sequence[Axes]) -> None:
    """Make the vertical axis of losses logarithmic, with plain numbers."""
    axes[0].set_yscale("log")
    low, high = axes[0].get_ylim()
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 100 else (1, 2, 5)))
    for panel in axes:
        panel.tick_params(which="minor", left=False)
    axes[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[0].yaxis.set_minor_formatter(NullFormatter())


def _ceiling(records: SweepRecords, method: str, what: str) -> float:
    """Return the value above which a curve would flatten the others.

    It is a multiple of the largest value without an attack, or, where every cell is attacked, of
    the median of all curves' largest values.
    """
    peaks = {
        group.labels: max(np.median([_curve(c, method, what) for c in group.cells], axis=0))
        for group in records.groups
    }
    calm = [peaks[g.labels] for g in records.groups if not any(c.attacked for c in g.cells)]
    usual = max(calm) if calm else sorted(peaks.values())[(len(peaks) - 1) // 2]
    return math.inf if usual == 0 else float(_TIMES[what] * usual)


def _curve(cell: SweepCell, method: str, what: str) -> list[float]:
    """Return a figure at every level, in order; infinity where it is not finite."""
    found = [(s["rho"], s[what]) for s in cell.final["shift"] if s["method"] == method]
    return [math.inf if value is None else value for _, value in sorted(found, key=lambda f: f[0])]


def _drawn(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isfinite(values), values, np.nan)


def _bound(group: Group) -> tuple[float, float] | None:
    """Return γ and φ + gap of the group's certificates, as medians over the seeds."""

    def intercept(cell: SweepCell) -> float | None:
        surrogate = cell.wasserstein.get("surrogate")
        return None if surrogate is None else surrogate + (cell.wasserstein["gap"] or 0.0)

    start = group.spread(intercept)
    gamma = group.spread(lambda cell: cell.wasserstein.get("gamma"))
    return None if start is None or gamma is None else (gamma.middle, start.middle)


def _mark(panel: Axes, group: Group, what: str) -> None:
    """Mark ρ̂ of the unattacked model, and the error of always giving the commoner answer."""
    rho = group.spread(lambda cell: cell.wasserstein.get("rho"))
    if rho is not None:
        panel.axvline(rho.middle, color=MUTED, lw=1, ls=(0, (4, 2)))
        panel.annotate(
            "ρ̂ unattacked",
            (rho.middle, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -9),
            textcoords="offset points",
            color=MUTED,
            fontsize=7.5,
        )
    classes = group.cells[0].wasserstein.get("by_class")
    if what == "error" and classes and len(classes) == 2:
        sizes = [c["examples"] for c in classes.values()]
        panel.axhline(min(sizes) / sum(sizes), color=MUTED, lw=1, ls=(0, (1, 2)))
