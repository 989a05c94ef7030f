"""The figures of a sweep over rounds and places, and functions that all its figures share."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedrobust.report.style import MARKERS, NARROW, SERIES, percent_axis, printable, rounds_axis
from fedrobust.report.sweep.records import Group, SweepRecords

_LEGEND_ROWS, _LEGEND_ROW = 3, 0.2
"""The number of legend rows that fit into a figure, and the height of a further row in inches."""


def panels(records: SweepRecords) -> dict[str, list[Group]]:
    """Return the groups of each panel. There is one panel for each choice on the first axis."""
    found: dict[str, list[Group]] = {}
    for group in records.groups:
        found.setdefault(group.labels[0] if group.labels else "", []).append(group)
    return found


def curve_name(group: Group) -> str:
    """Return the name of a group within its panel: its choices on the other axes."""
    return ", ".join(group.labels[1:]) or (group.labels[0] if group.labels else "run")


def followed(records: SweepRecords) -> bool:
    """Whether there are enough evaluations, and few enough cells, to draw the course."""
    if max(map(len, panels(records).values())) > len(SERIES):
        return False
    rounds = [tuple(m["round"] for m in c.metrics) for g in records.groups for c in g.cells]
    return len(set(rounds)) == 1 and len(rounds[0]) >= 3


def course(records: SweepRecords, width: float, key: str = "robust_accuracy") -> Figure:
    """Draw a share of held-out examples by round: the median over the seeds, and a band.

    ``key`` is its name in metrics.jsonl. If it is the robust accuracy, and every evaluation made an
    audit, a dashed line shows the share that withstands it.
    """
    groups = panels(records)
    figure, axes = grid(groups, width, 2.9)
    drawn = styles(records)
    for panel, (title, members) in zip(axes, groups.items(), strict=True):
        panel.set_title(printable(title, 40))
        for group in members:
            colour, marker, _ = drawn[curve_name(group)]
            rounds = [m["round"] for m in group.cells[0].metrics]
            rows = np.array([[m[key] for m in c.metrics] for c in group.cells])
            panel.plot(
                rounds, np.median(rows, axis=0), color=colour, marker=marker, ms=4, clip_on=False
            )
            if len(rows) > 1:
                low, high = rows.min(axis=0), rows.max(axis=0)
                panel.fill_between(rounds, low, high, color=colour, alpha=0.15, lw=0)
            if key == "robust_accuracy" and (audits := _audits(group)):
                at, stands = audits
                panel.plot(at, stands, color=colour, ls=(0, (2, 2)), marker=marker, ms=3)
        rounds_axis(panel, rounds[-1])
        percent_axis(panel)
    axes[0].set_ylabel(key.replace("_", " "))
    if len(drawn) > 1:
        legend(figure, drawn, width)
    return figure


def _audits(group: Group) -> tuple[list[int], list[float]] | None:
    """Return the rounds in which all cells of a group were audited, and the median share there."""
    found = [
        {m["round"]: m["audit"]["robust"] for m in cell.metrics if "audit" in m}
        for cell in group.cells
    ]
    rounds = sorted(set.intersection(*map(set, found)))
    if not rounds:
        return None
    return rounds, [float(np.median([by_round[r] for by_round in found])) for r in rounds]


def matrix(records: SweepRecords, width: float) -> Figure:
    """Draw the accuracy of the last model at every place of a sweep with two axes."""
    rows, columns = (list(dict.fromkeys(g.labels[i] for g in records.groups)) for i in (0, 1))
    shares = np.full((len(rows), len(columns)), np.nan)
    for group in records.groups:
        found = group.spread(lambda cell: cell.final["accuracy"])
        if found is not None:
            shares[rows.index(group.labels[0]), columns.index(group.labels[1])] = found.middle
    figure = Figure(figsize=(width, 0.34 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(shares.shape):
        if np.isfinite(shares[i, j]):
            ink = "white" if shares[i, j] < 0.6 else "black"
            axes.text(j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", color=ink)
    axes.set_xticks(
        range(len(columns)), [printable(c, 20) for c in columns], rotation=35, ha="right"
    )
    axes.set_yticks(range(len(rows)), [printable(r, 30) for r in rows])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    return figure


def grid(
    groups: Mapping[str, Sequence[Group]], width: float, height: float, square: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make one panel for each of ``groups``, side by side, or stacked in a narrow figure."""
    across = min(len(groups), 3) if width > NARROW else 1
    down = -(-len(groups) // across)
    tall = (width / across if square else height) * down + 0.6
    figure = Figure(figsize=(width, tall), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    for spare in axes[len(groups) :]:
        spare.set_visible(False)
    return figure, axes[: len(groups)]


class Style(NamedTuple):
    """The style of a curve. The dash is for lines without markers."""

    colour: str
    marker: str
    dash: str


def styles(records: SweepRecords) -> dict[str, Style]:
    """Return the style of every curve by its name. Up to sixteen curves all differ."""
    names = dict.fromkeys(curve_name(group) for group in records.groups)
    return {
        name: Style(SERIES[i % 8], MARKERS[(i + i // 8) % 8], ("-", "--")[i // 8 % 2])
        for i, name in enumerate(names)
    }


def legend(
    figure: Figure,
    styles: Mapping[str, Style],
    width: float,
    dashed: bool = False,
) -> None:
    """Write the curves' names below the panels. ``dashed`` shows lines with their dashes."""
    names = [printable(name, 60) for name in styles]
    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, ls=style.dash if dashed else "-")
        for style in styles.values()
    ]
    columns = max(1, min(len(names), int(width * 10) // (max(map(len, names)) + 6)))
    more = math.ceil(len(names) / columns) - _LEGEND_ROWS
    figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * max(0, more))
    figure.legend(handles, names, loc="outside lower left", ncols=columns, frameon=False)
