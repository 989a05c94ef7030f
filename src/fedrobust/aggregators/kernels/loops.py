"""The loops that numba compiles. Importing this module imports numba: half a second.

Each loop takes some columns of float32 updates as one flat array: row r starts at
``rows[r] * stride``. The loops copy blocks of ``WIDTH`` columns to a place where all rows lie side
by side in the processor's cache. They hold no lock, so that threads can share the columns.
"""

import numpy as np

from fedrobust.aggregators.kernels.sorting_network import BOTH, SMALLER
from fedrobust.compute.jit import compiled, reassociated
from fedrobust.typing import Doubles, Floats, Integers

WIDTH = 256
"""Columns of a block: 51 rows take 52 kB, and each row is long enough to be read as a stream."""
PANEL = 64
"""The distances read this many rows again and again before they go on to the next ones."""
TILE = 4
"""Rows of a block of distances are padded to a multiple of this."""


@compiled
def weighted_mean(
    updates: Floats, stride: int, rows: Integers, weights: Doubles, total: float, out: Floats
) -> None:
    """Write Σ wᵢ xᵢ / ``total`` of each column to ``out``, summed in float64."""
    d = len(out)
    sums = np.empty(WIDTH)
    for column in range(0, d, WIDTH):
        width = min(WIDTH, d - column)
        sums[:] = 0.0
        for i in range(len(rows)):
            start = rows[i] * stride + column
            row = updates[start : start + width]
            weight = weights[i]
            for c in range(width):
                sums[c] += weight * row[c]
        for c in range(width):
            out[column + c] = sums[c] / total


@compiled
def mean_of_closest(
    updates: Floats,
    stride: int,
    rows: Integers,
    network: Integers,
    first: int,
    last: int,
    keep: int,
    block: Floats,
    out: Floats,
) -> None:
    """Write the mean of ``keep`` neighbours among the sorted values ``first`` to ``last`` - 1.

    The neighbours are the values of each column closest to its median; a tie takes the lower.
    ``network`` sorts these ranks, which include the middle ones if there is a choice. ``block`` is
    memory for ``WIDTH`` columns.
    """
    n, d = len(rows), len(out)
    low, high, sums = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    for column in range(0, d, WIDTH):
        width = min(WIDTH, d - column)
        for i in range(n):
            start = rows[i] * stride + column
            row, place = updates[start : start + width], block[i * WIDTH : i * WIDTH + width]
            for c in range(width):
                place[c] = row[c]
        _exchange(block, network)
        for c in range(WIDTH):
            low[c] = block[(n - 1) // 2 * WIDTH + c]
            high[c] = block[n // 2 * WIDTH + c]
        # The window starts at the lowest and moves up while the value that enters is closer to the
        # median than the one that leaves (see dispatch.py). Where it stays, the lower value takes
        # the higher one's place, so that the window's values always end up in the last rows.
        for s in range(first, last - keep):
            leaves = block[s * WIDTH : (s + 1) * WIDTH]
            enters = block[(s + keep) * WIDTH : (s + keep + 1) * WIDTH]
            for c in range(WIDTH):
                moves = np.float64(enters[c]) - high[c] < low[c] - np.float64(leaves[c])
                enters[c] = enters[c] if moves else leaves[c]
        sums[:] = 0.0
        for i in range(last - keep, last):
            row = block[i * WIDTH : (i + 1) * WIDTH]
            for c in range(WIDTH):
                sums[c] += row[c]
        for c in range(width):
            out[column + c] = sums[c] / keep


@compiled
def _exchange(block: Floats, network: Integers) -> None:
    """Run the comparators of ``network`` on every column of ``block``."""
    for k in range(len(network)):
        i, j, needed = network[k, 0] * WIDTH, network[k, 1] * WIDTH, network[k, 2]
        low, high = block[i : i + WIDTH], block[j : j + WIDTH]
        # One comparison decides both results, so the two values that came in always come out.
        if needed == BOTH:
            for c in range(WIDTH):
                a, b = low[c], high[c]
                smaller = a < b
                low[c] = a if smaller else b
                high[c] = b if smaller else a
        elif needed == SMALLER:
            for c in range(WIDTH):
                a, b = low[c], high[c]
                low[c] = a if a < b else b
        else:
            for c in range(WIDTH):
                a, b = low[c], high[c]
                high[c] = b if a < b else a


@compiled
def add_squared_distances(
    updates: Floats, stride: int, n: int, d: int, block: Doubles, sums: Doubles
) -> None:
    """Add Σ (xᵢ − xⱼ)² over d columns to ``sums`` [p, p], for j < i; other entries are undefined.

    p is n rounded up to a multiple of ``TILE``; ``block`` has p rows of ``WIDTH`` zeros.
    """
    padded = len(sums)
    for column in range(0, d, WIDTH):
        width = min(WIDTH, d - column)
        for i in range(n):
            start = i * stride + column
            row, place = updates[start : start + width], block[i * WIDTH : (i + 1) * WIDTH]
            for c in range(width):
                place[c] = row[c]
            place[width:] = 0.0
        for panel in range(0, padded, PANEL):
            for i in range(panel, padded, 2):
                for j in range(panel, min(panel + PANEL, i + 1), TILE):
                    _tile(block, i, j, sums)


@reassociated
def _tile(block: Doubles, i: int, j: int, sums: Doubles) -> None:
    """Compare rows i and i + 1 with rows j to j + 3: each value read serves several pairs."""
    a, b = block[i * WIDTH : (i + 1) * WIDTH], block[(i + 1) * WIDTH : (i + 2) * WIDTH]
    p, q = block[j * WIDTH : (j + 1) * WIDTH], block[(j + 1) * WIDTH : (j + 2) * WIDTH]
    r, s = block[(j + 2) * WIDTH : (j + 3) * WIDTH], block[(j + 3) * WIDTH : (j + 4) * WIDTH]
    ap = aq = ar = as_ = bp = bq = br = bs = 0.0
    for c in range(WIDTH):
        ap += (a[c] - p[c]) ** 2
        aq += (a[c] - q[c]) ** 2
        ar += (a[c] - r[c]) ** 2
        as_ += (a[c] - s[c]) ** 2
        bp += (b[c] - p[c]) ** 2
        bq += (b[c] - q[c]) ** 2
        br += (b[c] - r[c]) ** 2
        bs += (b[c] - s[c]) ** 2
    sums[i, j] += ap
    sums[i, j + 1] += aq
    sums[i, j + 2] += ar
    sums[i, j + 3] += as_
    sums[i + 1, j] += bp
    sums[i + 1, j + 1] += bq
    sums[i + 1, j + 2] += br
    sums[i + 1, j + 3] += bs
