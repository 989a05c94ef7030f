"""The figures of a sweep over rounds and places, and functions that all its figures share."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedrobust.report.style import (
    MUTED,
    NARROW,
    RULE,
    SERIES,
    Style,
    percent_axis,
    printable,
    rounds_axis,
    series,
)
from fedrobust.report.sweep.columns import COLUMNS, chief, spoken
from fedrobust.report.sweep.records import Group, SweepCell, SweepRecords

_LEFT, _RIGHT, _BOTTOM, _TITLE = 0.72, 0.22, 0.48, 0.3
"""The room around the panels of a figure in inches: the axes' labels, and the title."""
_BESIDE, _BETWEEN = 0.34, 0.42
"""The room between panels. Sizes are given: to compute them takes most of the time of a figure."""
_LEGEND_ROW = 0.2
_MANY, _CROWD = 2 * len(SERIES), 150
"""The most curves whose styles all differ, and the most of a figure that are all named.

Of more curves, only the ends of the ranking are named.
"""
_OTHERS = "the others"
_ROOM, _SMALL = 0.6, 7
"""The inches of a figure for each column, from which a share has a decimal; the size below it."""


def turned(records: SweepRecords) -> SweepRecords:
    """Put the axis first whose labels each get a panel, so that no figure has too many panels.

    It is the first axis, unless this has more labels than there are colours, and another has fewer.
    """
    counts = [len(records.labels(axis)) for axis in records.axes]
    if len(counts) < 2 or counts[0] <= len(SERIES) or min(counts) == counts[0]:
        return records
    first = counts.index(min(counts))
    order = [first, *(i for i in range(len(counts)) if i != first)]
    groups = tuple(replace(g, labels=tuple(g.labels[i] for i in order)) for g in records.groups)
    return replace(records, axes=tuple(records.axes[i] for i in order), groups=groups)


def panels(records: SweepRecords) -> dict[str, list[Group]]:
    """Return the groups of each panel.

    There is one panel for each label on the first axis, or one for all where this is the only axis.
    """
    found: dict[str, list[Group]] = {}
    for group in records.groups:
        found.setdefault(group.labels[0] if len(group.labels) > 1 else "", []).append(group)
    return found


def curve_name(group: Group) -> str:
    """Return the name of a group within its panel: its labels on the other axes."""
    return ", ".join(group.labels[1:]) or (group.labels[0] if group.labels else "run")


def course(records: SweepRecords, width: float, key: str = "robust_accuracy") -> Figure:
    """Draw a share of held-out examples by round: the median over the seeds, and a band.

    ``key`` is its name in metrics.jsonl. If it is the robust accuracy, and every evaluation made an
    audit, a dashed line shows the share that withstands it.
    """
    groups = panels(records)
    figure, axes = grid(groups, width, 2.9 if len(groups) < 4 else 2.3)
    drawn = styles(records)
    named = ends(records, lambda cell: float(cell.metrics[-1][key]))
    last, top = 1, 0.0
    for panel, (title, members) in zip(axes, groups.items(), strict=True):
        panel.set_title(printable(title, 30))
        grey = list[tuple[Sequence[float], Sequence[float]]]()
        for group in members:
            style = drawn[curve_name(group)] if curve_name(group) in named else None
            end, peak = _followed(panel, group, key, style, grey)
            last, top = max(last, end), max(top, peak)
            if style and key == "robust_accuracy" and (audits := _audits(group)):
                at, stands = audits
                dashes = {"ls": (0, (2, 2)), "ms": 3, "clip_on": False}
                panel.plot(at, stands, **style.drawn | dashes)
        in_grey(panel, grey)
    for panel in axes:
        percent_axis(panel, top)
        rounds_axis(panel, last)
        if not panel.xaxis.get_tick_params()["labelbottom"]:
            panel.set_xlabel("")
    axes[0].set_ylabel(key.replace("_", " "))
    plain_inside(axes)
    if len(drawn) > 1:
        legend(figure, shown(drawn, named), width)
    return figure


def shown(drawn: Mapping[str, Style], named: Collection[str]) -> dict[str, Style]:
    """Return the styles of a legend: of the curves that are named, and of the others."""
    found = {name: style for name, style in drawn.items() if name in named}
    if len(drawn) > len(found):
        found[_OTHERS] = Style(MUTED, "", "-")
    return found


