"""The order of scores and distances, where values that tie count as equal."""

import torch
from torch import Tensor

from fedrobust.typing import Indices

TIE = 1e-12
"""Scores with a smaller relative difference are equal but for rounding: distances err by 1e-13."""


def nearest_first(distances: Tensor) -> tuple[Tensor, Indices]:
    """Return each row's distances [n, n - 1] to the others, ascending, and these rows' indices."""
    n = len(distances)
    rows = torch.arange(n, device=distances.device)
    others = rows != rows[:, None]
    nearest, order = distances[others].view(n, n - 1).sort(dim=1, stable=True)
    return nearest, rows.expand(n, n)[others].view(n, n - 1).gather(1, order)


def best(scores: Tensor, m: int) -> Indices:
    """Return the indices, ascending, of the m least scores; of equal scores the lowest indices."""
    return least(scores, m).nonzero()[:, 0]


def least(values: Tensor, m: int) -> Tensor:
    """Return a mask of the m least values along the last dimension; of equal ones the first."""
    # Not kthvalue: before torch 2.10 its form for GPUs is refused where results must be the same.
    last = values.sort(dim=-1).values[..., m - 1 : m]
    surely = values < last * (1 - TIE)
    tied = (values <= last * (1 + TIE)) & ~surely
    places = m - surely.sum(dim=-1, keepdim=True)
    return surely | (tied & (tied.cumsum(dim=-1) <= places))


def ranked(scores: Tensor) -> Indices:
    """Return the indices by ascending score; scores that tie with their neighbours go by index."""
    ordered, order = scores.sort(stable=True)
    rank = torch.zeros_like(order)
    rank[1:] = (ordered[1:] > ordered[:-1] * (1 + TIE)).cumsum(dim=0)
    return order[(rank * len(scores) + order).argsort()]
