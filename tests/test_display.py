"""What is drawn of a sweep where no terminal is there."""

import io
import json
from pathlib import Path

from rich.console import Console

from fedrobust.attacks import Learned, LocalModelPoisoning, Mimic
from fedrobust.cli.components import _knowledge
from fedrobust.display import SweepDisplay
from fedrobust.progress import CELLS
from fedrobust.runs.grid_axes import _LABEL


def test_a_cell_may_have_any_name_that_a_label_can_have(tmp_path: Path) -> None:
    """The name under which all cells are told of is none of these."""
    assert not _LABEL.fullmatch(CELLS)
    text = io.StringIO()
    with SweepDisplay(Console(file=text), 3, tmp_path) as display:
        display.progress.moved(CELLS, 1, 3)
        for name in ("cells", "other"):
            display.progress.moved(name, 0, 5)
        display.progress.ended("cells", None)
        display.progress.ended("other", "no room")
    assert text.getvalue().splitlines() == [
        "1 cell was finished before",
        "cells: done",
        "other: failed: no room",
    ]


def test_a_finished_cell_is_told_with_its_scores(tmp_path: Path) -> None:
    """Also where its name has that of its sweep before it."""
    best = {"round": 7, "accuracy": 0.9, "robust_accuracy": 0.456}
    mnist = tmp_path / "mnist" / "cells"
    for cell in (tmp_path / "cells" / "one", mnist / "two", mnist / "three"):
        cell.mkdir(parents=True)
        (cell / "summary.json").write_text(json.dumps({"test": {"best": best, "final": best}}))
    last = best | {"round": 9, "robust_accuracy": 0.3}
    (mnist / "three" / "summary.json").write_text(
        json.dumps({"test": {"best": best, "final": last}})
    )
    (tmp_path / "mnist" / "cells" / "two" / "summary.json").write_text("{")
    text = io.StringIO()
    with SweepDisplay(Console(file=text), 3, tmp_path) as display:
        for name in ("one", "mnist/two", "mnist/three"):
            display.progress.moved(name, 0, 5)
            display.progress.ended(name, None)
    assert text.getvalue().splitlines() == [
        "one: done: 45.6% robust, 90.0% accurate on test, round 7",
        "mnist/two: done",
        "mnist/three: done: 45.6% robust, 90.0% accurate on test, round 7 (chosen); "
        "30.0% robust after the last round",
    ]


def test_the_list_says_what_attacks_must_know_whose_fields_decide() -> None:
    assert _knowledge(Learned).startswith("the number of clients, in its example")
    assert _knowledge(LocalModelPoisoning).startswith("the colluders' honest updates, in its ex")
    assert _knowledge(Mimic) == "the colluders' honest updates, benign updates"
