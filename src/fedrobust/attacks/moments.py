"""Means, deviations and lengths of rows, also where the squares of their entries are no numbers.

PyTorch takes them in the dtype of the rows. In float32 the square of 1e20 is infinite, and that of
1e-25 is 0: an attack would be disarmed, or cut nowhere, without a word. What is ordinary is taken
as PyTorch takes it, to the last bit; the rest in float64. No autograd history comes out.
"""

import math
from functools import cache

import torch
from torch import Tensor

from fedrobust.aggregators.kernels.products import norms
from fedrobust.typing import Updates, Vector

_ENTRIES = 2.0**20
"""Of so many entries none is so small that its square loses digits, where a length is ordinary."""


def mean(rows: Updates) -> Vector:
    """The mean of the rows [d]."""
    rows = rows.detach()
    found = rows.mean(dim=0)
    if math.isfinite(float(found.sum())) or bool(found.isfinite().all()):
        return found
    share = 0.5 ** len(rows).bit_length()  # with which no sum overflows; it rounds nothing
    return (rows * share).mean(dim=0) / share


def moments(rows: Updates, correction: int = 0) -> tuple[Vector, Vector]:
    """The standard deviation, with divisor n - ``correction``, and the mean of the rows: [d], [d].

    Columns whose squared deviations would overflow, or be none, are taken again in their own unit.
    """
    rows = rows.detach()
    deviation, mean = torch.std_mean(rows, dim=0, correction=correction)
    least, (low, high) = _least(rows.dtype), torch.aminmax(deviation)
    if least <= float(low) and float(high) < math.inf:  # neither is so where one is NaN
        return deviation, mean
    columns = (~((deviation >= least) & (deviation < torch.inf))).nonzero()[:, 0]
    part = rows[:, columns].double()
    # A power of two, which rounds nothing and is a float64 number itself.
    exponents = torch.frexp(part.abs().amax(dim=0)).exponent.clamp(-1000, 1000)
    units = torch.ldexp(torch.ones_like(part[0]), exponents)
    apart, middle = torch.std_mean(part / units, dim=0, correction=correction)
    deviation[columns] = (apart * units).to(deviation)
    mean[columns] = (middle * units).to(mean)
    return deviation, mean


def lengths(rows: Updates) -> Tensor:
    """‖xᵢ‖₂ of every row [n, 1]: float64 where one of them is not ordinary, else as the rows."""
    rows = rows.detach()
    found: Tensor = rows.norm(dim=1, keepdim=True)
    least = _ENTRIES * _least(rows.dtype)
    if all(least <= length < math.inf for length in found[:, 0].tolist()):
        return found
    ordinary = (found >= least) & (found < torch.inf)
    exact: Tensor = torch.where(ordinary, found.double(), norms(rows)[:, None])
    return exact


@cache
def _least(dtype: torch.dtype) -> float:
    """The least number whose square has all its digits."""
    info = torch.finfo(dtype)
    return float((info.tiny / info.eps) ** 0.5)
