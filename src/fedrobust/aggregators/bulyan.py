"""Bulyan: iterated Krum selects rows, then the mean around their median."""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedrobust.aggregators.aggregator import Aggregation, Context, selected
from fedrobust.aggregators.checks import require
from fedrobust.aggregators.kernels.dispatch import mean_around_median
from fedrobust.aggregators.kernels.ranking import TIE, best, nearest_first
from fedrobust.aggregators.selection import by_selection
from fedrobust.config.component import component
from fedrobust.config.scalars import Size
from fedrobust.typing import Indices, Updates, Vector

_MANY = 128
"""From this number of rows on, a compiled loop is used: in PyTorch, 1,000 rows take a minute."""


@component
class Bulyan:
    """The mean around the median of the θ = n − 2f rows that iterated Krum selects.

    Krum removes one row from the remaining r rows and selects it, θ times. Each time the scores are
    computed again on the remaining rows, over max(1, r − f − 2) neighbours. The answer is, per
    coordinate, the mean of the θ − 2f selected values closest to their median (of two equally close
    values, the lower is kept); n >= 4f + 3 rows.

    ``second_stage: n-2f`` keeps the n − 2f values closest to the median, which are all that were
    selected: the plain mean of the selected rows. This is the text of FAT §3 taken at its word. The
    mean then follows any malicious row that was selected. One of f >= 2 equal rows is, however far
    away they are: in the last pick each of them has f − 1 others at distance 0, as many as count.

    Raises: ``ValueError`` for invalid updates, or n < 4f + 3.

    Reference: El Mhamdi et al., The Hidden Vulnerability of Distributed Learning in Byzantium,
    ICML 2018.

    Differences from the paper: in the last picks fewer than the 2f + 3 rows that Krum needs remain
    (r falls to 2f + 1), as must happen in FAT as well; max(1, …) defines these picks.

    Cost: the cost of krum (once: the distances are reused) and of mean-around-median.

    Example: ``{name: bulyan, f: 12}``
    """

    f: Size
    second_stage: Literal["theta-2f", "n-2f"] = "theta-2f"
    name: Literal["bulyan"] = "bulyan"
    select = selected

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the Bulyan aggregate [d] of ``updates`` [n, d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the vector, and the θ rows that iterated Krum selected."""
        return by_selection(self, updates, context)

    def chosen(self, distances: Tensor) -> Indices:
        """Return the θ indices, ascending, that these squared distances [n, n] select."""
        return iterated_krum(distances, self.f)

    def combined(self, updates: Updates, kept: Indices) -> Vector:
        """Return the mean around the median of the rows ``kept``."""
        drop = 2 * self.f if self.second_stage == "theta-2f" else 0
        return mean_around_median(updates, drop=drop, rows=kept)

    def check(self, n: int) -> None:
        """Require n >= 4f + 3. Raises: ``ValueError`` otherwise."""
        require(self, n, 4 * self.f + 3, "n >= 4f + 3", self.f)

    def tolerating(self, dropped: int) -> "Bulyan":
        """Return the rule with f lowered to max(0, f - dropped)."""
        return replace(self, f=max(0, self.f - dropped))


def iterated_krum(distances: Tensor, f: int) -> Indices:
    """Return the indices, ascending, of the n − 2f rows that Krum removes one after another.

    ``distances`` are squared: [n, n].
    """
    n = len(distances)
    # [n, n] numbers: on a GPU, asking for each row that is removed would take longer.
    nearest, who = (found.cpu() for found in nearest_first(distances))
    if n >= _MANY:
        from fedrobust.aggregators.kernels.iterated_krum import take_out

        stays = np.ones(n, np.int64)
        take_out(nearest.numpy(), who.numpy(), f, TIE, stays)
        return torch.from_numpy(np.flatnonzero(stays == 0)).to(distances.device)
    remaining = torch.arange(n)
    taken = torch.zeros(n, dtype=torch.bool)
    for r in range(n, 2 * f, -1):
        # A last row without neighbours (r = 1, f = 0) has the score 0 and is taken.
        place = best(nearest[:, : max(1, r - f - 2)].sum(dim=1), 1)
        row = remaining[place]
        taken[row] = True
        # Without this row the distances of the others stay sorted, so nothing is sorted twice.
        others = remaining != row
        remaining, nearest, who = remaining[others], nearest[others], who[others]
        left = who != row
        shape = (r - 1, max(0, r - 2))
        nearest, who = nearest[left].view(shape), who[left].view(shape)
    return taken.nonzero()[:, 0].to(distances.device)
