"""Signs are what the formulas say, and the verdict is what the signs say."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fedrobust.evaluation.auditing.indicators import (
    BATTERY,
    LIMITS,
    OVERSTATED,
    Indicator,
    lead,
    share,
    verdict,
)

SQUARE = "Square beats plain PGD"


def mask(*counts: int) -> Tensor:
    """So many examples that fell, then so many that did not, and so on."""
    return torch.cat([torch.full((n,), i % 2 == 0) for i, n in enumerate(counts)])


def test_a_lead_has_the_interval_of_agresti_and_min() -> None:
    """By hand: of 100, 20 fall to ours alone, 5 to plain PGD alone, 30 to both."""
    found = lead(SQUARE, mask(50, 50), mask(0, 20, 35, 45))
    assert found.value == pytest.approx(0.15)
    middle, error = 15 / 102, 0.0478228  # sqrt(26 - 225/102) / 102
    assert found.low == pytest.approx(middle - 1.959964 * error, abs=1e-6)
    assert found.high == pytest.approx(middle + 1.959964 * error, abs=1e-6)
    assert found.floor == pytest.approx(middle - 2.807034 * error, abs=1e-6)


def test_a_share_has_wilsons_interval() -> None:
    """By hand: 3 of 50, of all of them or of the 50 among 80."""
    for found in (
        share(OVERSTATED, mask(3, 47)),
        share(OVERSTATED, mask(3, 77), among=mask(50, 30)),
    ):
        assert found.value == pytest.approx(0.06)
        assert found.low == pytest.approx(0.0206146, abs=1e-6)
        assert found.high == pytest.approx(0.162171, abs=1e-5)
        z, n = 2.807034, 50
        root = (0.06 * 0.94 / n + z**2 / (4 * n**2)) ** 0.5
        assert found.floor == pytest.approx((0.06 + z**2 / (2 * n) - z * root) / (1 + z**2 / n))
    nobody = share(OVERSTATED, mask(0, 5), among=mask(0, 5))
    assert nobody.beyond is False


@pytest.mark.parametrize(
    ("floor", "low", "high", "beyond"),
    [
        (0.11, 0.12, 0.2, True),
        (0.10, 0.12, 0.2, None),  # above the limit at 95 %, and not at 99.75 %
        (0.05, 0.06, 0.2, None),
        (0.05, 0.06, 0.1, False),
        (0.0, 0.0, 0.0, False),
    ],
)
def test_a_sign_is_beyond_its_limit_as_a_whole(
    floor: float, low: float, high: float, beyond: bool | None, monkeypatch: Any
) -> None:
    monkeypatch.setitem(LIMITS, SQUARE, 0.10)
    found = Indicator(SQUARE, (low + high) / 2, low, high, floor)
    assert found.beyond is beyond
    assert found.word == {True: "masked", None: "unsure", False: "fine"}[beyond]


def signs(*floors: tuple[str, float, float]) -> list[Indicator]:
    return [Indicator(name, floor, floor, high, floor) for name, floor, high in floors]


def test_the_verdict_follows_from_the_signs() -> None:
    fine, open_ = (SQUARE, 0.0, 0.0), ("the gradient is 0", 0.0, 1.0)
    masked, high = ("noise beats plain PGD", 0.9, 1.0), (OVERSTATED, 0.9, 1.0)
    assert verdict(signs(fine), steady=True) == "genuine"
    assert verdict(signs(fine), steady=False) == "inconclusive"
    assert verdict(signs(fine, open_), steady=True) == "inconclusive"
    assert verdict(signs(fine, open_, masked), steady=False) == "masked"
    assert verdict(signs(fine, high), steady=True) == "inconclusive"
    assert verdict(signs(high, masked), steady=True) == "masked"
    assert signs(high)[0].word == "too high"
    # Half-trained robust networks: the battery together takes more, and no attack stands out.
    battery = (BATTERY, 0.2, 0.31)
    assert verdict(signs(fine, battery, high), steady=True) == "inconclusive"
    assert verdict(signs(fine, battery, masked), steady=True) == "masked"
    assert signs(battery)[0].word == "too high"
