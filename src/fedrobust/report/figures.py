"""The figures of a run. Each is a function of a width in inches, for :func:`style.render`."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter
from numpy.typing import NDArray

from fedrobust.records.pictures import Examples, answer_text
from fedrobust.report.run_records import PerUser, ReportRun
from fedrobust.report.selection import passing
from fedrobust.report.style import (
    ACCURACY,
    MALICIOUS,
    MUTED,
    NARROW,
    PAPER,
    RIGHT,
    ROBUST,
    percent_axis,
    printable,
    rounds_axis,
    series,
)


def accuracy(runs: Sequence[ReportRun], labels: Sequence[str], width: float) -> Figure:
    """Draw accuracy and robust accuracy over rounds; one panel for one run, two for several."""
    if len(runs) == 1:
        return _one_run(runs[0], width)
    across = width > NARROW
    names = [printable(label, 40) for label in labels]
    columns = max(1, min(len(runs), int(width * 11) // (max(map(len, names)) + 6)))
    legend = 0.22 * -(-len(runs) // columns)
    figure = Figure(figsize=(width, (3.3 if across else 5.0) + legend), layout="constrained")
    grid = (1, 2) if across else (2, 1)
    panels: list[Axes] = list(figure.subplots(*grid, sharex=True, sharey=True, squeeze=False).flat)
    handles = []
    for i, run in enumerate(runs):
        style = series(i)
        x = [e.round for e in run.evaluations]
        curves = (
            [e.accuracy for e in run.evaluations],
            [e.robust_accuracy for e in run.evaluations],
        )
        for axes, y in zip(panels, curves, strict=True):
            (line,) = axes.plot(x, y, **style.drawn, ms=4.5, markevery=_spread(len(x), i))
            _ring(axes, run, y, style.colour, style.marker)
        handles.append(line)
    for axes, name in zip(panels, ("Accuracy", "Robust accuracy"), strict=True):
        axes.set_title(name)
        percent_axis(axes)
        rounds_axis(axes, max(e.round for run in runs for e in run.evaluations))
    if across:
        panels[1].tick_params(labelleft=False)
    else:
        panels[0].set_xlabel("")
    order = sorted(range(len(runs)), key=lambda i: -runs[i].evaluations[-1].robust_accuracy)
    figure.legend(
        [handles[i] for i in order],
        [names[i] for i in order],
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        borderpad=0,
    )
    return figure


def _one_run(run: ReportRun, width: float) -> Figure:
    figure = Figure(figsize=(width, 3.5 if width > NARROW else 3.1), layout="constrained")
    axes = figure.subplots()
    x = [e.round for e in run.evaluations]
    marker = "o" if len(x) <= 40 and width > NARROW else ""
    end = {}
    for name, colour, dash, y in (
        ("accuracy", ACCURACY, "-", [e.accuracy for e in run.evaluations]),
        ("robust accuracy", ROBUST, (0, (5, 1.2)), [e.robust_accuracy for e in run.evaluations]),
    ):
        axes.plot(x, y, color=colour, ls=dash, marker=marker, ms=3.5, clip_on=False, zorder=3)
        _ring(axes, run, y, colour, "o")
        end[name] = (y[-1], colour)
    audits = [(e.round, e.audit) for e in run.evaluations if e.audit is not None]
    if audits:
        y = [audit.robust for _, audit in audits]
        axes.plot([at for at, _ in audits], y, color=MALICIOUS, marker="D", ms=3.5, clip_on=False)
        masked = [(at, audit.robust) for at, audit in audits if audit.verdict == "masked"]
        axes.plot(*zip(*masked, strict=True), "X", color=MALICIOUS, ms=8) if masked else None
        end["audited"] = (y[-1], MALICIOUS)
    percent_axis(axes)
    rounds_axis(axes, x[-1])
    # Names stand at the ends of the curves, at least one line of text apart, within the axes.
    places = apart([y_end for y_end, _ in end.values()])
    for (name, (_, colour)), place in zip(end.items(), places, strict=True):
        text = name.replace(" ", "\n") if width <= NARROW else name
        _name(axes, x[-1], place, text, colour, bold=True)
    axes.axvline(run.chosen_round, color=MUTED, lw=1, ls=(0, (2, 2)), zorder=1)
    late = run.chosen_round > x[-1] / 2
    axes.annotate(
        f"{'chosen' if run.summary else 'best so far'}: round {run.chosen_round:,}",
        (run.chosen_round, 0.02),
        xytext=(-6 if late else 6, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        color=MUTED,
    )
    return figure


def apart(heights: Sequence[float], least: float = 0.09) -> list[float]:
    """Return the ``heights`` of labels in [0, 1], moved so that neighbours are ``least`` apart."""
    order = sorted(range(len(heights)), key=lambda i: (heights[i], -i))
    placed: list[float] = []
    for i in order:
        placed.append(max(heights[i], least / 2, placed[-1] + least if placed else 0.0))
    excess = max(0.0, placed[-1] - (1 - least / 3))
    shared = [y - excess for y in placed]
    # Two labels that were pushed apart share the distance, where there is room below.
    for k in range(len(shared) - 1):
        gap = shared[k + 1] - heights[order[k + 1]]
        room = shared[k] - least / 2
        if gap > 0 and room > 0:
            shift = min(gap / 2, room)
            shared = [y - shift if j >= k else y for j, y in enumerate(shared)]
    result = [0.0] * len(heights)
    for i, y in zip(order, shared, strict=True):
        result[i] = y
    return result


def kept(run: ReportRun, width: float) -> Figure:
    """Draw the share of malicious rows that the rule kept over rounds, in all and by client."""
    found = passing(run, 100 if width > NARROW else 50)
    assert found is not None  # the page asks only where the rule selects among malicious rows
    rows = len(found.clients) if len(found.clients) <= 64 else 0
    raster = 0.4 + max(0.6, min(0.17, 5 / max(rows, 1)) * rows) if rows else 0.0
    figure = Figure(figsize=(width, 2.1 + raster), layout="constrained")
    ratios = [1.7, raster] if rows else [1.0]
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)
    top: Axes = panels[0, 0]
    top.stairs(found.passed, found.edges, color=MALICIOUS, lw=1.8, baseline=None)
    top.stairs(found.passed, found.edges, color=MALICIOUS, alpha=0.18, fill=True)
    top.stairs(found.chance, found.edges, color=MUTED, lw=1.3, ls="--", baseline=None)
    percent_axis(top)
    top.set_title("Share of malicious rows kept")
    end = found.edges[-1]
    level, blind = _end(found.passed), _end(found.chance)
    if not np.isnan(blind):
        _name(top, end, blind, "blind\nchoice", MUTED)
    if not abs(level - blind) < 0.3:  # else the two names would overlap; the title says "kept" too
        _name(top, end, level, "kept", MALICIOUS)
    if rows:
        title = "Each malicious client, by id" if width > NARROW else "By client"
        _raster(panels[1, 0], title, found.shares, found.edges, found.clients)
    rounds_axis(panels[-1, 0], int(end), int(found.edges[0]))
    return figure


def _end(values: NDArray[np.float64]) -> float:
    """Return the level at which a curve ends: the mean of its last eight known values."""
    known = values[~np.isnan(values)][-8:]
    return float(known.mean()) if known.size else np.nan


def _name(axes: Axes, x: float, y: float, text: str, colour: str, bold: bool = False) -> None:
    """Put a curve's name to the right of its end."""
    axes.annotate(
        text, (x, y), xytext=(8, 0), textcoords="offset points", color=colour, va="center",
        weight="bold" if bold else "normal",
    )  # fmt: skip


