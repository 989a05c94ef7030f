"""Smallest maximum eigenvalue averaging: the rows that vary least in their worst direction."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, islice
from typing import Literal

import torch
from torch import Tensor

from fedrobust.aggregators.aggregator import Aggregation, Context, selected
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.dispatch import row_mean, squared_distances
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.typing import Indices, Updates, Vector

_MOST = 1e9
"""The largest allowed C(n, f) (n − f)³, the total work: some seconds."""
_BATCH = 1 << 20
"""Matrix entries computed at once."""
_TIE = 1e-10
"""Eigenvalues whose relative difference is smaller than this are equal but for rounding."""


@component
class SmallestMaximumEigenvalueAveraging:
    """The mean of the n − f rows whose covariance has the least largest eigenvalue.

    SMEA: the least λ_max of Σ (xᵢ − x̄_S)(xᵢ − x̄_S)ᵀ / |S| over all sets S of n − f rows; n > 2f
    rows, so that every set holds a benign row and the selected set cannot be Byzantine alone. All
    C(n, f) sets are tried, which needs C(n, f) (n − f)³ <= 10⁹: n = 51 allows f <= 2, n = 20 any f.
    λ_max is computed from the set's centred Gram matrix, [n − f, n − f]. Sets that agree to one
    part in 10¹⁰ tie, and the one with the lowest indices wins.

    Raises: ``ValueError`` for invalid updates, n <= 2f, or C(n, f) (n − f)³ > 10⁹.

    Reference: Allouah, Guerraoui, Gupta, Pinot, Stephan, On the Privacy-Robustness-Utility Trilemma
    in Distributed Learning, ICML 2023.

    Cost: O(n²·d): a Gram matrix; then C(n, f) eigenvalue problems of size n − f.

    Example: ``{name: smallest-maximum-eigenvalue-averaging, f: 2}``
    """

    f: Size
    name: Literal["smallest-maximum-eigenvalue-averaging"] = "smallest-maximum-eigenvalue-averaging"
    select = selected

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the mean [d] of the selected rows of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the mean of the selected rows, and their indices."""
        updates = validated(self, updates, context)
        kept = least_varying(squared_distances(updates), len(updates) - self.f)
        return Aggregation(row_mean(updates, rows=kept), kept)

    def check(self, n: int) -> None:
        """Require n > 2f and C(n, f) (n − f)³ <= 10⁹. Raises: ``ValueError`` otherwise."""
        require(self, n, 2 * self.f + 1, "n > 2f", self.f)
        sets = math.comb(n, self.f)
        if sets > 1 and sets * (n - self.f) ** 3 > _MOST:
            raise ValueError(
                "SmallestMaximumEigenvalueAveraging tries all C(n, f) sets of n - f rows, and "
                f"needs C(n, f) (n - f)^3 <= 10^9: n = {n}, f = {self.f} have {sets:,} sets; "
                "use Bucketing around it, or MinimumDiameterAveraging, which has no such limit"
            )

    def tolerating(self, dropped: int) -> "SmallestMaximumEigenvalueAveraging":
        """Return the rule with f lowered to max(0, f - dropped)."""
        return replace(self, f=max(0, self.f - dropped))


def least_varying(distances: Tensor, m: int) -> Indices:
    """Return the m rows, ascending, whose covariance has the least largest eigenvalue."""
    best, kept = torch.inf, torch.arange(m)
    for sets in batches(len(distances), m):
        largest = largest_eigenvalues(distances, sets.to(distances.device))
        if float(largest.min()) < best * (1 - _TIE):
            best = float(largest.min())
            kept = sets[int((largest <= best * (1 + _TIE)).int().argmax())]
    return kept.to(distances.device)


def largest_eigenvalues(distances: Tensor, sets: Tensor) -> Tensor:
    """Return λ_max of each set's scatter Σ (xᵢ − x̄)(xᵢ − x̄)ᵀ: [sets]; ∞ for huge distances.

    The Gram matrix, centred on the set's mean, is −½ J D J, with D the squared distances and
    J = I − 11ᵀ/m. No offset that the rows share can spoil it.
    """
    within = distances[sets[:, :, None], sets[:, None, :]]
    # Sums of distances above this limit could overflow.
    most = torch.finfo(within.dtype).max / (4 * within.shape[1])
    unknown = (within > most).any(dim=2).any(dim=1)
    within = torch.where(unknown[:, None, None], 0, within)
    means = within.mean(dim=2, keepdim=True)
    scatter = (means + means.mT - within - means.mean(dim=1, keepdim=True)) / 2
    return torch.where(unknown, torch.inf, torch.linalg.eigvalsh(scatter)[:, -1].clamp(min=0))


def batches(n: int, m: int) -> Iterator[Tensor]:
    """Yield all sets of m of n rows, in the order of their indices, in batches [sets, m]."""
    every = combinations(range(n), m)
    while some := list(islice(every, max(1, _BATCH // (m * m)))):
        yield torch.tensor(some)
