"""The mean of the values around the coordinate-wise median: FAT's "Trimmed Mean"."""

from dataclasses import replace
from typing import ClassVar, Literal

from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.dispatch import mean_around_median
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.typing import Updates, Vector


@component
class MeanAroundMedian:
    """Per coordinate, the mean of the n − 2f values closest to the median; n > 2f rows.

    The closest values are neighbours in sorted order. Of two values equally far from the median,
    one below and one above, the lower is kept. Such ties are common: one step of Adam or of a sign
    method gives updates of ±lr. Distances are compared in float64, from the two middle values and
    not from a rounded median. With at most f Byzantine rows, the median lies in the range of the
    benign values, and no kept value is farther from it than this range is wide; the mean may leave
    the range.

    Raises: ``ValueError`` for invalid updates, or n <= 2f.

    References: FAT (its "Trimmed Mean"); the second step of Bulyan, El Mhamdi et al., The Hidden
    Vulnerability of Distributed Learning in Byzantium, ICML 2018.

    Cost: O(n log² n · d) comparisons, in blocks of columns.

    Example: ``{name: mean-around-median, f: 24}``
    """

    f: Size
    name: Literal["mean-around-median"] = "mean-around-median"
    by_coordinate: ClassVar[bool] = True

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the mean around the median [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the vector alone: the rule selects no whole rows and has no memory."""
        updates = validated(self, updates, context)
        return Aggregation(mean_around_median(updates, drop=2 * self.f))

    def check(self, n: int) -> None:
        """Require n > 2f. Raises: ``ValueError`` otherwise."""
        require(self, n, 2 * self.f + 1, "n > 2f", self.f)

    def tolerating(self, dropped: int) -> "MeanAroundMedian":
        """Return the rule with f lowered to max(0, f - dropped)."""
        return replace(self, f=max(0, self.f - dropped))
