"""Nearest-neighbour mixing: every row becomes the mean of its neighbourhood, then any rule."""

from typing import Literal

from fedrobust.aggregators.aggregator import Aggregation, AnyAggregator, Context, apply, lowered
from fedrobust.aggregators.checks import check_within, require, validated
from fedrobust.aggregators.kernels.dispatch import squared_distances
from fedrobust.aggregators.kernels.products import group_means
from fedrobust.aggregators.kernels.ranking import least
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.typing import Updates, Vector


@component
class NearestNeighborMixing:
    """``rule`` on rows that are each the mean of the n − f rows nearest to one of the n.

    yᵢ = (1/(n − f)) Σ xⱼ over the n − f rows j nearest to xᵢ, itself included; then rule(y);
    n > 2f rows, and as many as the rule needs. Distances that agree to one part in 10¹² tie, and
    the lowest index wins. Row i of the mix stands for client i: it keeps that client's sample count
    for the rule, and ``kept`` names it where the rule selects it. The mix has the dtype of the
    updates, and is the one copy of them that is made.

    Raises: ``ValueError`` for unfit updates, n <= 2f, or what the rule refuses.

    Reference: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, Fixing by Mixing: A Recipe
    for Optimal Byzantine ML under Heterogeneity, AISTATS 2023, algorithm 2.

    Cost: O(n²·d): the distances and a product; one more [n, d]; and the rule's.

    Example: ``{name: nearest-neighbor-mixing, f: 2, rule: {name: trimmed-mean, f: 2}}``
    """

    f: Size
    rule: AnyAggregator
    name: Literal["nearest-neighbor-mixing"] = "nearest-neighbor-mixing"

    @property
    def rooted(self) -> bool:
        """Whether the rule within needs the server's own update."""
        return bool(getattr(self.rule, "rooted", False))

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """What the rule makes of the mixed rows: [d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """The rule's whole answer: vector, rows kept and memory."""
        updates = validated(self, updates, context)
        neighbours = least(squared_distances(updates), len(updates) - self.f)
        return apply(self.rule, group_means(neighbours, updates), context)

    def check(self, n: int) -> None:
        """Raises: ``ValueError`` unless n > 2f, and where the rule needs more rows."""
        require(self, n, 2 * self.f + 1, "n > 2f", self.f)
        check_within(self, self.rule, n)

    def tolerating(self, dropped: int) -> "NearestNeighborMixing":
        """The same with f, and what the rule tolerates, lowered by ``dropped``."""
        return NearestNeighborMixing(max(0, self.f - dropped), lowered(self.rule, dropped))
