"""The coordinate-wise median."""

from typing import ClassVar, Literal

from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.dispatch import middle_mean
from fedrobust.config.component import component
from fedrobust.typing import Updates, Vector


@component
class Median:
    """Per coordinate, the middle value; for even n, the mean of the two middle values.

    n >= 1 rows. While less than half of the rows are Byzantine, every coordinate stays between the
    least and the greatest benign value.

    Raises: ``ValueError`` for invalid updates.

    Reference: Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates,
    ICML 2018, definition 1.

    Cost: O(n log² n · d) comparisons, in blocks of columns.

    Example: ``{name: median}``
    """

    name: Literal["median"] = "median"
    by_coordinate: ClassVar[bool] = True

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the median [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the vector alone: the rule selects no whole rows and has no memory."""
        updates = validated(self, updates, context)
        return Aggregation(middle_mean(updates, drop=(len(updates) - 1) // 2))

    def check(self, n: int) -> None:
        """Require n >= 1. Raises: ``ValueError`` otherwise."""
        require(self, n, 1, "n >= 1")

    def tolerating(self, dropped: int) -> "Median":
        """Return the rule itself: it has no number of tolerated rows to lower."""
        return self
