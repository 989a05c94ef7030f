"""Centered clipping: a centre moves toward the rows, each row's pull limited to a radius."""

from typing import Literal

import torch

from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.aggregators.checks import require, validated
from fedrobust.aggregators.kernels.products import combination, norms
from fedrobust.config.arguments import unfit
from fedrobust.config.component import component
from fedrobust.config.scalars import Count, Positive
from fedrobust.typing import Updates, Vector


@component
class CenteredClipping:
    """The centre of the last round, moved by the mean of the clipped differences to the rows.

    v ← v + (1/n) Σ (xᵢ − v) · min(1, τ / ‖xᵢ − v‖), ``iterations`` times, with τ = ``radius`` in
    update units; n >= 1 rows. The first v is the context's memory, or 0 without one. The last v is
    the answer and the new memory. Each row moves v by at most τ/n in one iteration, and f Byzantine
    rows by at most f·τ/n, so the result is as good as the centre at the start.

    Raises: ``ValueError`` for invalid updates, or a memory that is not a finite vector [d].

    Reference: Karimireddy, He, Jaggi, Learning from History for Byzantine Robust Optimization,
    ICML 2021, algorithm 2.

    Differences from the paper: the paper's rows are the workers' momenta; here the rows are what
    the clients send, and a client's momentum is part of its optimiser.

    Cost: O(n·d) for each iteration.

    Example: ``{name: centered-clipping, radius: 1.0}``
    """

    radius: Positive
    iterations: Count = 1
    name: Literal["centered-clipping"] = "centered-clipping"

    def __call__(self, updates: Updates, context: Context = Context()) -> Vector:
        """Return the new centre [d]."""
        return self.aggregate(updates, context).vector

    def aggregate(self, updates: Updates, context: Context) -> Aggregation:
        """Return the new centre, which is also the memory for the next round."""
        updates = validated(self, updates, context)
        n, d = updates.shape
        centre = torch.zeros(d, dtype=torch.float64, device=updates.device)
        if context.memory is not None:
            centre = centre + remembered(context.memory, d).to(updates.device)
        for _ in range(self.iterations):
            shares = (self.radius / norms(updates, centre)).clamp(max=1) / n
            centre = centre * (1 - shares.sum()) + combination(shares, updates)
        vector = centre.to(updates.dtype)
        return Aggregation(vector, memory=vector.clone())

    def check(self, n: int) -> None:
        """Require n >= 1. Raises: ``ValueError`` otherwise."""
        require(self, n, 1, "n >= 1")

    def tolerating(self, dropped: int) -> "CenteredClipping":
        """Return the rule itself: it has no number of tolerated rows to lower."""
        return self


def remembered(memory: object, d: int) -> Vector:
    """Return the centre in ``memory``. Raises: ``ValueError`` where it is no finite vector [d]."""
    dense = isinstance(memory, torch.Tensor) and not unfit(memory)
    if not isinstance(memory, torch.Tensor) or not dense or memory.shape != (d,):
        given = type(memory).__name__
        if isinstance(memory, torch.Tensor):
            given = f"shape {list(memory.shape)}" if dense else f"one that is {unfit(memory)}"
        raise ValueError(
            f"CenteredClipping: the memory must be its last centre, one tensor [{d}], got {given}; "
            "use Context(memory=None) to start at 0"
        )
    if not memory.is_floating_point() or not memory.isfinite().all():
        raise ValueError("CenteredClipping: the memory must be finite, floating-point numbers")
    return memory.detach()
