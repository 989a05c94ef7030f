"""Checks on the input of a rule."""

import math

import torch
from torch import Tensor

from fedrobust.aggregators.aggregator import Aggregator, Context, check
from fedrobust.config.arguments import told, unfit
from fedrobust.typing import Updates

_ROWS_NAMED = 10
"""A message lists this many bad rows and counts the others."""


_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


def check_within(wrapper: Aggregator, rule: Aggregator, n: int) -> None:
    """Check that ``rule`` accepts n rows from ``wrapper``. Raises: ``ValueError`` naming both."""
    name = type(wrapper).__name__
    if n == 0:
        raise ValueError(f"{name} needs n >= 1: n = 0 needs 1")
    try:
        check(rule, n)
    except ValueError as error:
        raise ValueError(f"{name} hands its rule n = {n} rows: {error}") from error


def require(rule: Aggregator, n: int, least: int, condition: str, f: int | None = None) -> None:
    """Refuse n below ``least``, the number that ``condition`` means. Raises: ``ValueError``."""
    if n < least:
        given = f"n = {n}" if f is None else f"n = {n}, f = {f}"
        raise ValueError(f"{type(rule).__name__} needs {condition}: {given} needs {least}")


def validated(rule: Aggregator, updates: Updates, context: Context) -> Updates:
    """Check ``updates`` and ``context.counts``; return the updates without autograd history.

    Raises: ``ValueError`` that says what is wrong, and in which rows.
    """
    name = type(rule).__name__
    if not isinstance(updates, Tensor):
        cure = "use torch.stack to convert a list of rows"
        if hasattr(updates, "__array__"):
            cure = "use torch.from_numpy to convert an array"
        raise ValueError(
            f"{name}: updates must be one tensor [n, d], got {type(updates).__name__}; {cure}"
        )
    if why := unfit(updates):
        raise ValueError(
            f"{name}: updates must be a dense tensor of plain numbers; this one is {why}"
        )
    if updates.ndim != 2:
        raise ValueError(f"{name}: updates must be [n, d], got shape {list(updates.shape)}")
    if not isinstance(context, Context):
        raise ValueError(f"{name}: context must be a Context, got {told(context)}")
    n, d = updates.shape
    rule.check(n)
    if d == 0:
        raise ValueError(f"{name}: updates of shape {[n, d]} have no coordinates (d = 0)")
    if updates.dtype not in _FLOATS:
        raise ValueError(
            f"{name}: updates must be floating point, got {updates.dtype}; "
            "convert them with .float() if that is what you mean"
        )
    updates = updates.detach()
    _refuse_non_finite(name, updates)
    if context.counts is not None:
        _check_counts(name, context.counts, n)
    return updates


def finite_rows(rows: Updates) -> list[bool]:
    """Return, for each row, whether it is finite."""
    # A sum is never finite where an entry is not, and one sum is the cheapest check of all entries.
    if math.isfinite(float(rows.detach().sum())):
        return [True] * len(rows)
    finite: list[bool] = torch.isfinite(torch.linalg.vector_norm(rows, torch.inf, dim=1)).tolist()
    return finite


def _refuse_non_finite(name: str, updates: Updates) -> None:
    # The extremes are finite exactly where all entries are, and finding them allocates nothing.
    if torch.stack(torch.aminmax(updates)).isfinite().all():
        return
    low, high = torch.aminmax(updates, dim=1)
    bad = (~(low.isfinite() & high.isfinite())).nonzero()[:, 0].tolist()
    listed = ", ".join(map(str, bad[:_ROWS_NAMED]))
    more = f" and {len(bad) - _ROWS_NAMED} more" if len(bad) > _ROWS_NAMED else ""
    raise ValueError(
        f"{name}: NaN or infinity in row{'s' if len(bad) > 1 else ''} {listed}{more}; drop these "
        f"rows and aggregate the others with rule.tolerating({len(bad)})"
    )


def _check_counts(name: str, counts: Tensor, n: int) -> None:
    if counts.shape != (n,):
        raise ValueError(
            f"{name}: counts must be one number for each of the {n} rows, "
            f"got shape {list(counts.shape)}"
        )
    low, high = torch.aminmax(counts.double())
    if low >= 0 and 0 < high < torch.inf:  # both are false where a count is NaN
        return
    bad = (~counts.isfinite() | (counts < 0)).nonzero()[:, 0].tolist()
    if bad:
        raise ValueError(
            f"{name}: counts must be finite and not negative, "
            f"got {counts[bad[0]].item()} for row {bad[0]}"
        )
    raise ValueError(f"{name}: counts are all zero, so no row has any weight")
