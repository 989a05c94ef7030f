"""Norm bounding: the mean of rows whose norm is limited."""

from typing import Literal

import torch

from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.products import combination, norms, weights
from fedrobust.config.component import component
from fedrobust.config.scalars import Positive
from fedrobust.typing import Updates, Vector


@component
class NormBound:
    """The mean of the rows, each scaled down to a norm of at most ``bound``.

    Σ cᵢ xᵢ min(1, bound / ‖xᵢ‖₂) / Σ cᵢ, with c the server's own sample counts, or 1 where the
    context has none; n >= 1 rows. The bound is in update units. No row moves the mean by more than
    its share of 2·bound, but no row is rejected.

    Raises: ``ValueError`` for invalid updates or counts.

    Reference: Sun, Kairouz, Suresh, McMahan, Can You Really Backdoor Federated Learning?, 2019.

    Differences from the paper: no noise is added after the mean.

    Cost: O(n·d).

    Example: ``{name: norm-bound, bound: 1.0}``
    """

    bound: Positive
    name: Literal["norm-bound"] = "norm-bound"

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the mean [d] of the bounded rows of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the vector alone: the rule selects no rows and has no memory."""
        updates = validated(self, updates, context)
        shares = torch.ones(len(updates), dtype=torch.float64, device=updates.device)
        if context.counts is not None:
            shares = weights(context.counts, updates)
        shares = shares / shares.sum()
        clipped = shares * (self.bound / norms(updates)).clamp(max=1)
        return Aggregation(combination(clipped, updates).to(updates.dtype))

    def check(self, n: int) -> None:
        """Require n >= 1. Raises: ``ValueError`` otherwise."""
        require(self, n, 1, "n >= 1")

    def tolerating(self, dropped: int) -> "NormBound":
        """Return the rule itself: it has no number of tolerated rows to lower."""
        return self
