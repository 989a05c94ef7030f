"""Figures of a sweep: the error and the loss of its models under shift."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from fedrobust.report.style import INK, MUTED, percent_axis, printable
from fedrobust.report.sweep.figures import curve_name, grid, legend, panels, styles
from fedrobust.report.sweep.records import Group, SweepCell, SweepRecords


def shift(
    records: SweepRecords, method: str, what: str, width: float, certificate: bool = False
) -> Figure:
    """Draw ``what`` (error or loss) of the last model against the level ρ of shift."""
    groups = panels(records)
    figure, axes = grid(groups, width, 2.9)
    drawn = styles(records)
    top = _ceiling(records, method) if what != "error" else math.inf
    for panel, (title, members) in zip(axes, groups.items(), strict=True):
        panel.set_title(printable(title, 40))
        above = []
        for group in members:
            colour, marker, _ = drawn[curve_name(group)]
            reached = np.array([_curve(cell, method, "reached") for cell in group.cells])
            rows = np.array([_curve(cell, method, what) for cell in group.cells])
            levels = np.median(reached, axis=0)
            # The loss of a model that has blown up is infinite, which ends the curve.
            middle, low, high = np.median(rows, axis=0), rows.min(axis=0), rows.max(axis=0)
            if middle.min() > top:
                above.append(curve_name(group))
                continue
            panel.plot(levels, _drawn(middle), color=colour, marker=marker, ms=4)
            if len(rows) > 1:
                panel.fill_between(
                    levels, _drawn(low), _drawn(high), color=colour, alpha=0.15, lw=0
                )
            if certificate and (bound := _bound(group)) is not None:
                gamma, surrogate = bound
                line = gamma * np.array(levels) + surrogate
                panel.plot(levels, line, color=colour, ls=(0, (2, 2)), lw=1)
            if not any(cell.attacked for cell in group.cells):
                _mark(panel, group, what)
        if above:
            text = f"off the scale: {', '.join(printable(name, 60) for name in above)}"
            panel.annotate(
                text, (0.98, 0.04), xycoords="axes fraction", ha="right", color=INK, fontsize=8
            )
        panel.set_xlabel("shift ρ (mean squared distance)")
        if what == "error":
            percent_axis(panel)
    if what != "error":
        axes[0].set_yscale("log")
        low, high = axes[0].get_ylim()
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 100 else (1, 2, 5)))
        for panel in axes:
            panel.tick_params(which="minor", left=False)
        axes[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes[0].yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("misclassified" if what == "error" else "mean loss")
    legend(figure, drawn, width)
    return figure


def _ceiling(records: SweepRecords, method: str) -> float:
    """Return the loss above which a model has blown up: 100 times the largest unattacked loss."""
    calm = [cell for group in records.groups for cell in group.cells if not cell.attacked]
    values = [value for cell in calm for value in _curve(cell, method, "loss")]
    return 100 * max(values, default=math.inf)


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
