"""Nearest-neighbour mixing: average each row's neighbourhood, then apply another rule."""

from dataclasses import replace
from typing import Literal

from fedrobust.aggregators.aggregator import (
    Aggregation,
    AnyAggregator,
    Context,
    apply,
    lowered,
    selected,
)
from fedrobust.aggregators.checks import check_within, require, validated
from fedrobust.aggregators.kernels.dispatch import squared_distances
from fedrobust.aggregators.kernels.products import group_means
from fedrobust.aggregators.kernels.ranking import least
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.typing import Updates, Vector


@component
class NearestNeighborMixing:
    """``rule``, applied to n rows yᵢ: each is the mean of the n − f rows nearest to row i.

    yᵢ = (1/(n − f)) Σ xⱼ over the n − f rows j nearest to xᵢ, itself included; the answer is
    rule(y); n > 2f rows, and at least as many as the rule needs. Distances that agree to one part
    in 10¹² tie, and the lowest index wins. Row i of the mix stands for client i: the rule sees this
    client's sample count, and ``kept`` names the client where the rule selects its row. The mix has
    the dtype of the updates and is the only copy of them.

    Raises: ``ValueError`` for invalid updates, n <= 2f, or where the rule refuses its rows.

    Reference: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, Fixing by Mixing: A Recipe
    for Optimal Byzantine ML under Heterogeneity, AISTATS 2023, algorithm 2.

    Cost: O(n²·d): the distances and a product; one more [n, d]; and the cost of the rule.

    Example: ``{name: nearest-neighbor-mixing, f: 2, rule: {name: trimmed-mean, f: 2}}``
    """

    f: Size
    rule: AnyAggregator
    name: Literal["nearest-neighbor-mixing"] = "nearest-neighbor-mixing"
    select = selected

    @property
    def rooted(self) -> bool:
        """Whether the inner rule needs the server's own update."""
        return bool(getattr(self.rule, "rooted", False))

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the rule's vector [d] for the mixed rows."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the rule's whole answer: vector, rows kept and memory."""
        updates = validated(self, updates, context)
        neighbours = least(squared_distances(updates), len(updates) - self.f)
        return apply(self.rule, group_means(neighbours, updates), context)

    def check(self, n: int) -> None:
        """Require n > 2f, and as many rows as the rule needs. Raises: ``ValueError`` otherwise."""
        require(self, n, 2 * self.f + 1, "n > 2f", self.f)
        check_within(self, self.rule, n)

    def tolerating(self, dropped: int) -> "NearestNeighborMixing":
        """Return the same wrapper with f, and the f of its rule, lowered by ``dropped``."""
        return replace(self, f=max(0, self.f - dropped), rule=lowered(self.rule, dropped))
