"""Krum and Multi-Krum: select the rows nearest to their neighbours."""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from fedrobust.aggregators.aggregator import Aggregation, Aggregator, Context, selected
from fedrobust.aggregators.checks import require
from fedrobust.aggregators.kernels.dispatch import row_mean
from fedrobust.aggregators.kernels.ranking import best, nearest_first
from fedrobust.aggregators.selection import by_selection
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Size
from fedrobust.typing import Indices, Updates, Vector

Neighbours = Literal["n-f-2", "n-f-1"]
"""How many other rows a score counts: the paper's n − f − 2, or one more."""


@component
class Krum:
    """The row with the least sum of squared distances to its n − f − 2 nearest others.

    s(i) = Σ ‖xᵢ − xⱼ‖² over the n − f − 2 rows j ≠ i nearest to i. The answer is x_{argmin s},
    exactly as it was sent; n >= 2f + 3 rows. Scores are float64 and summed from the smallest
    distance up. Scores that agree to one part in 10¹² tie, and the lowest index wins.

    ``neighbours: n-f-1`` is the variant of Allouah et al. and of ByzFL, which take the n − f
    nearest rows including the row itself, at distance 0; n > 2f rows.

    Raises: ``ValueError`` for invalid updates, n < 2f + 3, or n <= 2f for the variant.

    References: Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent, NeurIPS 2017; Allouah et al., Fixing by Mixing, AISTATS 2023. Some published
    implementations count the row itself among the n − f − 2, or sum distances that are not squared;
    they select other rows.

    Cost: O(n²·d): the distances; [n, n] in float64.

    Example: ``{name: krum, f: 24}``
    """

    f: Size
    neighbours: Neighbours = "n-f-2"
    name: Literal["krum"] = "krum"
    select = selected

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the selected row [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the selected row and its index."""
        return by_selection(self, updates, context)

    def chosen(self, distances: Tensor) -> Indices:
        """Return the index [1] of the row that these squared distances [n, n] select."""
        return best(krum_scores(distances, self.f, self.neighbours), 1)

    def combined(self, updates: Updates, kept: Indices) -> Vector:
        """Return the selected row itself."""
        return updates[int(kept)].clone()

    def check(self, n: int) -> None:
        """Require n >= 2f + 3, or n > 2f for the variant. Raises: ``ValueError`` otherwise."""
        require_krum(self, n, self.f, self.neighbours)

    def tolerating(self, dropped: int) -> "Krum":
        """Return the rule with f lowered to max(0, f - dropped)."""
        return replace(self, f=max(0, self.f - dropped))


@component
class MultiKrum:
    """The mean of the m rows with the best Krum scores; by default m = n − f − 2.

    Scores, ties, the condition and ``neighbours`` are the same as in ``Krum``, which is the case
    m = 1. With ``neighbours: n-f-1`` the default is m = n − f, as in Allouah et al.

    Raises: ``ValueError`` for invalid updates, n < 2f + 3 (n <= 2f for the variant), or m > n.

    References: Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent, NeurIPS 2017, section 5; Allouah et al., Fixing by Mixing, AISTATS 2023.

    Cost: O(n²·d): the distances; [n, n] in float64.

    Example: ``{name: multi-krum, f: 12, m: 10}``
    """

    f: Size
    m: Count | None = None
    neighbours: Neighbours = "n-f-2"
    name: Literal["multi-krum"] = "multi-krum"
    select = selected

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the mean [d] of the selected rows of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the mean of the selected rows, and their indices."""
        return by_selection(self, updates, context)

    def chosen(self, distances: Tensor) -> Indices:
        """Return the indices [m], ascending, that these squared distances [n, n] select."""
        paper = self.neighbours == "n-f-2"
        m = len(distances) - self.f - (2 if paper else 0) if self.m is None else self.m
        return best(krum_scores(distances, self.f, self.neighbours), m)

    def combined(self, updates: Updates, kept: Indices) -> Vector:
        """Return the mean of the rows ``kept``."""
        return row_mean(updates, rows=kept)

    def check(self, n: int) -> None:
        """Require n >= m, and n >= 2f + 3 or n > 2f for the variant. Raises: ``ValueError``."""
        require_krum(self, n, self.f, self.neighbours)
        if self.m is not None:
            require(self, n, self.m, f"n >= m = {self.m}", self.f)

    def tolerating(self, dropped: int) -> "MultiKrum":
        """Return the rule with f lowered to max(0, f - dropped).

        A given m stays, because it is the server's choice; ``check`` refuses it once fewer than m
        rows remain. The default m follows n and f.
        """
        return replace(self, f=max(0, self.f - dropped))


def require_krum(rule: Aggregator, n: int, f: int, neighbours: Neighbours) -> None:
    """Require n >= 2f + 3, or n > 2f for the variant ``n-f-1``. Raises: ``ValueError``."""
    if neighbours == "n-f-2":
        require(rule, n, 2 * f + 3, "n >= 2f + 3", f)
    else:
        require(rule, n, 2 * f + 1, "n > 2f", f)


def krum_scores(distances: Tensor, f: int, neighbours: Neighbours = "n-f-2") -> Tensor:
    """Return the sum of each row's least squared ``distances`` to other rows: [n], float64."""
    nearest, _ = nearest_first(distances)
    count = len(distances) - f - (2 if neighbours == "n-f-2" else 1)
    return nearest[:, :count].sum(dim=1)
