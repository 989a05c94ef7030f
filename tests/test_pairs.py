"""results/pairs.py compares two sweeps, paired by seed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

from fedrobust.errors import RecordError

RESULTS = Path(__file__).parents[1] / "results"
EARLY, LATE = RESULTS / "drfl" / "ring-early", RESULTS / "drfl" / "ring-learned"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(RESULTS)
    import pairs

    del sys.modules["pairs"]
    return pairs.lines


def test_differences_are_the_first_sweeps_minus_the_seconds(lines: Callable[..., Any]) -> None:
    def errors(sweep: Path) -> list[float]:
        found = []
        for seed in range(5):
            text = (sweep / "cells" / f"median-shrink-{seed}" / "summary.json").read_text()
            found.append(100 - 100 * json.loads(text)["test"]["final"]["accuracy"])
        return found

    first, second = errors(EARLY), errors(LATE)
    low, high = ttest_rel(first, second).confidence_interval(0.95)
    told = f"{(sum(first) - sum(second)) / 5:+.1f} ({low:+.1f} to {high:+.1f})"
    table = list(lines(EARLY, LATE))
    assert table[0] == "| rule | attack | error, points | ρ̂ |"
    (row,) = [line for line in table if line.startswith("| median | shrink |")]
    assert told in row
    assert len(table) == 2 + 3 * 6, "the fixed attacks, which both have, under three rules"


def test_sweeps_that_have_nothing_in_common_are_refused(lines: Callable[..., Any]) -> None:
    with pytest.raises(RecordError, match="has the axes"):
        list(lines(EARLY, RESULTS / "fat" / "table2" / "writers"))
