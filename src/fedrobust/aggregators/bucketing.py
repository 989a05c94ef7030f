"""Bucketing: the means of random buckets of rows, then any rule."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fedrobust.aggregators.aggregator import Aggregation, AnyAggregator, Context, apply, lowered
from fedrobust.aggregators.checks import check_within, validated
from fedrobust.aggregators.kernels.products import group_means, weights
from fedrobust.config.component import component
from fedrobust.config.scalars import Count
from fedrobust.typing import Updates, Vector


@component
class Bucketing:
    """``rule`` on the means of ⌈n/s⌉ random buckets of s rows, of which the last may be smaller.

    With a random permutation π, yₖ is the mean of x_π(ks) … x_π(ks + s − 1); then rule(y). f
    Byzantine rows spoil at most f buckets, so the rule's own f is that of the rows, and its
    condition must hold for ⌈n/s⌉. π comes from the context's generator, or is the same each time
    where there is none: the answer depends on the order of the rows as it does on the draw. Where
    the rule selects buckets, ``kept`` are all of their rows.

    Bucket means are unweighted, as in the paper, so that within a bucket no count gives a row more
    say and rules that do not weigh stay the paper's. A rule that does weigh gets each bucket's
    total of the server's sample counts: around ``Mean``, rows that share a bucket share a weight.

    Raises: ``ValueError`` for unfit updates, or what the rule refuses.

    Reference: Karimireddy, He, Jaggi, Byzantine-Robust Learning on Heterogeneous Datasets via
    Bucketing, ICLR 2022, algorithm 1.

    Cost: O(n·d), and the rule's on ⌈n/s⌉ rows.

    Example: ``{name: bucketing, s: 2, rule: {name: krum, f: 2}}``
    """

    s: Count
    rule: AnyAggregator
    name: Literal["bucketing"] = "bucketing"

    @property
    def rooted(self) -> bool:
        """Whether the rule within needs the server's own update."""
        return bool(getattr(self.rule, "rooted", False))

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """What the rule makes of the buckets: [d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """The rule's vector and memory, and the rows of the buckets that it kept."""
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
        """Raises: ``ValueError`` where the rule needs more than ⌈n/s⌉ rows."""
        check_within(self, self.rule, -(-n // self.s))

    def tolerating(self, dropped: int) -> "Bucketing":
        """The same with what the rule tolerates lowered by ``dropped``."""
        return Bucketing(self.s, lowered(self.rule, dropped))


def drawn_buckets(n: int, s: int, generator: torch.Generator | None) -> Tensor:
    """Which rows are in which bucket: [⌈n/s⌉, n], bool."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    order = torch.randperm(n, generator=generator, device=generator.device)
    buckets = torch.zeros(-(-n // s), n, dtype=torch.bool, device=order.device)
    buckets[torch.arange(n, device=order.device) // s, order] = True
    return buckets
