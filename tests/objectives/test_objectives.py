"""How many examples are perturbed, and when."""

import math
from fractions import Fraction

import pytest

from fedrobust.errors import ConfigError
from fedrobust.objectives import ERM, Adversarial, Phase
from fedrobust.perturb import Pgd

PGD = Pgd(eps=0.3, step_size=0.01, steps=1)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.145, 0.29, 0.35, 0.5, 0.7, 0.8, 1.0])
def test_counts_are_those_of_the_decimal_ratio(ratio: float) -> None:
    """⌊ratio · N + ½⌋ of the number as written: 0.145 · 100 is 14.5, which floats put below."""
    objective = Adversarial(ratio=ratio, attack=PGD)
    for n in range(1, 201):
        exact = math.floor(Fraction(str(ratio)) * n + Fraction(1, 2))
        assert objective.perturbed(n, 1) == exact
    assert Adversarial(ratio=0.145, attack=PGD).perturbed(100, 1) == 15


def test_a_switch_at_round_200_begins_with_201() -> None:
    phases = (Phase(0.1, until=200), Phase(0.5, until=300), Phase(0.8))
    objective = Adversarial(ratio=phases, attack=PGD)
    counts = [objective.perturbed(10, r) for r in (1, 199, 200, 201, 300, 301, 2500)]
    assert counts == [1, 1, 1, 5, 5, 8, 8]


def test_erm_perturbs_nothing() -> None:
    assert ERM().perturbed(64, 1) == 0


@pytest.mark.parametrize(
    "phases",
    [(), (Phase(0.1, 5),), (Phase(0.1), Phase(0.2)), (Phase(0.1, 9), Phase(0.2, 9), Phase(0.3))],
)
def test_a_schedule_that_does_not_cover_every_round_once_is_refused(
    phases: tuple[Phase, ...],
) -> None:
    with pytest.raises(ConfigError, match="every phase but the last"):
        Adversarial(ratio=phases, attack=PGD)
