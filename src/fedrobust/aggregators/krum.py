"""Krum and Multi-Krum: the rows nearest to their neighbours."""

from typing import Literal

import torch
from torch import Tensor

from fedrobust.aggregators.kernels import row_mean, squared_distances
from fedrobust.aggregators.rule import Aggregation, Context, require, validated
from fedrobust.component import Count, Size, component
from fedrobust.typing import Indices, Updates, Vector

_TIE = 1e-12
"""Scores that differ by a smaller share are equal but for rounding: distances err by 1e-13."""


@component
class Krum:
    """The row with the least sum of squared distances to its n − f − 2 nearest others.

    s(i) = Σ ‖xᵢ − xⱼ‖² over the n − f − 2 rows j ≠ i nearest to i; the answer is x_{argmin s},
    exactly as it was sent; n >= 2f + 3 rows. Scores are float64 and summed from the smallest
    distance up; those that agree to one part in 10¹² tie, and the lowest index wins.

    Raises: ``ValueError`` for unfit updates, or n < 2f + 3.

    Reference: Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent, NeurIPS 2017. Published implementations also count the row itself, take n − f
    neighbours, or sum unsquared distances; those choose other rows.
    """

    f: Size
    name: Literal["krum"] = "krum"

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """The selected row [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """The selected row and its index."""
        updates = validated(self, updates, context)
        kept = best(krum_scores(updates, self.f), 1)
        return Aggregation(updates[int(kept)].clone(), kept)

    def check(self, n: int) -> None:
        """Raises: ``ValueError`` unless n >= 2f + 3."""
        require(self, n, 2 * self.f + 3, "n >= 2f + 3", self.f)

    def tolerating(self, dropped: int) -> "Krum":
        """The rule with f lowered to max(0, f - dropped)."""
        return Krum(max(0, self.f - dropped))


@component
class MultiKrum:
    """The mean of the m rows with the best Krum scores; m = n − f − 2 unless given.

    Scores, ties and the condition n >= 2f + 3 are those of ``Krum``, which is the case m = 1.

    Raises: ``ValueError`` for unfit updates, n < 2f + 3, or m > n.

    Reference: Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent, NeurIPS 2017, section 5.
    """

    f: Size
    m: Count | None = None
    name: Literal["multi-krum"] = "multi-krum"

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """The mean [d] of the selected rows of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """The mean of the selected rows, and their indices."""
        updates = validated(self, updates, context)
        m = len(updates) - self.f - 2 if self.m is None else self.m
        kept = best(krum_scores(updates, self.f), m)
        return Aggregation(row_mean(updates, rows=kept), kept)

    def check(self, n: int) -> None:
        """Raises: ``ValueError`` unless n >= 2f + 3 and n >= m."""
        require(self, n, 2 * self.f + 3, "n >= 2f + 3", self.f)
        if self.m is not None:
            require(self, n, self.m, f"n >= m = {self.m}", self.f)

    def tolerating(self, dropped: int) -> "MultiKrum":
        """The rule with f lowered to max(0, f - dropped).

        A given m stays: it is a choice of the server, and ``check`` refuses it once fewer than m
        rows remain. The default m = n − f − 2 follows n and f.
        """
        return MultiKrum(max(0, self.f - dropped), self.m)


def krum_scores(updates: Updates, f: int) -> Tensor:
    """The sum of each row's n − f − 2 least squared distances to other rows: [n], float64."""
    nearest, _ = nearest_first(squared_distances(updates))
    return nearest[:, : len(updates) - f - 2].sum(dim=1)


def nearest_first(distances: Tensor) -> tuple[Tensor, Indices]:
    """Each row's distances [n, n - 1] to the others, ascending, and whose they are."""
    n = len(distances)
    rows = torch.arange(n, device=distances.device)
    others = rows != rows[:, None]
    nearest, order = distances[others].view(n, n - 1).sort(dim=1, stable=True)
    return nearest, rows.expand(n, n)[others].view(n, n - 1).gather(1, order)


def best(scores: Tensor, m: int) -> Indices:
    """The indices, ascending, of the m least scores; of scores that tie, the lowest indices."""
    last = scores.kthvalue(m).values
    surely = scores < last * (1 - _TIE)
    tied = (scores <= last * (1 + _TIE)) & ~surely
    places = m - surely.sum()
    return (surely | (tied & (tied.cumsum(dim=0) <= places))).nonzero()[:, 0]