def _raster(
    axes: Axes,
    title: str,
    shares: NDArray[np.float64],
    edges: NDArray[np.float64],
    clients: Sequence[int],
) -> None:
    # One hue whose opacity is the share is readable on white paper and on a dark screen.
    image = np.empty((*shares.shape, 4))
    image[..., :3] = to_rgb(MALICIOUS)
    image[..., 3] = np.where(np.isnan(shares), 0, 0.08 + 0.92 * np.nan_to_num(shares))
    width = edges[1] - edges[0]
    extent = (edges[0], edges[0] + width * shares.shape[1], len(clients) - 0.5, -0.5)
    axes.imshow(image, aspect="auto", interpolation="none", extent=extent)
    stretch = f", {width:.0f} rounds a column" if width > 1 else ""
    axes.set_title(f"{title}{stretch}")
    axes.grid(visible=False)
    every = -(-len(clients) // 24)
    axes.set_yticks(range(0, len(clients), every), [str(c) for c in clients[::every]], fontsize=7.5)
    axes.hlines(np.arange(1, len(clients)) - 0.5, *extent[:2], color=PAPER, lw=1.2)


def users(scores: PerUser, width: float) -> Figure:
    """Draw accuracy against robust accuracy with a dot for each user, as FAT's figure 2."""
    side = min(width, 5.2)
    figure = Figure(figsize=(side, side * 0.86), layout="constrained")
    axes = figure.subplots()
    known = sorted(scores.accuracy)
    x = np.array([scores.accuracy[u] for u in known])
    y = np.array([scores.robust_accuracy[u] for u in known])
    size = np.array([scores.examples[u] for u in known])
    # Three dot sizes are enough and keep the file small. If no sizes differ, all dots are large.
    third = np.digitize(size, np.quantile(size, [1 / 3, 2 / 3]))
    for level, area in enumerate((14, 32, 58)):
        here = third == level
        axes.plot(
            x[here], y[here], "o", ms=area**0.5, color=ACCURACY, alpha=0.45, mec=PAPER, mew=0.5,
            rasterized=len(known) > 1000, clip_on=False,
        )  # fmt: skip
    axes.axvline(float(np.median(x)), color=MUTED, lw=1, ls=(0, (2, 2)))
    axes.axhline(float(np.median(y)), color=MUTED, lw=1, ls=(0, (2, 2)))
    axes.annotate(
        "medians", (float(np.median(x)), 1), xycoords=("data", "axes fraction"), xytext=(-4, 0),
        textcoords="offset points", color=MUTED, ha="right", va="top", fontsize=8,
    )  # fmt: skip
    percent_axis(axes)
    # The axes end at whole fifths around the dots; the accuracy axis always ends at 1.
    axes.set_xlim(min(np.floor(x.min() * 5) / 5, 0.8), 1)
    axes.set_ylim(np.floor(y.min() * 5) / 5, max(np.ceil(y.max() * 5) / 5, 0.2))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(
            MultipleLocator(0.1 if np.ptp(axis.get_view_interval()) < 0.6 else 0.2)
        )
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid(axis="x")
    axes.set_xlabel("accuracy")
    axes.set_ylabel("robust accuracy")
    return figure


def examples(found: Examples, width: float) -> Figure:
    """Draw clean pictures above the adversarial ones, with the model's answers."""
    count = len(found.labels)
    figure = Figure(figsize=(width, 2 * width / count + 0.6), layout="constrained")
    panels = figure.subplots(2, count, squeeze=False)
    for row, (pictures, answers) in enumerate(
        ((found.clean, found.clean_answers), (found.adversarial, found.adversarial_answers))
    ):
        for axes, picture, answer, label in zip(
            panels[row], pictures, answers, found.labels, strict=True
        ):
            axes.imshow(pixels(picture), cmap="gray", vmin=0, vmax=1, interpolation="none")
            axes.set(xticks=[], yticks=[])
            right = answer == label
            colour = RIGHT if right else ROBUST
            axes.set_title(
                f"{'✓' if right else '✗'} {answer_text(answer)}", color=colour, loc="center"
            )
            axes.spines[:].set(visible=True, color=colour, linewidth=2)
            axes.spines[:].set_linestyle("-" if right else (0, (3, 1.5)))
        panels[row, 0].set_ylabel(("clean", "adversarial")[row])
    return figure


def pixels(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn [c, h, w] into a picture: [h, w, 3] for three channels, else their mean [h, w]."""
    shown = np.clip(np.nan_to_num(picture), 0, 1)
    return shown.transpose(1, 2, 0) if len(shown) == 3 else shown.mean(0)


def _ring(axes: Axes, run: ReportRun, y: list[float], colour: str, marker: str) -> None:
    """Mark the chosen round on the curve ``y``."""
    at = run.evaluations.index(run.chosen)
    axes.plot(
        run.chosen_round, y[at], marker, color=colour, mfc=PAPER, ms=7.5, mew=1.8, zorder=4,
        clip_on=False,
    )  # fmt: skip


def _spread(points: int, offset: int) -> tuple[int, int]:
    """Place markers on about eight points of a curve, at different points for each run."""
    step = max(1, points // 8)
    return (offset % step, step)
