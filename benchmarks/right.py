"""Compute the right answers in float64 for the benchmark of the aggregators.

Speed and memory do not matter here. All methods work on the differences from the first row, which
are exact in float64, so that a common offset of the rows costs no digits.
"""

from functools import cached_property

import torch
from torch import Tensor


class Right:
    """The right answers for one matrix of updates [n, d]."""

    def __init__(self, updates: Tensor) -> None:
        self.first = updates[0].double()
        self.x = updates.double() - self.first

    @cached_property
    def ordered(self) -> Tensor:
        """The matrix with each column sorted."""
        return self.x.sort(dim=0).values

    @cached_property
    def distances(self) -> Tensor:
        """The squared distances between rows, [n, n]."""
        return torch.stack([((self.x - row) ** 2).sum(dim=1) for row in self.x])

    def mean(self) -> Tensor:
        """Return the mean of the rows."""
        return self.x.mean(dim=0) + self.first

    def middle(self, drop: int) -> Tensor:
        """Return the mean without the ``drop`` least and greatest values of each column."""
        return self.ordered[drop : len(self.x) - drop].mean(dim=0) + self.first

    def around(self, keep: int) -> Tensor:
        """Return the mean of the values closest to the median; of ties, the lower value counts."""
        return closest(self.ordered, keep) + self.first

    def krum(self, neighbours: int, m: int) -> Tensor:
        """Return the mean of the m rows with the least Krum scores."""
        scores = self.distances.sort(dim=1).values[:, 1 : neighbours + 1].sum(dim=1)
        return self.x[scores.argsort()[:m]].mean(dim=0) + self.first

    def bulyan(self, f: int) -> Tensor:
        """Select rows by iterated Krum, and return the mean around their median."""
        rows, kept = list(range(len(self.x))), []
        for _ in range(len(rows) - 2 * f):
            among = self.distances[rows][:, rows].sort(dim=1).values
            place = int(among[:, 1 : max(1, len(rows) - f - 2) + 1].sum(dim=1).argmin())
            kept.append(rows.pop(place))
        return closest(self.x[kept].sort(dim=0).values, len(kept) - 2 * f) + self.first

    def geometric_median(self) -> Tensor:
        """Iterate Weiszfeld's step until the centre no longer moves."""
        centre = self.x.mean(dim=0)
        for _ in range(1000):
            weights = 1 / (self.x - centre).norm(dim=1)
            last, centre = centre, weights @ self.x / weights.sum()
            if (centre - last).norm() <= 1e-12 * centre.norm():
                break
        return centre + self.first

    def clipped(self, radius: float) -> Tensor:
        """Return the mean of the rows, each clipped to the length ``radius``."""
        shares = [min(1.0, radius / float((row + self.first).norm())) for row in self.x]
        weights = torch.tensor(shares, dtype=torch.float64) / len(self.x)
        return weights @ self.x + weights.sum() * self.first

    def trusted(self, root: Tensor) -> Tensor:
        """Return the rows scaled to the root update's length, weighted by their cosine with it."""
        length, rows = root.double().norm(), self.x + self.first
        norms = rows.norm(dim=1)
        trust = (rows @ root.double() / (norms * length)).clamp(min=0)
        return (trust * length / norms / trust.sum()) @ rows

    def mixed(self, keep: int, drop: int) -> Tensor:
        """Average each row with its nearest rows, and return the trimmed mean of the averages."""
        nearest = self.distances.topk(keep, largest=False).indices
        mix = torch.stack([self.x[rows].mean(dim=0) for rows in nearest])
        return mix.sort(dim=0).values[drop : len(mix) - drop].mean(dim=0) + self.first

    def flattest(self) -> Tensor:
        """Return the mean without the row whose removal gives the smallest largest eigenvalue."""
        spreads = []
        for left in range(len(self.x)):
            rows = [i for i in range(len(self.x)) if i != left]
            among = self.distances[rows][:, rows]
            centred = among - among.mean(dim=0) - among.mean(dim=1, keepdim=True) + among.mean()
            spreads.append(float(torch.linalg.eigvalsh(-centred / 2)[-1]))
        out = min(range(len(self.x)), key=spreads.__getitem__)
        return (self.x.sum(dim=0) - self.x[out]) / (len(self.x) - 1) + self.first


def closest(ordered: Tensor, keep: int) -> Tensor:
    """Return the mean of the ``keep`` values of each sorted column closest to its median."""
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    order = (ordered - middle).abs().argsort(dim=0, stable=True)[:keep]
    return ordered.gather(0, order).mean(dim=0)
