"""Rules that select rows by the squared distances of all pairs, and combine the selected ones."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from fedrobust.aggregators.aggregator import Aggregation, Aggregator, Context
from fedrobust.aggregators.checks import validated
from fedrobust.aggregators.kernels.dispatch import squared_distances
from fedrobust.typing import Indices, Updates, Vector


@runtime_checkable
class Selects(Aggregator, Protocol):
    """A rule in two steps. The first needs only distances, the second works per coordinate."""

    def chosen(self, distances: Tensor) -> Indices:
        """Return the indices, ascending, that the squared distances [n, n] select."""
        ...

    def combined(self, updates: Updates, kept: Indices) -> Vector:
        """Return the vector [d] of the rows ``kept``; each coordinate by itself."""
        ...


def by_selection(rule: Selects, updates: Updates, context: Context) -> Aggregation:
    """Return what ``rule`` makes of the rows that it selects, and their indices."""
    updates = validated(rule, updates, context)
    kept = rule.chosen(squared_distances(updates))
    return Aggregation(rule.combined(updates, kept), kept)
