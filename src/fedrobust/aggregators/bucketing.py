"""Bucketing: average random buckets of rows, then apply another rule."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fedrobust.aggregators.aggregator import (
    Aggregation,
    AnyAggregator,
    Context,
    apply,
    lowered,
    selected,
)
from fedrobust.aggregators.checks import check_within, validated
from fedrobust.aggregators.kernels.products import group_means, weights
from fedrobust.config.component import component
from fedrobust.config.scalars import Count
from fedrobust.typing import Updates, Vector


@component
class Bucketing:
    """``rule``, applied to the means of ⌈n/s⌉ random buckets of s rows; the last may be smaller.

    With a random permutation π, yₖ is the mean of x_π(ks) … x_π(ks + s − 1), and the answer is
    rule(y). f Byzantine rows spoil at most f buckets, so give the rule the f of the rows; its
    condition must hold for ⌈n/s⌉ rows. π is drawn from the context's generator; without a generator
    it is the same each time. The answer depends on the order of the rows as well as on the draw.
    Where the rule selects buckets, ``kept`` holds all rows of these buckets.

    Bucket means are unweighted, as in the paper: within a bucket every row has the same weight, and
    a rule without weights is exactly the paper's. A rule with weights gets, for each bucket, the
    total of the server's sample counts: with ``Mean`` as the rule, rows of one bucket share one
    weight.

    Raises: ``ValueError`` for invalid updates, or where the rule refuses its rows.

    Reference: Karimireddy, He, Jaggi, Byzantine-Robust Learning on Heterogeneous Datasets via
    Bucketing, ICLR 2022, algorithm 1.

    Cost: O(n·d), and the cost of the rule on ⌈n/s⌉ rows.

    Example: ``{name: bucketing, s: 2, rule: {name: krum, f: 2}}``
    """

    s: Count
    rule: AnyAggregator
    name: Literal["bucketing"] = "bucketing"
    select = selected

    @property
    def rooted(self) -> bool:
        """Whether the inner rule needs the server's own update."""
        return bool(getattr(self.rule, "rooted", False))

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the rule's vector [d] for the bucket means."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the rule's vector and memory, and all rows of the buckets that it kept."""
        updates = validated(self, updates, context)
        buckets = drawn_buckets(len(updates), self.s, context.generator).to(updates.device)
        means = group_means(buckets, updates)
        if context.counts is not None:
            totals = buckets.double() @ weights(context.counts, updates)
            context = replace(context, counts=totals)
        answer = apply(self.rule, means, context)
        if answer.kept is None:
            return answer
        return replace(answer, kept=buckets[answer.kept].any(dim=0).nonzero()[:, 0])

    def check(self, n: int) -> None:
        """Refuse n rows where the rule needs more than ⌈n/s⌉. Raises: ``ValueError``."""
        check_within(self, self.rule, -(-n // self.s))

    def tolerating(self, dropped: int) -> "Bucketing":
        """Return the same wrapper around the rule with its f lowered by ``dropped``."""
        return replace(self, rule=lowered(self.rule, dropped))


def drawn_buckets(n: int, s: int, generator: torch.Generator | None) -> Tensor:
    """Return a mask [⌈n/s⌉, n] that says which rows are in which bucket."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    order = torch.randperm(n, generator=generator, device=generator.device)
    buckets = torch.zeros(-(-n // s), n, dtype=torch.bool, device=order.device)
    buckets[torch.arange(n, device=order.device) // s, order] = True
    return buckets
