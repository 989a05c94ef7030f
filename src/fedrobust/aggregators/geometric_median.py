"""The geometric median, by smoothed Weiszfeld iterations on the weights of the rows."""

from typing import Literal

import torch
from torch import Tensor

from fedrobust.aggregators.aggregator import Aggregation, Context, NoAnswerError
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.dispatch import row_mean, squared_distances
from fedrobust.aggregators.kernels.products import gram, weights
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Flag, Positive
from fedrobust.typing import Indices, Updates, Vector

_FAR = 2.0**60
"""A row so many times farther away than half of the others pulls as from here: in one direction."""


@component
class GeometricMedian:
    """The point with the least sum of distances to the rows: argmin_v Σ wᵢ ‖v − xᵢ‖, Σ wᵢ = 1.

    Weiszfeld: v ← Σ aᵢ xᵢ / Σ aᵢ with aᵢ = wᵢ / max(‖v − xᵢ‖, ν), until the rows' mean pull
    ‖Σ aᵢ (v − xᵢ)‖ is at most ``tolerance``; then v is the exact minimiser (of the smoothed sum)
    once one more row of weight ``tolerance`` is added, and no point z has a mean distance smaller
    by more than tolerance · ‖v − z‖ + ν/4. After ``iterations`` steps it answers with what it has;
    the sum fell at each. ν is ``smoothing`` times the distance from a central row that half of
    the weight lies within. A row that is a minimiser itself is the answer, exactly; where several
    are (then all minimisers lie on a line between two), the mean of the different ones, which in
    one dimension is the median. n >= 1 rows; harm is bounded while less than half of the weight is
    Byzantine. ``weighted``: wᵢ by the server's own sample counts when given, else all equal.

    Raises: ``ValueError`` for unfit updates, or float64 rows of which half lie 1e150 apart.

    References: Weiszfeld, Tohoku Mathematical Journal 43, 1937; Pillutla, Kakade, Harchaoui, Robust
    Aggregation for Federated Learning, IEEE Transactions on Signal Processing 70, 2022.

    Differences from the paper: ν is relative to the rows' spread, so that the rule moves and scales
    with them, and is not reached where a row is the minimiser; convergence decides, not a number of
    steps; the paper always weighs by sample counts, here a client's count gives it no more say
    unless asked for. The distance to a row beyond 2⁶⁰ spreads is cut there, below all rounding.

    Cost: O(n²·d): distances and a Gram matrix; O(n²) an iteration.

    Example: ``{name: geometric-median}``
    """

    tolerance: Positive = 1e-8
    smoothing: Positive = 1e-6
    iterations: Count = 1000
    weighted: Flag = False
    name: Literal["geometric-median"] = "geometric-median"

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """The geometric median [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """The vector alone: it selects no rows and has no memory."""
        updates = validated(self, updates, context)
        shares = torch.ones(len(updates), dtype=torch.float64, device=updates.device)
        if self.weighted and context.counts is not None:
            shares = weights(context.counts, updates)
        shares = shares / shares.sum()

        distances = squared_distances(updates).sqrt()
        # With less than half of the weight far away, the least sum is that of a row in the crowd.
        centre = int((distances.clamp(max=1e150) @ shares).argmin())
        spread = upper_median(distances[centre], shares)
        if spread == 0:
            return Aggregation(updates[centre].clone())
        if spread == torch.inf:
            raise NoAnswerError("GeometricMedian: half of the rows lie more than 1e150 apart")

        lengths = lengths_from(updates, centre, distances[centre])
        products = gram(updates, centre, lengths)
        distances = (distances / spread).clamp(max=_FAR)
        minimisers = optimal_rows(products, distances, centre, shares, self.tolerance)
        if len(minimisers) == 1:
            return Aggregation(updates[int(minimisers)].clone())
        if len(minimisers) > 1:
            return Aggregation(row_mean(updates, rows=minimisers))
        found = self._weiszfeld(products, distances[centre], shares)
        # Of a row that was pulled in to _FAR, only this much; the rest is the central row.
        found = found * distances[centre] * (spread / lengths)
        found[centre] += 1 - found.sum()
        return Aggregation(row_mean(updates, found))

    def check(self, n: int) -> None:
        """Raises: ``ValueError`` without rows."""
        require(self, n, 1, "n >= 1")

    def tolerating(self, dropped: int) -> "GeometricMedian":
        """Itself: it has no number of tolerated rows to lower."""
        return self

    def _weiszfeld(self, products: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
        """The β [n], Σ β = 1, of v = Σ βᵢ xᵢ; ``lengths`` are the rows' own, in spreads.

        The rows are ℓᵢ yᵢ as seen from the central one, and ``products`` the Gram matrix of the
        yᵢ, so a distance is ‖Σ βⱼ ℓⱼ yⱼ − ℓᵢ yᵢ‖. The first step leaves out the central row itself,
        on which a start would stick.
        """
        shares = torch.where(lengths > 0, weights / lengths, 0)
        place = shares / shares.sum() * lengths
        for _ in range(self.iterations):
            seen = products @ place
            squares = place @ seen - 2 * lengths * seen + lengths**2 * products.diagonal()
            pulls = weights / squares.clamp(min=0).sqrt().clamp(min=self.smoothing)
            shares = pulls / pulls.sum()
            step = shares * lengths - place
            place = place + step
            # The step is the mean pull over Σ a; as a difference of weights it keeps its digits.
            if (step @ products @ step).clamp(min=0).sqrt() * pulls.sum() <= self.tolerance:
                break
        return shares


def upper_median(values: Tensor, weights: Tensor) -> Tensor:
    """The least value up to which more than half of the weight lies."""
    ordered, order = values.sort()
    # Weights of exactly one half may sum to a little more.
    return ordered[int((weights[order].cumsum(dim=0) > 0.5 + 1e-12).int().argmax())]


def lengths_from(updates: Updates, centre: int, distances: Tensor) -> Tensor:
    """A positive, finite length [n] near that of each row as seen from row ``centre``."""
    if distances.isinf().any():
        low, high = torch.aminmax(updates, dim=1)
        greatest = torch.maximum(-low, high).double()
        most = torch.finfo(torch.float64).max
        distances = torch.where(distances.isinf(), greatest + greatest[centre], distances)
        distances = distances.clamp(max=most)
    return torch.where(distances > 0, distances, 1.0)


def optimal_rows(
    products: Tensor, distances: Tensor, centre: int, weights: Tensor, tolerance: float
) -> Indices:
    """The different rows that are minimisers: the others pull each with no more than its weight.

    That is ‖Σ wᵢ (xᵢ − xₖ) / ‖xᵢ − xₖ‖‖ ≤ Σ wᵢ over the rows equal to k, up to ``tolerance``; no
    row counts of which rounding might hide that it is none.
    """
    apart = distances > 0
    pulls = torch.where(apart, weights / distances, 0)
    lengths = distances[centre]
    places = pulls * lengths
    places.diagonal().sub_(lengths * pulls.sum(dim=1))
    squares = (places @ products * places).sum(dim=1).clamp(min=0)
    rounding = 1e-15 * places.abs().sum(dim=1) ** 2
    own = (~apart).double() @ weights
    optimal = (squares + rounding).sqrt() <= own + tolerance
    repeated = (~apart & optimal).tril(diagonal=-1).any(dim=1)
    return (optimal & ~repeated).nonzero()[:, 0]
