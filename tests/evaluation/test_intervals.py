"""Confidence intervals of shares."""

import pytest
from scipy.stats import binomtest, norm

from fedrobust.evaluation.intervals import SIDES, Share


@pytest.mark.parametrize("total", [1, 7, 360, 100_000])
def test_the_interval_of_a_share_is_wilsons(total: int) -> None:
    assert pytest.approx(0.975) == norm.cdf(SIDES)
    for count in sorted({0, 1, total // 3, total - 1, total}):
        for z in (SIDES, 2.807):
            level = norm.cdf(z) - norm.cdf(-z)
            known = binomtest(count, total).proportion_ci(level, "wilson")
            known = pytest.approx(tuple(known), rel=1e-9, abs=1e-15)
            assert Share(count, total).interval(z) == known
    assert Share(0, total).low == 0
    assert Share(total, total).high == 1
