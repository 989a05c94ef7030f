"""Confidence intervals of shares."""

import math

import pytest
from scipy.stats import norm

from fedrobust.evaluation.intervals import SIDES, Share


@pytest.mark.parametrize("total", [1, 7, 360, 100_000])
def test_the_interval_of_a_share_is_wilsons(total: int) -> None:
    """(p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n)."""
    assert pytest.approx(0.975) == norm.cdf(SIDES)
    for count in sorted({0, 1, total // 3, total - 1, total}):
        for z in (SIDES, 2.807):
            p, share = count / total, z * z / total
            reach = z * math.sqrt(p * (1 - p) / total + share / (4 * total))
            ends = [(p + share / 2 + side * reach) / (1 + share) for side in (-1, 1)]
            known = pytest.approx((max(0, ends[0]), min(1, ends[1])), rel=1e-9, abs=1e-15)
            assert Share(count, total).interval(z) == known
    assert Share(0, total).low == 0
    assert Share(total, total).high == 1
