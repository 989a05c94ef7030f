"""Iterated Krum as one compiled loop. Importing this module imports numba: see loops.py."""

import numpy as np

from fedrobust.compute.jit import compiled
from fedrobust.typing import Doubles, Integers


@compiled
def take_out(nearest: Doubles, who: Integers, f: int, tie: float, remaining: Integers) -> None:
    """Remove the row with the best Krum score from ``remaining`` [n], 1 -> 0; n − 2f times.

    ``nearest`` [n, n − 1] holds each row's distances, ascending, and ``who`` the rows at these
    distances. Scores within a relative difference ``tie`` of the least count as equal, and the
    first such row is removed.
    """
    n = len(remaining)
    scores = np.empty(n)
    for left in range(n, 2 * f, -1):
        neighbours = min(max(1, left - f - 2), left - 1)
        least = np.inf
        for i in range(n):
            if remaining[i]:
                score, counted, j = 0.0, 0, 0
                while counted < neighbours:
                    if remaining[who[i, j]]:
                        score += nearest[i, j]
                        counted += 1
                    j += 1
                scores[i] = score
                least = min(least, score)
        for i in range(n):
            if remaining[i] and scores[i] <= least * (1 + tie):
                remaining[i] = 0
                break
