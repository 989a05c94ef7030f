"""The figure of claimed and true robust accuracy has a line for each seed."""

from pathlib import Path
from typing import Any

from fedrobust.report.reproduction.takeover import Claim, claims, claims_of
from fedrobust.report.sweep.records import SweepCell


def cell(robust: float | None, verdict: str = "genuine") -> SweepCell:
    audit: Any = {"claimed": 0.8, "robust": robust, "examples": 100, "verdict": verdict}
    best = {"audit": None if robust is None else audit}
    return SweepCell("cell", {}, Path(), {}, {"test": {"best": best}})


def test_each_audited_cell_is_a_claim() -> None:
    found = claims_of([cell(0.5), cell(None), cell(0.1, "masked")])
    assert found == [Claim(0.8, 0.5, 100, masked=False), Claim(0.8, 0.1, 100, masked=True)]


def test_seeds_lie_below_the_first_one_of_their_place() -> None:
    three = [Claim(0.8, robust, 100, masked=False) for robust in (0.5, 0.6, 0.1)]
    figure = claims({"a": three, "b": three[:1]}, 8.0)
    (axes,) = figure.axes
    assert axes.get_yticks().tolist() == [0, 2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    points = [
        (x, y) for line in axes.lines if line.get_marker() == "o" for x, y in line.get_xydata()
    ]
    assert [at for value, at in points if value != 0.8] == [0, 0.5, 1, 2]
    assert {value for value, _ in points} == {0.8, 0.5, 0.6, 0.1}
