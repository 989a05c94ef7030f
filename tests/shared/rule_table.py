"""One row for each rule, and the matrices that all are tried on.

A new rule is one row of ``RULES``; its naive definition goes to ``rule_oracles``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import rule_oracles as oracles
import torch
from torch import Tensor

from fedrobust.aggregators import (
    Aggregation,
    Bucketing,
    Bulyan,
    CenteredClipping,
    Context,
    FLTrust,
    GeometricMedian,
    Krum,
    Mean,
    MeanAroundMedian,
    Median,
    MinimumDiameterAveraging,
    MultiKrum,
    NearestNeighborMixing,
    NormBound,
    SmallestMaximumEigenvalueAveraging,
    TrimmedMean,
)


@dataclass(frozen=True)
class Rule:
    make: Callable[[int], Any]
    oracle: oracles.Oracle
    least: Callable[[int], int]
    """The fewest rows for f."""
    same_bits: bool = True
    """Whether rows in another order give the same bits."""
    stretch: float | None = None
    """How far, in widths of the benign range, a coordinate may leave it; None: not claimed."""
    robust: bool = True
    length: str | None = None
    """Which field is in update units: the rule scales with it, and has an origin."""
    origin: bool = False
    """Whether it knows where 0 is, so that it neither moves with the rows nor keeps equal ones."""
    ordered: bool = False
    """Whether the order of the rows decides as a draw does."""
    rounds: bool = False
    """Whether it rounds rows on the way."""
    sets: bool = False
    """Whether the oracle tries every set of n - f rows."""
    ties: bool = True
    """Whether its answer is that of the definition whatever ties."""
    context: Callable[[Tensor], Context] = lambda updates: Context()

    def aggregate(self, f: int, updates: Tensor) -> Aggregation:
        return self.make(f).aggregate(updates, self.context(updates))

    def __call__(self, f: int, updates: Tensor) -> Tensor:
        return self.aggregate(f, updates).vector


RULES: dict[str, Rule] = {
    "mean": Rule(lambda f: Mean(), oracles.mean, lambda f: 1, same_bits=False, robust=False),
    "median": Rule(lambda f: Median(), oracles.median, lambda f: 2 * f + 1, stretch=0),
    "trimmed-mean": Rule(TrimmedMean, oracles.trimmed_mean, lambda f: 2 * f + 1, stretch=0),
    "mean-around-median": Rule(
        MeanAroundMedian, oracles.mean_around_median, lambda f: 2 * f + 1, stretch=1
    ),
    "krum": Rule(Krum, oracles.krum, lambda f: 2 * f + 3),
    "multi-krum": Rule(MultiKrum, oracles.multi_krum, lambda f: 2 * f + 3, same_bits=False),
    "bulyan": Rule(Bulyan, oracles.bulyan, lambda f: 4 * f + 3, stretch=1),
    "bulyan-n-2f": Rule(
        lambda f: Bulyan(f, second_stage="n-2f"),
        oracles.mean_of_bulyans_rows,
        lambda f: 4 * f + 3,
        same_bits=False,
    ),
    "geometric-median": Rule(
        lambda f: GeometricMedian(),
        oracles.geometric_median,
        lambda f: 2 * f + 1,
        same_bits=False,
        ties=False,
    ),
    "centered-clipping": Rule(
        lambda f: CenteredClipping(oracles.RADIUS, iterations=3),
        oracles.centered_clipping,
        lambda f: 2 * f + 1,
        same_bits=False,
        length="radius",
        origin=True,
    ),
    "norm-bound": Rule(
        lambda f: NormBound(oracles.RADIUS),
        oracles.norm_bound,
        lambda f: 2 * f + 1,
        same_bits=False,
        length="bound",
        origin=True,
    ),
    "minimum-diameter-averaging": Rule(
        MinimumDiameterAveraging,
        oracles.minimum_diameter,
        lambda f: 2 * f + 1,
        same_bits=False,
        sets=True,
    ),
    "smallest-maximum-eigenvalue-averaging": Rule(
        SmallestMaximumEigenvalueAveraging,
        oracles.smallest_eigenvalue,
        lambda f: 2 * f + 1,
        same_bits=False,
        sets=True,
    ),
    "fl-trust": Rule(
        lambda f: FLTrust(),
        oracles.fl_trust,
        lambda f: 2 * f + 1,
        same_bits=False,
        origin=True,
        ties=False,
        context=lambda updates: Context(root=Median()(updates.double())),
    ),
    "nearest-neighbor-mixing": Rule(
        lambda f: NearestNeighborMixing(f, TrimmedMean(f)),
        oracles.mixed_trimmed_mean,
        lambda f: 2 * f + 1,
        same_bits=False,
        rounds=True,
    ),
    "bucketing": Rule(
        lambda f: Bucketing(2, TrimmedMean(f)),
        oracles.bucketed_trimmed_mean,
        lambda f: 4 * f + 1,
        ordered=True,
        rounds=True,
    ),
}
BOUNDED = {name: rule for name, rule in RULES.items() if rule.stretch is not None}
TYING = {name: rule for name, rule in RULES.items() if rule.ties}
MOVING = {name: rule for name, rule in RULES.items() if not rule.origin}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def most_f(rule: Rule, n: int) -> int:
    return max(f for f in range(n) if rule.least(f) <= n and feasible(rule, n, f))


def feasible(rule: Rule, n: int, f: int) -> bool:
    return not rule.sets or math.comb(n, f) <= 1000


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def with_outliers(n: int, d: int, f: int, size: float = 1e30) -> Tensor:
    """f rows of ±``size``, no two alike in size, scattered among ordinary ones."""
    updates = normal(n, d)
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(n))[:f]
    sizes = size * (1 + torch.arange(len(rows)) / n)[:, None]
    updates[rows] = sizes * normal(len(rows), d, seed=1).sign()
    return updates


def heavy_tailed(n: int, d: int) -> Tensor:
    return normal(n, d) / normal(n, d, seed=1).abs().clamp(min=1e-6)


MATRICES: dict[str, Callable[[int, int, int], Tensor]] = {
    "normal": lambda n, d, f: normal(n, d),
    "heavy-tails": lambda n, d, f: heavy_tailed(n, d),
    "duplicates": lambda n, d, f: normal(3, d)[torch.arange(n) * 7 % 5 % 3],
    "signs": lambda n, d, f: 1e-3 * normal(n, d).sign(),
    "grid": lambda n, d, f: normal(n, d).round(),
    "offset": lambda n, d, f: 1e3 + 1e-3 * normal(n, d),
    "tiny": lambda n, d, f: 1e-20 * normal(n, d),
    "large": lambda n, d, f: 1e15 * normal(n, d),
    "outliers": with_outliers,
    "zeros": lambda n, d, f: torch.zeros(n, d),
}
