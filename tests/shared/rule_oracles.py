"""Each rule as its definition reads: loops, exact sums, no thought of speed.

An oracle takes rows [n][d] of Python floats and f, and returns an :class:`Answer`.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch

Rows = list[list[float]]
Columns = list[list[float]]


class Answer(NamedTuple):
    """The selected rows (None where the rule selects none), the vector, and how exact both are.

    ``size`` is, per coordinate, the greatest of the numbers that were averaged, to which rounding
    is relative; ``error`` is what a rule may be off by for another reason.
    """

    kept: list[int] | None
    vector: list[float]
    size: list[float]
    error: float | list[float] = 0.0


Oracle = Callable[[Rows, int], Answer]


def average(columns: Columns, kept: list[int] | None = None) -> Answer:
    """The means of ``columns``; values below half the greatest float cannot overflow."""
    vector = [math.fsum(v / len(c) for v in c) for c in columns]
    return Answer(kept, vector, [max(map(abs, c)) for c in columns])


def columns_of(rows: Rows) -> Columns:
    return [list(column) for column in zip(*rows, strict=True)]


def mean(rows: Rows, f: int) -> Answer:
    return average(columns_of(rows))


def median(rows: Rows, f: int) -> Answer:
    n = len(rows)
    return average([sorted(c)[(n - 1) // 2 : n // 2 + 1] for c in columns_of(rows)])


def trimmed_mean(rows: Rows, f: int) -> Answer:
    return average([sorted(c)[f : len(rows) - f] for c in columns_of(rows)])


def mean_around_median(rows: Rows, f: int) -> Answer:
    return average([closest_to_median(c, len(rows) - 2 * f) for c in columns_of(rows)])


def closest_to_median(values: list[float], keep: int) -> list[float]:
    """By distance from the middle value, or beyond the nearer of two; at equal ones the lower side.

    Of one side, what is exactly nearer comes first, also where float64 cannot tell the distances:
    there the values themselves have that order.
    """
    ordered = sorted(values)
    below, above = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]

    def key(v: float) -> tuple[float, bool, float]:
        upper = v >= above > below or v > above
        return (v - above, True, v) if upper else (below - v, False, -v)

    return sorted(values, key=key)[:keep]


def closest_by_definition(values: list[float], keep: int) -> list[float]:
    """Sorted by exact distance from the exact median, then by value."""
    exact = sorted(map(Fraction, values))
    middle = (exact[(len(exact) - 1) // 2] + exact[len(exact) // 2]) / 2
    return [float(v) for v in sorted(exact, key=lambda v: (abs(v - middle), v))[:keep]]


def distances(rows: Rows) -> list[list[float]]:
    """Squared; the sums are correctly rounded, so equal sums are equal in any order."""
    x = np.array(rows)
    table = [[0.0] * len(rows) for _ in rows]
    for i, j in combinations(range(len(rows)), 2):
        with np.errstate(over="ignore"):
            squares = (x[i] - x[j]) ** 2
        table[i][j] = table[j][i] = math.fsum(squares.tolist())
    return table


def score(table: list[list[float]], i: int, among: list[int], neighbours: int) -> float:
    return math.fsum(sorted(table[i][j] for j in among if j != i)[:neighbours])


def best(scores: dict[int, float], m: int) -> list[int]:
    """The m least scores; those that equal the m-th to one part in 10¹² go by index."""
    last = sorted(scores.values())[m - 1]
    surely = [i for i, s in scores.items() if s < last * (1 - 1e-12)]
    tied = [i for i, s in scores.items() if i not in surely and s <= last * (1 + 1e-12)]
    return sorted(surely + sorted(tied)[: m - len(surely)])


def mean_of(rows: Rows, kept: list[int]) -> Answer:
    return average(columns_of([rows[i] for i in kept]), kept)


def krum(rows: Rows, f: int) -> Answer:
    return multi_krum(rows, f, m=1)


def multi_krum(rows: Rows, f: int, m: int | None = None, fewer: int = 2) -> Answer:
    n = len(rows)
    table, everyone = distances(rows), list(range(n))
    scores = {i: score(table, i, everyone, n - f - fewer) for i in everyone}
    return mean_of(rows, best(scores, n - f - 2 if m is None else m))


def bulyan(rows: Rows, f: int) -> Answer:
    table, remaining, kept = distances(rows), list(range(len(rows))), []
    while len(kept) < len(rows) - 2 * f:
        neighbours = max(1, len(remaining) - f - 2)
        scores = {i: score(table, i, remaining, neighbours) for i in remaining}
        (taken,) = best(scores, 1)
        remaining.remove(taken)
        kept.append(taken)
    kept.sort()
    return mean_around_median([rows[i] for i in kept], f)._replace(kept=kept)


def mean_of_bulyans_rows(rows: Rows, f: int) -> Answer:
    """FAT's text at its word: of the n - 2f selected rows, the n - 2f closest to the median."""
    return mean_of(rows, bulyan(rows, f).kept)


