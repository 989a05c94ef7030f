"""Each rule as its definition reads: loops, exact sums, no thought of speed.

An oracle takes rows [n][d] of Python floats and f, and returns the selected rows (None where the
rule selects none) and, for each coordinate, the list of values whose mean is the answer.
"""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

Rows = list[list[float]]
Columns = list[list[float]]
Oracle = Callable[[Rows, int], tuple[list[int] | None, Columns]]


def columns_of(rows: Rows) -> Columns:
    return [list(column) for column in zip(*rows, strict=True)]


def mean(rows: Rows, f: int) -> tuple[None, Columns]:
    return None, columns_of(rows)


def median(rows: Rows, f: int) -> tuple[None, Columns]:
    n = len(rows)
    return None, [sorted(c)[(n - 1) // 2 : n // 2 + 1] for c in columns_of(rows)]


def trimmed_mean(rows: Rows, f: int) -> tuple[None, Columns]:
    return None, [sorted(c)[f : len(rows) - f] for c in columns_of(rows)]


def mean_around_median(rows: Rows, f: int) -> tuple[None, Columns]:
    return None, [closest_to_median(c, len(rows) - 2 * f) for c in columns_of(rows)]


def closest_to_median(values: list[float], keep: int) -> list[float]:
    """By distance from the middle value, or beyond the nearer of two; at equal ones the lower side.

    Of one side, what is exactly nearer comes first, also where float64 cannot tell the distances.
    """
    n = len(values)
    below, above = sorted(values)[(n - 1) // 2], sorted(values)[n // 2]

    def key(v: float) -> tuple[float, bool, Fraction]:
        upper = v >= above > below or v > above
        exactly = Fraction(v) - Fraction(above) if upper else Fraction(below) - Fraction(v)
        return float(exactly), upper, exactly

    return sorted(values, key=key)[:keep]


def closest_by_definition(values: list[float], keep: int) -> list[float]:
    """Sorted by exact distance from the exact median, then by value."""
    exact = sorted(map(Fraction, values))
    middle = (exact[(len(exact) - 1) // 2] + exact[len(exact) // 2]) / 2
    return [float(v) for v in sorted(exact, key=lambda v: (abs(v - middle), v))[:keep]]


def distance(a: list[float], b: list[float]) -> float:
    """Squared; the sum is correctly rounded, so equal sums are equal in any order."""
    with np.errstate(over="ignore"):
        return math.fsum(((np.array(a) - np.array(b)) ** 2).tolist())


def distances(rows: Rows) -> list[list[float]]:
    return [[distance(a, b) for b in rows] for a in rows]


def score(table: list[list[float]], i: int, among: list[int], neighbours: int) -> float:
    return math.fsum(sorted(table[i][j] for j in among if j != i)[:neighbours])


def best(scores: dict[int, float], m: int) -> list[int]:
    """The m least scores; those that equal the m-th to one part in 10¹² go by index."""
    last = sorted(scores.values())[m - 1]
    surely = [i for i, s in scores.items() if s < last * (1 - 1e-12)]
    tied = [i for i, s in scores.items() if i not in surely and s <= last * (1 + 1e-12)]
    return sorted(surely + sorted(tied)[: m - len(surely)])


def krum(rows: Rows, f: int) -> tuple[list[int], Columns]:
    return multi_krum(rows, f, m=1)


def multi_krum(rows: Rows, f: int, m: int | None = None) -> tuple[list[int], Columns]:
    n = len(rows)
    table, everyone = distances(rows), list(range(n))
    scores = {i: score(table, i, everyone, n - f - 2) for i in everyone}
    kept = best(scores, n - f - 2 if m is None else m)
    return kept, columns_of([rows[i] for i in kept])


def bulyan(rows: Rows, f: int) -> tuple[list[int], Columns]:
    table, remaining, kept = distances(rows), list(range(len(rows))), []
    while len(kept) < len(rows) - 2 * f:
        neighbours = max(1, len(remaining) - f - 2)
        scores = {i: score(table, i, remaining, neighbours) for i in remaining}
        (taken,) = best(scores, 1)
        remaining.remove(taken)
        kept.append(taken)
    kept.sort()
    return kept, mean_around_median([rows[i] for i in kept], f)[1]