def in_grey(panel: Axes, curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> None:
    """Draw the curves without a name as one line, which is interrupted between them."""
    if not curves:
        return
    x, y = ([v for curve in curves for v in (*curve[i], math.nan)] for i in (0, 1))
    panel.plot(x, y, color=MUTED, lw=0.8, alpha=0.6, zorder=1)


def _followed(
    panel: Axes,
    group: Group,
    key: str,
    style: Style | None,
    grey: list[tuple[Sequence[float], Sequence[float]]],
) -> tuple[int, float]:
    """Draw the curve of a group; return its last round and its peak.

    Without a style, the curve is added to those that are ``grey``.
    """
    by_round = [{m["round"]: m[key] for m in cell.metrics} for cell in group.cells]
    rounds: list[int] = sorted(set.intersection(*map(set, by_round)))
    rows = np.array([[found[r] for r in rounds] for found in by_round])
    middle = np.median(rows, axis=0)
    if style is None:
        grey.append((rounds, middle.tolist()))
        return rounds[-1], float(middle.max())
    panel.plot(
        rounds,
        middle,
        **style.drawn,
        ms=4 if len(rounds) <= 20 else 3,
        markevery=max(1, len(rounds) // 12),
        clip_on=False,
    )
    if len(rows) > 1:
        low, high = rows.min(axis=0), rows.max(axis=0)
        panel.fill_between(rounds, low, high, color=style.colour, alpha=0.15, lw=0)
    return rounds[-1], float(rows.max())


def ends(records: SweepRecords, figure: Callable[[SweepCell], float]) -> set[str]:
    """Return the names of the curves that are in colour: all, or the ends of the ranking."""
    found: dict[str, list[float]] = {}
    for group in records.groups:
        values = [figure(cell) for cell in group.cells]
        found.setdefault(curve_name(group), []).append(float(np.median(values)))
    crowd = len(found) > len(SERIES) and len(records.groups) > _CROWD
    if len(found) <= _MANY and not crowd:
        return set(found)
    ranked = sorted(found, key=lambda name: float(np.mean(found[name])))
    half = len(SERIES) // 2
    return {*ranked[:half], *ranked[-half:]}


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
    """Draw what a sweep with two axes is judged by at every place: its last models' robustness."""
    column = chief(records)
    rows, columns = (records.labels(axis) for axis in records.axes)
    shares = np.full((len(rows), len(columns)), np.nan)
    for group in records.groups:
        found = group.spread(COLUMNS[column])
        if found is not None:
            shares[rows.index(group.labels[0]), columns.index(group.labels[1])] = found.middle
    figure = Figure(figsize=(width, 0.34 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots()
    low = float(np.nanmin(shares))
    high = max(float(np.nanmax(shares)), low + 0.1)
    axes.imshow(shares, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    digits, size = (1, None) if width / len(columns) > _ROOM else (0, _SMALL)
    for i, j in np.ndindex(shares.shape):
        if np.isfinite(shares[i, j]):
            ink = "white" if shares[i, j] < low + 0.55 * (high - low) else "black"
            text = f"{100 * shares[i, j]:.{digits}f}"
            axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=size)
    axes.set_xticks(
        range(len(columns)), [printable(c, 20) for c in columns], rotation=35, ha="right"
    )
    axes.set_yticks(range(len(rows)), [printable(r, 30) for r in rows])
    axes.set_title(f"{spoken(column).capitalize()} in %")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    return figure


def grid(
    groups: Mapping[str, Sequence[Group]], width: float, height: float, square: bool = False
) -> tuple[Figure, list[Axes]]:
    """Make one panel for each of ``groups``, side by side, or stacked in a narrow figure.

    A panel with no panel below it has the labels of its horizontal axis.
    """
    across = min(len(groups), 3) if width > NARROW else 1
    down = -(-len(groups) // across)
    left, bottom = (0.1, 0.1) if square else (_LEFT, _BOTTOM)
    panel = (width - left - _RIGHT - (across - 1) * _BESIDE) / across
    tall = panel if square else height - _BOTTOM
    whole = bottom + _TITLE + down * tall + (down - 1) * _BETWEEN
    figure = Figure(figsize=(width, whole))
    figure.subplots_adjust(
        left / width, bottom / whole, 1 - _RIGHT / width, 1 - _TITLE / whole,
        wspace=_BESIDE / panel, hspace=_BETWEEN / tall,
    )  # fmt: skip
    axes = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    for spare in axes[len(groups) :]:
        spare.remove()
    for lowest in axes[max(0, len(groups) - across) : len(groups)]:
        lowest.tick_params(labelbottom=True)
    return figure, axes[: len(groups)]


def plain_inside(axes: Sequence[Axes]) -> None:
    """Leave out the ticks of panels within a figure, whose axes are those at its edge.

    Ticks are what takes the time of many panels. Lines at the heights of the ticks stay.
    """
    heights = axes[0].yaxis.get_majorticklocs()
    for panel in axes:
        place = panel.get_subplotspec()
        if not panel.xaxis.get_tick_params()["labelbottom"]:
            panel.xaxis.set_visible(False)
        if place is not None and not place.is_first_col():
            panel.yaxis.set_visible(False)
            low, high = panel.get_ylim()
            lines = [((0, y), (1, y)) for y in heights if low <= y <= high]
            across = panel.get_yaxis_transform()
            ruled = LineCollection(lines, colors=RULE, linewidths=0.8, transform=across, zorder=0.5)
            panel.add_collection(ruled, autolim=False)


def styles(records: SweepRecords) -> dict[str, Style]:
    """Return the style of every curve by its name."""
    names = dict.fromkeys(curve_name(group) for group in records.groups)
    return {name: series(i) for i, name in enumerate(names)}


def legend(
    figure: Figure,
    styles: Mapping[str, Style],
    width: float,
    dashed: bool = False,
) -> None:
    """Write the curves' names below the panels. ``dashed`` shows lines with their dashes."""
    names = [printable(name, 60) for name in styles]
    handles = [
        Line2D([], [], color=style.colour, ls=style.dash)
        if dashed
        else Line2D([], [], **style.drawn)
        for style in styles.values()
    ]
    columns = max(1, min(len(names), int(width * 10) // (max(map(len, names)) + 6)))
    more = 0.1 + _LEGEND_ROW * math.ceil(len(names) / columns)
    before, room = figure.get_figheight(), figure.subplotpars
    height = before + more
    figure.set_figheight(height)
    figure.subplots_adjust(
        bottom=(room.bottom * before + more) / height, top=1 - (1 - room.top) * before / height
    )
    figure.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(0, 0),
        ncols=columns,
        frameon=False,
        borderaxespad=0,
        labelspacing=0.35,
    )
