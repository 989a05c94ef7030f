"""The figures of one result of a leaderboard must be those of one model."""

import pytest

from fedrobust.runs.leaderboard.agreement import figures


@pytest.mark.parametrize(
    ("clean", "examples", "claimed", "robust", "audited", "told"),
    [
        (0.9, 100, 0.8, 0.7, 100, ""),
        (0.9, 100, 0.9, 0.9, 100, ""),
        (0.9, 100, 0.95, 0.7, 20, ""),  # other examples, on which the model may be better
        (0.9, 100, 0.95, 0.7, 100, "plain PGD leaves more than is right without an attack"),
        (0.9, 100, 0.7, 0.8, 100, "its audit leaves more standing than plain PGD alone"),
        (0.9, 100, 0.8, 0.7, 200, "200 examples were audited, and 100 tested"),
        (0.905, 100, 0.8, 0.7, 100, "clean is 0.905, which is no whole number of 100 examples"),
        (0.9, 100, 0.85, 0.7, 10, "claimed is 0.85, which is no whole number of 10 examples"),
        (0.9, 100, 0.8, 0.75, 10, "robust is 0.75, which is no whole number of 10 examples"),
    ],
)
def test_what_cannot_be_one_models(
    clean: float, examples: int, claimed: float, robust: float, audited: int, told: str
) -> None:
    found = figures(clean, examples, claimed, robust, audited)
    assert found.startswith(told) if told else not found
