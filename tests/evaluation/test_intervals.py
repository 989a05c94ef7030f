"""Confidence intervals of shares."""

import pytest
from scipy.stats import binomtest, norm

from fedrobust.evaluation.intervals import SIDES, Share


@pytest.mark.parametrize("total", [1, 7, 360, 100_000])
def test_the_interval_of_a_share_is_wilsons(total: int) -> None:
    """SciPy has it too, in a module whose import takes as long as a command."""
    assert pytest.approx(0.975) == norm.cdf(SIDES)
    for count in sorted({0, 1, total // 3, total - 1, total}):
        for z in (SIDES, 2.807):
            known = binomtest(count, total).proportion_ci(2 * norm.cdf(z) - 1, "wilson")
            found = Share(count, total).interval(z)
            assert found == pytest.approx((known.low, known.high), rel=1e-9, abs=1e-15)
    assert Share(0, total).low == 0
    assert Share(total, total).high == 1
