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
"""A row this many times farther away than half of the others pulls as if it were this far away."""


@component
class GeometricMedian:
    """The point with the least sum of distances to the rows: argmin_v Σ wᵢ ‖v − xᵢ‖, Σ wᵢ = 1.

    Weiszfeld: v ← Σ aᵢ xᵢ / Σ aᵢ with aᵢ = wᵢ / max(‖v − xᵢ‖, ν), until the mean pull of the rows,
    ‖Σ aᵢ (v − xᵢ)‖, is at most ``tolerance``. Then v is the exact minimiser (of the smoothed sum)
    once one more row of weight ``tolerance`` is added, and no point z has a mean distance smaller
    by more than tolerance · ‖v − z‖ + ν/4. After ``iterations`` steps the rule returns the current
    v; the sum fell in each step. ν is ``smoothing`` times the distance from a central row within
    which half of the weight lies. A row that is itself a minimiser is the answer, exactly. Where
    several rows are minimisers (then all minimisers lie on a line between two rows), the answer is
    the mean of the different ones; in one dimension this is the median. n >= 1 rows; the harm is
    bounded while less than half of the weight is Byzantine. With ``weighted``, wᵢ follows the
    server's own sample counts where the context has them; otherwise all wᵢ are equal.

    Raises: ``ValueError`` for invalid updates, or float64 rows of which half lie 1e150 apart.

    References: Weiszfeld, Tohoku Mathematical Journal 43, 1937; Pillutla, Kakade, Harchaoui, Robust
    Aggregation for Federated Learning, IEEE Transactions on Signal Processing 70, 2022.

    Differences from the paper: ν is relative to the spread of the rows, so that the rule moves and
    scales with them, and ν is not used where a row is the minimiser. Convergence ends the
    iteration, not a number of steps. The paper always weighs rows by sample counts; here sample
    counts have an effect only with ``weighted``. The distance to a row beyond 2⁶⁰ spreads is cut to
    that length, below all rounding.

    Cost: O(n²·d): distances and a Gram matrix; O(n²) for each iteration.

    Example: ``{name: geometric-median}``
    """

    tolerance: Positive = 1e-8
    smoothing: Positive = 1e-6
    iterations: Count = 1000
    weighted: Flag = False
    name: Literal["geometric-median"] = "geometric-median"

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the geometric median [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the vector alone: the rule selects no rows and has no memory."""
        updates = validated(self, updates, context)
        shares = torch.ones(len(updates), dtype=torch.float64, device=updates.device)
        if self.weighted and context.counts is not None:
            shares = weights(context.counts, updates)
        shares = shares / shares.sum()

        distances = squared_distances(updates).sqrt()
        # If less than half of the weight is far away, the row with the least sum is in the crowd.
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
        # A row that was pulled in to _FAR counts this much; the central row gets the rest.
        found = found * distances[centre] * (spread / lengths)
        found[centre] += 1 - found.sum()
        return Aggregation(row_mean(updates, found))

    def check(self, n: int) -> None:
        """Require n >= 1. Raises: ``ValueError`` otherwise."""
        require(self, n, 1, "n >= 1")

    def tolerating(self, dropped: int) -> "GeometricMedian":
        """Return the rule itself: it has no number of tolerated rows to lower."""
        return self

    def _weiszfeld(self, products: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
        """Return the β [n], Σ β = 1, of v = Σ βᵢ xᵢ; ``lengths`` are those of the rows, in spreads.

        Seen from the central row, the rows are ℓᵢ yᵢ, and ``products`` is the Gram matrix of the
        yᵢ, so a distance is ‖Σ βⱼ ℓⱼ yⱼ − ℓᵢ yᵢ‖. The first step leaves out the central row: an
        iteration that starts on a row stays there.
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
            # The step is the mean pull over Σ a; as a difference of weights it loses no digits.
            if (step @ products @ step).clamp(min=0).sqrt() * pulls.sum() <= self.tolerance:
                break
        return shares


def upper_median(values: Tensor, weights: Tensor) -> Tensor:
    """Return the least value such that more than half of the weight lies at or below it."""
    ordered, order = values.sort()
    # Weights whose sum is exactly one half may sum to a little more.
    return ordered[int((weights[order].cumsum(dim=0) > 0.5 + 1e-12).int().argmax())]


def lengths_from(updates: Updates, centre: int, distances: Tensor) -> Tensor:
    """Return a positive, finite length [n] near each row's distance from row ``centre``."""
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
    """Return the different rows that are minimisers: the others pull each at most with its weight.

    The condition is ‖Σ wᵢ (xᵢ − xₖ) / ‖xᵢ − xₖ‖‖ ≤ Σ wᵢ over the rows equal to k, up to
    ``tolerance``. A row counts only where rounding cannot be the reason that it meets the
    condition.
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
