"""Batcher's sorting network: to sort whole columns, or to find only the ranks that a rule needs."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SMALLER, GREATER, BOTH = 1, 2, 3
"""Which results of a comparator are needed later."""


def sort_columns(block: Tensor) -> Tensor:
    """Sort every column of ``block`` [n, b] in ascending order, in place, and return it.

    Batcher's odd-even merge exchange: about log2(n)^2 / 2 stages of compare-exchanges between rows
    i and i + distance. Each stage is an element-wise minimum and maximum over contiguous rows,
    which runs at memory speed on CPU and GPU. A general sort of many short columns is slower.

    Reference: Knuth, The Art of Computer Programming, vol. 3, algorithm 5.2.2M.
    """
    n = block.shape[0]
    for run, start, distance in _stages(n):
        low, high = block[start : n - distance], block[start + distance :]
        # Rows are compared in runs of `run`, every second run: first all the whole runs at once.
        whole = len(low) // (2 * run)
        if whole:
            _exchange(low.unfold(0, run, 2 * run)[:whole], high.unfold(0, run, 2 * run)[:whole])
        rest = slice(2 * run * whole, 2 * run * whole + run)
        if rest.start < len(low):
            _exchange(low[rest], high[rest])
    return block


@lru_cache(maxsize=32)
def comparators(n: int, first: int, last: int) -> npt.NDArray[np.int64]:
    """Return the part of the network that sorts ranks ``first`` to ``last`` - 1 of n rows.

    Each row of the result is (i, j, needed), in order: of rows i < j the smaller value goes to i
    and the greater to j, and ``needed`` says which of the two must be written. The other rows of
    the data end up with arbitrary values.
    """
    needed = [first <= row < last for row in range(n)]
    kept = []
    for i, j in reversed(list(_comparators(n))):
        which = SMALLER * needed[i] + GREATER * needed[j]
        if which:
            kept.append((i, j, which))
            needed[i] = needed[j] = True
    network = np.array(kept[::-1], dtype=np.int64).reshape(-1, 3)
    network.flags.writeable = False
    return network


def _comparators(n: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of rows that :func:`sort_columns` compares, in a valid order."""
    for run, start, distance in _stages(n):
        for i in range(start, n - distance):
            if i & run == start:
                yield i, i + distance


def _exchange(low: Tensor, high: Tensor) -> None:
    """Put the smaller of each pair of entries into ``low`` and the larger into ``high``."""
    smaller = torch.minimum(low, high)
    torch.maximum(low, high, out=high)
    low.copy_(smaller)


def _stages(n: int) -> Iterator[tuple[int, int, int]]:
    """Yield (run, start, distance) of each stage, for rows i >= start with i & run == start."""
    if n < 2:
        return
    top = 1 << ((n - 1).bit_length() - 1)
    run = top
    while run:
        step, start, distance = top, 0, run
        while True:
            if start + distance < n:
                yield run, start, distance
            if step == run:
                break
            distance, step, start = step - run, step // 2, run
        run //= 2
