"""The mean: no defence, and the baseline of every defence."""

from typing import ClassVar, Literal

from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.dispatch import row_mean
from fedrobust.aggregators.kernels.products import weights
from fedrobust.config.component import component
from fedrobust.typing import Updates, Vector


@component
class Mean:
    """The mean of the rows, weighted by the server's own sample counts where the context has them.

    Σ cᵢ xᵢ / Σ cᵢ, with cᵢ = 1 where the context has no counts; n >= 1 rows. One Byzantine row can
    move the mean anywhere. The sum is taken in float64 in the order of the rows, so another order
    may change the last bit of the result; for float32 rows it hardly ever does.

    Raises: ``ValueError`` for invalid updates or counts.

    Reference: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized
    Data, AISTATS 2017.

    Cost: O(n·d).

    Example: ``{name: mean}``
    """

    name: Literal["mean"] = "mean"
    by_coordinate: ClassVar[bool] = True

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the weighted mean [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the vector alone: the rule selects no rows and has no memory."""
        updates = validated(self, updates, context)
        counts = None if context.counts is None else weights(context.counts, updates)
        return Aggregation(row_mean(updates, counts))

    def check(self, n: int) -> None:
        """Require n >= 1. Raises: ``ValueError`` otherwise."""
        require(self, n, 1, "n >= 1")

    def tolerating(self, dropped: int) -> "Mean":
        """Return the rule itself: it tolerates no Byzantine row, with or without dropped rows."""
        return self
