"""Sorting each column of a block of rows by a fixed network of row-wise minima and maxima."""

from collections.abc import Iterator

import torch
from torch import Tensor


def sort_columns(block: Tensor) -> Tensor:
    """Sort every column of ``block`` [n, b] in ascending order, in place, and return it.

    Batcher's odd-even merge exchange: about log2(n)^2 / 2 stages of compare-exchanges between rows
    i and i + distance. Each stage is an element-wise minimum and maximum over contiguous rows,
    which runs at memory speed on CPU and GPU; a general sort of many short columns does not.

    Reference: Knuth, The Art of Computer Programming, vol. 3, algorithm 5.2.2M.
    """
    n = block.shape[0]
    for run, start, distance in _stages(n):
        low, high = block[start : n - distance], block[start + distance :]
        # Rows are compared in runs of `run`, one run in two: first all the whole runs at once.
        whole = len(low) // (2 * run)
        if whole:
            _exchange(low.unfold(0, run, 2 * run)[:whole], high.unfold(0, run, 2 * run)[:whole])
        rest = slice(2 * run * whole, 2 * run * whole + run)
        if rest.start < len(low):
            _exchange(low[rest], high[rest])
    return block


def _exchange(low: Tensor, high: Tensor) -> None:
    """Put the smaller of each pair of entries into ``low`` and the larger into ``high``."""
    smaller = torch.minimum(low, high)
    torch.maximum(low, high, out=high)
    low.copy_(smaller)


def _stages(n: int) -> Iterator[tuple[int, int, int]]:
    """(run, start, distance) of each stage: rows i >= start with i & run == start are compared."""
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
