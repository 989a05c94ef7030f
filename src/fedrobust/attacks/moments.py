"""Means, deviations and lengths of rows, also where squares of their entries overflow or vanish.

PyTorch computes them in the dtype of the rows. In float32 the square of 1e20 is infinite, and the
square of 1e-25 is 0: an attack would be disarmed, or not cut at all, without a message. Ordinary
values are computed as PyTorch computes them, to the last bit; the others in float64. The results
have no autograd history.
"""

import math
from functools import cache

import torch
from torch import Tensor

from fedrobust.aggregators.kernels.products import norms
from fedrobust.typing import Updates, Vector

_ENTRIES = 2.0**20
"""With up to this many entries, no square loses digits where the length is ordinary."""


def mean(rows: Updates) -> Vector:
    """Return the mean of the rows [d]."""
    rows = rows.detach()
    found = rows.mean(dim=0)
    if math.isfinite(float(found.sum())) or bool(found.isfinite().all()):
        return found
    share = 0.5 ** len(rows).bit_length()  # a power of two: no sum overflows, nothing is rounded
    return (rows * share).mean(dim=0) / share


def moments(rows: Updates, correction: int = 0) -> tuple[Vector, Vector]:
    """Return the standard deviation, with divisor n - ``correction``, and the mean: [d], [d].

    Columns whose squared deviations would overflow, or vanish, are computed again in their own
    unit.
    """
    rows = rows.detach()
    deviation, mean = torch.std_mean(rows, dim=0, correction=correction)
    least, (low, high) = _least(rows.dtype), torch.aminmax(deviation)
    if least <= float(low) and float(high) < math.inf:  # both are false for NaN
        return deviation, mean
    columns = (~((deviation >= least) & (deviation < torch.inf))).nonzero()[:, 0]
    part = rows[:, columns].double()
    # A power of two: it rounds nothing and is finite in float64.
    exponents = torch.frexp(part.abs().amax(dim=0)).exponent.clamp(-1000, 1000)
    units = torch.ldexp(torch.ones_like(part[0]), exponents)
    apart, middle = torch.std_mean(part / units, dim=0, correction=correction)
    deviation[columns] = (apart * units).to(deviation)
    mean[columns] = (middle * units).to(mean)
    return deviation, mean


def lengths(rows: Updates) -> Tensor:
    """Return ‖xᵢ‖₂ of every row [n, 1]: float64 if one is not ordinary, else the rows' dtype."""
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
    """Return the least number whose square has all its digits."""
    info = torch.finfo(dtype)
    return float((info.tiny / info.eps) ** 0.5)
