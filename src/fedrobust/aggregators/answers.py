"""Checks on the answer of a user's own rule: one vector, and the rows that it kept."""

import torch
from torch import Tensor

from fedrobust.config.arguments import told, unfit
from fedrobust.errors import ConfigError
from fedrobust.typing import Indices, Updates, Vector


def vector(name: str, given: object, rows: Updates) -> Vector:
    """Return ``given``, the answer of the rule ``name``, with the dtype and device of ``rows``.

    Raises: ``ConfigError`` where ``given`` is not one dense tensor [d] of real numbers.
    """
    if isinstance(given, Tensor) and not unfit(given) and given.shape == rows.shape[1:]:
        return given.to(rows)
    what, cure = told(given), ""
    if isinstance(given, Tensor) and (why := unfit(given)):
        what = f"one that is {why}"
    elif isinstance(given, Tensor) and given.shape == (1, rows.shape[1]):
        cure = "; give its row [0]"
    elif hasattr(given, "__array__") and not isinstance(given, Tensor):
        cure = "; use torch.from_numpy to convert an array"
    elif isinstance(given, list | tuple):
        cure = "; use torch.tensor to convert numbers"
    raise ConfigError(
        f"the aggregator {name} must give one tensor [{rows.shape[1]}] for updates "
        f"{list(rows.shape)}; it gave {what}{cure}"
    )


def indices(name: str, kept: object, n: int) -> Indices:
    """Return the rows, out of ``n``, that the rule ``name`` kept: each once, ascending.

    Raises: ``ConfigError`` where ``kept`` is neither a mask [n] nor whole numbers from 0 to n - 1.
    """
    wanted = f"kept of the aggregator {name} must be a mask [{n}], or indices from 0 to {n - 1}"
    try:
        found = kept.detach() if isinstance(kept, Tensor) else torch.as_tensor(kept)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{wanted}; it is {told(kept)}") from error
    if why := unfit(found):
        raise ConfigError(f"{wanted}; it is a tensor that is {why}")
    if found.dtype == torch.bool and found.shape == (n,):
        return found.nonzero()[:, 0]
    if found.shape == (0,):
        return found.long()
    if found.ndim != 1 or found.dtype == torch.bool or found.is_floating_point():
        raise ConfigError(f"{wanted}; it is {told(found)}")
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= n:
        raise ConfigError(f"{wanted}; it names row {low if low < 0 else high}")
    each: Indices = torch.unique(found.long())
    return each