def geometric_median(rows: Rows, f: int) -> Answer:
    """A row that is a minimiser, or Weiszfeld's iteration in the d coordinates, unsmoothed.

    In one dimension it is the median.
    """
    if len(rows[0]) == 1:
        return median(rows, f)
    x = np.array(rows)
    minimisers = [i for i in range(len(x)) if excess_pull(x, x[i]) <= 1e-9 * len(x)]
    if minimisers:
        different = np.unique(x[minimisers], axis=0)
        return average(different.T.tolist())
    lengths = [np.linalg.norm(x - row, axis=1) for row in x]
    v = x[min(range(len(x)), key=lambda i: np.median(lengths[i]))]
    spread = float(np.median(np.linalg.norm(x - v, axis=1)))
    v = v + 1e-3 * spread
    for _ in range(20_000):
        shares = 1 / np.linalg.norm(x - v, axis=1)
        step = ((x - v) * (shares / shares.sum())[:, None]).sum(axis=0)
        v = v + step
        if np.linalg.norm(step) * shares.mean() < 1e-9:
            break
    middle = np.sort(np.abs(x), axis=0)[len(x) // 2]
    return Answer(None, v.tolist(), middle.tolist(), 1e-6 * spread)


def excess_pull(x: np.ndarray, v: np.ndarray) -> float:
    """The norm of the least subgradient of Σ ‖v − xᵢ‖ at v."""
    length = np.linalg.norm(x - v, axis=1)
    apart = length > 0
    pull = ((x[apart] - v) / length[apart, None]).sum(axis=0)
    return max(0.0, float(np.linalg.norm(pull)) - float((~apart).sum()))


RADIUS = 0.75


def clipped(row: list[float], centre: list[float], radius: float = RADIUS) -> list[float]:
    difference = [a - b for a, b in zip(row, centre, strict=True)]
    norm = math.hypot(*difference)
    return difference if norm <= radius else [v * (radius / norm) for v in difference]


def norm_bound(rows: Rows, f: int) -> Answer:
    return average(columns_of([clipped(row, [0.0] * len(row)) for row in rows]))


def centered_clipping(rows: Rows, f: int, centre: list[float] | None = None) -> Answer:
    """Three iterations."""
    centre = [0.0] * len(rows[0]) if centre is None else centre
    size = [0.0] * len(centre)
    for _ in range(3):
        steps = average(columns_of([clipped(row, centre) for row in rows]))
        size = [max(abs(c), s, g) for c, s, g in zip(centre, steps.size, size, strict=True)]
        centre = [c + s for c, s in zip(centre, steps.vector, strict=True)]
    return Answer(None, centre, size)


def minimum_diameter(rows: Rows, f: int) -> Answer:
    """Every set of n − f rows; of those that tie, the one that ranks first."""
    n, table = len(rows), distances(rows)
    scores = [score(table, i, list(range(n)), n - f - 1) for i in range(n)]
    rank, place = {}, 0
    ordered = sorted(range(n), key=lambda i: scores[i])
    for before, i in zip([None, *ordered], ordered, strict=False):
        place += before is not None and scores[i] > scores[before] * (1 + 1e-12)
        rank[i] = (place, i)
    sets = list(combinations(range(n), n - f))
    array = np.array(table)
    diameters = [float(array[np.ix_(s, s)].max()) for s in sets]
    limit = min(diameters) * (1 + 1e-12)
    winners = [s for s, d in zip(sets, diameters, strict=True) if d <= limit]
    return mean_of(rows, list(min(winners, key=lambda s: sorted(rank[i] for i in s))))


def smallest_eigenvalue(rows: Rows, f: int) -> Answer:
    """Every set of n − f rows, its covariance by singular values of the centred rows."""
    sets = list(combinations(range(len(rows)), len(rows) - f))
    largest = []
    for chosen in sets:
        x = np.array([rows[i] for i in chosen]) - np.array(rows[chosen[0]])
        x = x - x.mean(axis=0)
        largest.append(float(np.linalg.norm(x, ord=2)) ** 2)
    limit = min(largest) * (1 + 1e-10)
    return mean_of(rows, list(next(s for s, v in zip(sets, largest, strict=True) if v <= limit)))


def fl_trust(rows: Rows, f: int) -> Answer:
    """The root is the rows' median, as the table of rules gives it."""
    root = median(rows, f).vector
    length = math.hypot(*root)
    zero = [0.0] * len(root)
    columns, total = [], 0.0
    for row in rows:
        norm = math.hypot(*row)
        if norm == 0 or length == 0:
            continue
        cosine = math.fsum((a / norm) * (b / length) for a, b in zip(row, root, strict=True))
        trust = cosine if cosine > 1e-12 else 0.0
        total += trust
        columns.append([trust * (length / norm) * v for v in row])
    if total == 0:
        return Answer(None, zero, zero)
    sums = average(columns_of(columns))
    factor = len(columns) / total
    return Answer(
        None, [factor * v for v in sums.vector], [factor * v + 1e-3 * length for v in sums.size]
    )


def mixed(rows: Rows, f: int) -> tuple[Rows, Rows]:
    """The mean of each row's neighbourhood, and the greatest size of what it is the mean of."""
    table = distances(rows)
    nearest = [best(dict(enumerate(line)), len(rows) - f) for line in table]
    columns = [columns_of([rows[j] for j in neighbours]) for neighbours in nearest]
    sizes = [[max(map(abs, c)) for c in around] for around in columns]
    return [[math.fsum(c) / len(c) for c in around] for around in columns], sizes


def mixed_trimmed_mean(rows: Rows, f: int) -> Answer:
    """Large values that cancel in a mix leave rounding of their own size, unless it is trimmed."""
    means, sizes = mixed(rows, f)
    error = []
    for column, size in zip(columns_of(means), columns_of(sizes), strict=True):
        order = sorted(range(len(rows)), key=lambda i: column[i])
        error.append(1e-15 * max(size[i] for i in order[f : len(rows) - f]))
    return trimmed_mean(means, f)._replace(error=error)


def buckets(n: int, s: int) -> list[list[int]]:
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0)).tolist()
    return [order[k : k + s] for k in range(0, n, s)]


def bucketed_trimmed_mean(rows: Rows, f: int) -> Answer:
    """In buckets of two."""
    means = [average(columns_of([rows[i] for i in b])).vector for b in buckets(len(rows), 2)]
    return trimmed_mean(means, f)
