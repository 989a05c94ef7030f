"""Rules on updates that are never in memory as a whole: block after block of coordinates.

A rule that works per coordinate says so by ``by_coordinate = True``. A rule that selects rows by
their distances has the two steps of :class:`~fedrobust.aggregators.selection.Selects`: squared
distances add up over blocks, and the selected rows are combined block by block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedrobust.aggregators import AGGREGATORS
from fedrobust.aggregators.aggregator import (
    Aggregation,
    Aggregator,
    Context,
    apply,
    called,
    check,
)
from fedrobust.aggregators.answers import indices, vector
from fedrobust.aggregators.checks import validated
from fedrobust.aggregators.kernels.dispatch import recut, squared_distances
from fedrobust.aggregators.selection import Selects
from fedrobust.compute.memory import available_memory
from fedrobust.config.kind import name_of
from fedrobust.errors import ConfigError
from fedrobust.typing import Updates


class Shape(Protocol):
    """How large a round's updates are."""

    @property
    def n(self) -> int:
        """The number of rows."""
        ...

    @property
    def d(self) -> int:
        """The number of coordinates."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The kind of the numbers."""
        ...


class Columns(Shape, Protocol):
    """The updates of n clients, of which only some coordinates are in memory at a time."""

    def blocks(self, rows: Sequence[int] | None = None) -> Iterator[Updates]:
        """Yield blocks [n, w] of neighbouring coordinates, in order; each call is a new pass.

        With ``rows``, ascending, a block holds only these rows. A block is not used any more when
        the next is asked for.
        """
        ...


@dataclass(frozen=True)
class SomeRows:
    """The rows ``chosen``, ascending, of ``columns``."""

    columns: Columns
    chosen: Sequence[int]

    @property
    def n(self) -> int:
        """The number of these rows."""
        return len(self.chosen)

    @property
    def d(self) -> int:
        """The number of coordinates."""
        return self.columns.d

    @property
    def dtype(self) -> torch.dtype:
        """The kind of the numbers."""
        return self.columns.dtype

    def blocks(self, rows: Sequence[int] | None = None) -> Iterator[Updates]:
        """Yield the blocks of these rows, or of some of them."""
        chosen = self.chosen if rows is None else [self.chosen[row] for row in rows]
        return self.columns.blocks(chosen)


def aggregate_in_blocks(rule: Aggregator, columns: Columns, context: Context) -> Aggregation:
    """Return the answer of ``rule`` for ``columns``, of which it sees one block at a time.

    A rule that works per coordinate gives the bits that it gives for the whole matrix, wherever the
    coordinates are cut. A rule that selects rows takes two passes. Its vector has the bits of the
    same selection from the whole matrix. The order in which distances are summed differs, by about
    1e-13 of each: the selection is the same unless scores differ by one part in 10¹² or less.

    Raises: ``ConfigError`` for a rule that needs whole rows; what the rule raises for its rows.
    """
    require_in_blocks(rule, columns.n, columns.d, columns.dtype)
    check(rule, columns.n)
    name = called(rule)
    if isinstance(rule, Selects):
        kept = indices(name, rule.chosen(_distances(rule, columns, context)), columns.n)
        # The selected rows are all that the second pass asks for.
        rows, every = kept.tolist(), torch.arange(len(kept), device=kept.device)
        pieces = recut(columns.blocks(rows), len(rows))
        parts = (vector(name, rule.combined(piece, every), piece) for piece in pieces)
        return Aggregation(_joined(parts, columns.d), kept)
    pieces = recut(columns.blocks(), columns.n)
    return Aggregation(_joined((apply(rule, p, context).vector for p in pieces), columns.d))


def works_in_blocks(kind: type) -> bool:
    """Whether rules of this class can be asked for one block of coordinates after another.

    The class itself must say so: one that inherits from such a rule may do something else.
    """
    own = vars(kind)
    return own.get("by_coordinate") is True or {"chosen", "combined"} <= own.keys()


def require_in_blocks(rule: Aggregator, n: int, d: int, dtype: torch.dtype) -> None:
    """Refuse a rule that needs whole rows.

    Raises: ``ConfigError`` that says how large the matrix is, and which rules need less.
    """
    if works_in_blocks(type(rule)):
        return
    whole, free = n * d * dtype.itemsize, available_memory("cpu")
    names = ", ".join(name_of(each) for each in AGGREGATORS if works_in_blocks(each))
    raise ConfigError(
        f"the rule {called(rule)} needs whole rows, and cannot work in blocks of coordinates: the "
        f"updates of {n:,} clients × {d:,} coordinates take {whole / 2**30:,.1f} GiB, and "
        f"{free / 2**30:,.1f} GiB are free. These rules work in blocks: {names}"
    )


def _distances(rule: Aggregator, columns: Columns, context: Context) -> Tensor:
    """Return the squared distances of all pairs of rows, added up over the blocks, in float64."""
    total: Tensor | None = None
    for piece in recut(columns.blocks(), columns.n):
        found = squared_distances(validated(rule, piece, context))
        total = found if total is None else total.add_(found)
    assert total is not None
    return total


def _joined(parts: Iterator[Tensor], d: int) -> Tensor:
    """Return the parts of a vector [d] as one."""
    out: Tensor | None = None
    start = 0
    for part in parts:
        if out is None:
            out = part.new_empty(d)
        out[start : start + len(part)] = part
        start += len(part)
    assert out is not None
    return out
