"""The coordinate-wise trimmed mean."""

from dataclasses import replace
from typing import ClassVar, Literal

from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.dispatch import middle_mean
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.typing import Updates, Vector


@component
class TrimmedMean:
    """Per coordinate, the mean of the values without the f least and the f greatest.

    With v sorted, (v[f] + … + v[n − f − 1]) / (n − 2f); n > 2f rows. While at most f rows are
    Byzantine, every coordinate stays between the least and the greatest benign value.

    Raises: ``ValueError`` for invalid updates, or n <= 2f.

    Reference: Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates,
    ICML 2018, definition 2.

    Differences from the paper: the number f of rows cut on each side is given, not a share β. FAT's
    "Trimmed Mean" is ``MeanAroundMedian``.

    Cost: O(n log² n · d) comparisons, in blocks of columns.

    Example: ``{name: trimmed-mean, f: 12}``
    """

    f: Size
    name: Literal["trimmed-mean"] = "trimmed-mean"
    by_coordinate: ClassVar[bool] = True

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the trimmed mean [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the vector alone: the rule selects no whole rows and has no memory."""
        updates = validated(self, updates, context)
        return Aggregation(middle_mean(updates, drop=self.f))

    def check(self, n: int) -> None:
        """Require n > 2f. Raises: ``ValueError`` otherwise."""
        require(self, n, 2 * self.f + 1, "n > 2f", self.f)

    def tolerating(self, dropped: int) -> "TrimmedMean":
        """Return the rule with f lowered to max(0, f - dropped)."""
        return replace(self, f=max(0, self.f - dropped))
