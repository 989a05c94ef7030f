"""The effects of a two-level design are those that it was made with, and scatter is no effect."""

from itertools import combinations, product
from pathlib import Path
from statistics import mean, median

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t

from fedrobust.report.style import render
from fedrobust.report.sweep.effects import caption, contrasts_of, design, drawn, effects
from fedrobust.report.sweep.records import Group, SweepCell, SweepRecords
from fedrobust.runs.grid import load_sweep

ROOT = Path(__file__).parents[3]
HALF = np.array([[*row, int(np.prod(row))] for row in product((-1, 1), repeat=4)])


def scatter() -> list[float]:
    return list(np.random.default_rng(0).normal(size=16))


def test_the_effects_that_were_put_in_come_out() -> None:
    put = [3.0, -2.0, 0.0, 0.5, 7.0]
    seen = effects(HALF, list(10 + HALF @ np.array(put) / 2))
    assert seen.effects == pytest.approx(put)
    assert seen.margin == pytest.approx(0.0, abs=1e-9)


def test_the_margin_is_lenths() -> None:
    """Worked out contrast by contrast, as the paper says it."""
    values = scatter()
    settings = [HALF[:, i].tolist() for i in range(5)]
    columns = settings + [
        [a * b for a, b in zip(x, y, strict=True)] for x, y in combinations(settings, 2)
    ]
    contrasts = [
        mean(v for v, way in zip(values, column, strict=True) if way == 1)
        - mean(v for v, way in zip(values, column, strict=True) if way == -1)
        for column in columns
    ]
    first = 1.5 * median(map(abs, contrasts))
    pse = 1.5 * median(abs(c) for c in contrasts if abs(c) < 2.5 * first)
    seen = effects(HALF, values)
    assert seen.margin == pytest.approx(t.ppf(0.975, 15 / 3) * pse)
    assert seen.effects == pytest.approx(contrasts[:5])


def test_one_large_effect_does_not_widen_the_margin() -> None:
    values = np.array(scatter())
    quiet, loud = effects(HALF, list(values)), effects(HALF, list(values + 50 * HALF[:, 1]))
    assert loud.margin == pytest.approx(quiet.margin, rel=0.25)
    assert loud.effects[1] > 10 * loud.margin


def records(rows: list[tuple[str, ...]]) -> SweepRecords:
    def group(i: int, labels: tuple[str, ...]) -> Group:
        final = {"accuracy": 0.9 + 0.001 * i, "robust_accuracy": 0.5 + 0.02 * i}
        cell = SweepCell(str(i), {}, Path(), {}, {"test": {"final": final}})
        return Group(labels, (cell,))

    groups = tuple(group(i, labels) for i, labels in enumerate(rows))
    axes = tuple("abcde"[: len(rows[0])])
    return SweepRecords(Path(), "design", axes, groups, (), {})


FULL = list(product(("x", "y"), ("kept", "reset"), ("1", "4")))


def test_a_design_is_balanced_and_orthogonal() -> None:
    levels = design(records(FULL))
    assert levels is not None
    assert levels.tolist() == [list(row) for row in product((-1, 1), repeat=3)]
    assert design(records(FULL[:-1])) is None  # one place is not finished
    assert design(records([row[:2] for row in FULL])) is None  # two settings are a table
    assert design(records([*FULL[:4], *FULL[:4]])) is None  # all at one label
    assert design(records([("x", "x", "1"), ("y", "y", "4")] * 4)) is None  # they go together
    assert design(records(list(product(("x", "y", "z"), ("1", "2"), ("3", "4"))))) is None


def test_the_committed_design_tells_all_settings_apart() -> None:
    sweep = load_sweep(ROOT / "experiments" / "fat" / "sensitivity-cpu.yaml")
    rows = sorted(tuple(cell.labels[axis] for axis in sweep.axes) for cell in sweep.cells)
    levels = design(records(rows))
    assert levels is not None
    pairs = np.array([a * b for a, b in combinations(levels.T, 2)])
    assert not (pairs @ levels).any()  # resolution V: clear of every pair,
    assert np.array_equal(pairs @ pairs.T, 16 * np.eye(10, dtype=int))  # and pairs of each other


@pytest.mark.slow
def test_it_can_be_drawn() -> None:
    picture = render(lambda width: drawn(records(FULL), width))
    for told in ("a: x → y", "b: kept → reset", "robust accuracy", "points"):
        assert told in picture.wide


def saturated() -> NDArray[np.int64]:
    """Seven settings in eight places, 2^(7-4): a pair is a setting, but for its sign."""
    a, b, c = np.array(list(product((-1, 1), repeat=3))).T
    return np.array([a, b, c, a * b, a * c, b * c, a * b * c]).T


def test_a_contrast_counts_once() -> None:
    assert len(contrasts_of(saturated())) == 7
    assert len(contrasts_of(HALF)) == 15
    half = np.array([[*row, int(np.prod(row))] for row in product((-1, 1), repeat=3)])
    assert len(contrasts_of(half)) == 7  # three of the six pairs are the other three
    values = list(np.random.default_rng(1).normal(size=8))
    own = np.abs([2 * np.mean(column * np.array(values)) for column in saturated().T])
    first = 1.5 * np.median(own)
    pse = 1.5 * np.median(own[own < 2.5 * first])
    assert effects(saturated(), values).margin == pytest.approx(t.ppf(0.975, 7 / 3) * pse)


def test_where_pairs_are_mixtures_of_settings_only_settings_count() -> None:
    """The design of Plackett and Burman for eleven settings in twelve places."""
    row = [1, 1, -1, 1, 1, 1, -1, -1, -1, 1, -1]
    levels = np.array([row[-i:] + row[:-i] for i in range(11)] + [[-1] * 11])
    assert np.array_equal(levels.T @ levels, 12 * np.eye(11))
    assert len(contrasts_of(levels)) == 11


def test_the_caption_says_where_settings_are_mixed_with_pairs() -> None:
    assert "is mixed with" in caption(saturated())
    assert "is mixed with" not in caption(HALF)
