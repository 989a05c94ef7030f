"""Figures of many curves and panels: twelve curves have names, and the panels inside no ticks."""

import math

import pytest
from made_sweep import made
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedrobust.report.sweep.figures import in_grey
from fedrobust.report.sweep.records import SweepRecords
from fedrobust.report.sweep.shift import shift

RULES = 20


def crowded(attacks: int) -> SweepRecords:
    """Sweeps of twenty rules, each with more errors under shift than the one before."""
    places = {(f"a{j}", f"r{i}"): [0.5] for j in range(attacks) for i in range(RULES)}
    records = made(places, ("attack", "rule"))
    for cell in records.cells:
        error = (1 + int(cell.labels["rule"][1:])) / 100
        cell.final["shift"] = [  # type: ignore[index]
            {"method": "pgd", "rho": rho, "reached": rho, "loss": 1.0, "error": error + rho}
            for rho in (0.0, 0.1)
        ]
    return records


def curves(panel: Axes) -> list[Line2D]:
    return [line for line in panel.lines if len(line.get_xdata()) > 1]


def named(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_of_two_hundred_curves_the_ends_of_the_ranking_have_names() -> None:
    figure = shift(crowded(10), "pgd", "error", 9.0)
    ends = [f"r{i}" for i in range(RULES) if i < 6 or i >= RULES - 6]
    assert named(figure) == [*ends, "the others"]
    for panel in figure.axes:
        lines = curves(panel)
        assert len(lines) == 12 + 1, "all others are one line"
        (grey,) = [line for line in lines if len(line.get_xdata()) > 2]
        heights = [float(y) for y in grey.get_ydata()]
        assert heights.count(math.nan) <= RULES - 12
        assert [round(100 * y) for y in heights[::3]] == list(range(7, 15))


def test_of_forty_curves_all_have_names() -> None:
    figure = shift(crowded(2), "pgd", "error", 9.0)
    assert named(figure) == [f"r{i}" for i in range(RULES)]
    assert [len(curves(panel)) for panel in figure.axes] == [RULES, RULES]


@pytest.mark.slow
def test_only_the_panels_at_the_edge_have_ticks_and_all_have_lines() -> None:
    figure = shift(crowded(10), "pgd", "error", 9.0)
    places = [panel.get_subplotspec() for panel in figure.axes]
    left = [place is not None and place.is_first_col() for place in places]
    assert [panel.yaxis.get_visible() for panel in figure.axes] == left
    assert [panel.xaxis.get_visible() for panel in figure.axes] == [False] * 7 + [True] * 3
    low, high = figure.axes[0].get_ylim()
    heights = [y for y in figure.axes[0].get_yticks() if low <= y <= high]
    for panel, at_left in zip(figure.axes, left, strict=True):
        ruled = [lines for lines in panel.collections if len(lines.get_paths()) == len(heights)]
        assert bool(ruled) is not at_left


def test_nothing_in_grey_is_no_line() -> None:
    panel = Figure().subplots()
    in_grey(panel, [])
    assert not panel.lines
