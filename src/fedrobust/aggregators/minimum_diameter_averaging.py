"""Minimum diameter averaging: the mean of the rows that lie closest together."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fedrobust.aggregators.aggregator import Aggregation, Context, NoAnswerError, selected
from fedrobust.aggregators.checks import require
from fedrobust.aggregators.kernels.dispatch import row_mean
from fedrobust.aggregators.kernels.ranking import nearest_first, ranked
from fedrobust.aggregators.kernels.vertex_cover import Graph, Search
from fedrobust.aggregators.selection import by_selection
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.typing import Indices, Updates, Vector

_TIE = 1e-12
"""Distances whose relative difference is smaller than this are equal but for rounding."""


@component
class MinimumDiameterAveraging:
    """The mean of the n − f rows whose largest pairwise distance is least.

    argmin over sets S of n − f rows of max ‖xᵢ − xⱼ‖, i, j in S; n > 2f rows, so that every set
    holds a benign row and the selected set cannot be Byzantine alone. Several sets nearly always
    share the least diameter, since one pair decides it. Of these sets, the rule takes the one with
    the best-ranked row that any of them holds, then with the next best, and so on. Rows are ranked
    by the sum of squared distances to the n − f − 1 nearest others. Distances, and scores, that
    agree to one part in 10¹² tie; rows that tie rank by index.

    The search is exact. Some n − f rows have a diameter <= t exactly where f rows can be removed
    such that no pair farther apart than t remains. Such f rows are a vertex cover. A binary search
    finds the least t, and a bounded search for a cover answers each of its steps. This is fast
    unless very many sets nearly win.

    Raises: ``ValueError`` for invalid updates, n <= 2f, or where the search would take too long.

    References: Rousseeuw, Multivariate Estimation with High Breakdown Point, 1985; El Mhamdi et
    al., The Hidden Vulnerability of Distributed Learning in Byzantium, ICML 2018 (as "Brute").

    Differences from the papers: they do not say which of several sets is taken.

    Cost: O(n²·d): the distances; then a search that is exponential in f in the worst case.

    Example: ``{name: minimum-diameter-averaging, f: 4}``
    """

    f: Size
    name: Literal["minimum-diameter-averaging"] = "minimum-diameter-averaging"
    select = selected

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the mean [d] of the selected rows of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the mean of the selected rows, and their indices."""
        return by_selection(self, updates, context)

    def chosen(self, distances: Tensor) -> Indices:
        """Return the n − f indices, ascending, that these squared distances [n, n] select.

        Raises: ``NoAnswerError`` where the search would take too long.
        """
        try:
            return least_diameter(distances, self.f)
        except RecursionError:
            raise NoAnswerError(
                f"MinimumDiameterAveraging: among n = {len(distances)} rows with f = {self.f} too "
                "many sets nearly win for an exact search; use a smaller f, or "
                "NearestNeighborMixing around another rule, which needs no search"
            ) from None

    def combined(self, updates: Updates, kept: Indices) -> Vector:
        """Return the mean of the rows ``kept``."""
        return row_mean(updates, rows=kept)

    def check(self, n: int) -> None:
        """Require n > 2f. Raises: ``ValueError`` otherwise."""
        require(self, n, 2 * self.f + 1, "n > 2f", self.f)

    def tolerating(self, dropped: int) -> "MinimumDiameterAveraging":
        """Return the rule with f lowered to max(0, f - dropped)."""
        return replace(self, f=max(0, self.f - dropped))


def least_diameter(distances: Tensor, f: int) -> Indices:
    """Return the n − f rows, ascending, of the set that ``MinimumDiameterAveraging`` defines."""
    n = len(distances)
    pairs = distances[torch.ones(n, n, dtype=torch.bool).triu(diagonal=1)]
    limits = torch.cat([distances.new_zeros(1), pairs]).sort().values
    search = Search()
    low, high = 0, len(limits) - 1
    while low < high:
        middle = (low + high) // 2
        if search.coverable(_farther(distances, limits[middle]), f):
            high = middle
        else:
            low = middle + 1
    conflicts = _farther(distances, limits[low])

    scores = nearest_first(distances)[0][:, : n - f - 1].sum(dim=1)
    kept = search.keeping_first(conflicts, f, ranked(scores).tolist())
    return torch.tensor(sorted(kept), device=distances.device)


def _farther(distances: Tensor, limit: Tensor) -> Graph:
    """Return which pairs are farther apart than ``limit``: one bit set for each row."""
    apart = (distances > limit * (1 + _TIE)).tolist()
    return [sum(1 << j for j, far in enumerate(row) if far) for row in apart]
