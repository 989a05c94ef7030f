"""Bulyan: rows by iterated Krum, then the mean around their median."""

from typing import Literal

import numpy as np
import torch

from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.dispatch import mean_around_median, squared_distances
from fedrobust.aggregators.kernels.ranking import TIE, best, nearest_first
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.typing import Indices, Updates, Vector

_MANY = 128
"""Rows from which one compiled loop takes them out: in PyTorch a thousand take a minute."""


@component
class Bulyan:
    """The mean around the median of the θ = n − 2f rows that iterated Krum selects.

    Krum takes one row out of those that remain, θ times, with scores recomputed each time on the
    remaining r rows, over max(1, r − f − 2) neighbours. Then, per coordinate, the mean of the
    θ − 2f selected values closest to their median (a tie takes the lower); n >= 4f + 3 rows.

    Raises: ``ValueError`` for unfit updates, or n < 4f + 3.

    Reference: El Mhamdi et al., The Hidden Vulnerability of Distributed Learning in Byzantium,
    ICML 2018.

    Differences from the paper: the last picks run where fewer than Krum's own 2f + 3 rows remain
    (r falls to 2f + 1), as they must in FAT as well; max(1, …) says what they do.

    Cost: that of krum (once: distances are reused) and of mean-around-median.

    Example: ``{name: bulyan, f: 12}``
    """

    f: Size
    name: Literal["bulyan"] = "bulyan"

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """The Bulyan aggregate [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """The vector, and the θ rows that iterated Krum selected."""
        updates = validated(self, updates, context)
        kept = iterated_krum(updates, self.f)
        return Aggregation(mean_around_median(updates, drop=2 * self.f, rows=kept), kept)

    def check(self, n: int) -> None:
        """Raises: ``ValueError`` unless n >= 4f + 3."""
        require(self, n, 4 * self.f + 3, "n >= 4f + 3", self.f)

    def tolerating(self, dropped: int) -> "Bulyan":
        """The rule with f lowered to max(0, f - dropped)."""
        return Bulyan(max(0, self.f - dropped))


def iterated_krum(updates: Updates, f: int) -> Indices:
    """The indices, ascending, of the n − 2f rows that Krum takes out one after another."""
    n = len(updates)
    nearest, who = nearest_first(squared_distances(updates))
    if n >= _MANY:
        from fedrobust.aggregators.kernels.iterated_krum import take_out

        stays = np.ones(n, np.int64)
        take_out(nearest.numpy(force=True), who.numpy(force=True), f, TIE, stays)
        return torch.from_numpy(np.flatnonzero(stays == 0)).to(updates.device)
    remaining = torch.arange(n, device=updates.device)
    taken = torch.zeros(n, dtype=torch.bool, device=updates.device)
    for r in range(n, 2 * f, -1):
        # Of one row without neighbours (r = 1, f = 0) the score is 0, and it is taken.
        place = best(nearest[:, : max(1, r - f - 2)].sum(dim=1), 1)
        row = remaining[place]
        taken[row] = True
        # The others' distances stay sorted without it, so nothing is sorted twice.
        others = remaining != row
        remaining, nearest, who = remaining[others], nearest[others], who[others]
        left = who != row
        shape = (r - 1, max(0, r - 2))
        nearest, who = nearest[left].view(shape), who[left].view(shape)
    return taken.nonzero()[:, 0]
