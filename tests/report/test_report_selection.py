"""The fate of malicious rows, against counts made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_run import make_run

from fedrobust.report import ReportRun
from fedrobust.report.run_records import Round
from fedrobust.report.selection import passing


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ReportRun:
    path = tmp_path_factory.mktemp("passing") / "run"
    return ReportRun.read(make_run(path, rounds=25, pictures=None))


def round_(
    number: int, malicious: set[int], kept: set[int] | None, among: set[int] | None = None
) -> Round:
    return Round(
        round=number,
        participants=None if among is None else frozenset(among),
        malicious=frozenset(malicious),
        kept=None if kept is None else frozenset(kept),
        dropped=(),
        applied=kept is not None,
    )


def test_counts_by_client_and_by_round(run: ReportRun) -> None:
    rounds = (
        round_(1, {3, 5}, {3, 8, 9}),
        round_(2, {5}, {5, 9}, among={5, 7, 8, 9}),
        round_(3, {3, 5}, None),  # no step: counts for nothing
        round_(4, {3}, {9}, among={3, 9}),
    )
    found = passing(replace(run, rounds=rounds), columns=4)
    assert found is not None
    assert found.clients == (3, 5)
    np.testing.assert_array_equal(found.edges, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(found.shares, [[1, np.nan, np.nan, 0], [0, 1, np.nan, np.nan]])
    np.testing.assert_array_equal(found.passed, [0.5, 1, np.nan, 0])
    np.testing.assert_allclose(found.chance, [3 / 51, 2 / 4, np.nan, 1 / 2])
    assert found.total_passed == 2 / 4
    assert found.total_chance == pytest.approx((2 * 3 / 51 + 2 / 4 + 1 / 2) / 4)


def test_rounds_are_put_into_columns_of_a_round_width(run: ReportRun) -> None:
    rounds = tuple(round_(r, {0}, {0} if r <= 4 else {1}) for r in range(1, 12))
    found = passing(replace(run, rounds=rounds), columns=4)
    assert found is not None
    np.testing.assert_array_equal(found.edges, [0, 5, 10, 11])
    np.testing.assert_allclose(found.shares, [[0.8, 0, 0]])


@pytest.mark.parametrize("columns", [1, 48, 100])
def test_the_totals_do_not_depend_on_the_columns(run: ReportRun, columns: int) -> None:
    fine, coarse = passing(run, 25), passing(run, columns)
    assert fine is not None
    assert coarse is not None
    assert coarse.total_passed == fine.total_passed
    assert coarse.total_chance == pytest.approx(27 / 51, rel=0.01)
    assert coarse.shares.shape[1] <= columns


def test_a_blind_choice_is_unknown_without_the_number_of_clients(run: ReportRun) -> None:
    partition = {"partition": {"name": "by-writer"}}
    unknown = replace(run, summary=None, config={**run.config, **partition})
    found = passing(unknown, 25)
    assert found is not None
    assert found.total_chance is None
    assert found.total_passed > 0


def test_nothing_to_show(run: ReportRun) -> None:
    assert passing(replace(run, rounds=()), 10) is None
    assert passing(replace(run, rounds=(round_(1, {2}, None),)), 10) is None
    assert passing(replace(run, rounds=(round_(1, set(), {2}),)), 10) is None
    assert passing(replace(run, rounds=(round_(1, {2}, None), round_(2, set(), {1}))), 10) is None
