"""A round's updates in Ray's object store, of which the server fetches one block at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedrobust.cluster.arrays import Sent
from fedrobust.cluster.workers import fetched
from fedrobust.errors import ConfigError
from fedrobust.typing import Updates

MOST = 1000
"""The most blocks of an update: each is an object of its own in the store."""
_AT_A_TIME = 32
"""The units of which a block is fetched at a time: the store need not hold the block of all."""


def widths_of(d: int, block: int) -> tuple[int, ...]:
    """Return the widths of the blocks of d coordinates; the last may be smaller.

    Raises: ``ConfigError`` where there would be too many.
    """
    if (count := -(-d // block)) > MOST:
        raise ConfigError(
            f"execution.block: {block:,} coordinates at a time cut an update of {d:,} into "
            f"{count:,} pieces, more than {MOST:,}; use {-(-d // MOST):,} or more"
        )
    return tuple(min(block, d - start) for start in range(0, d, block))


@dataclass(frozen=True)
class Part:
    """The rows of one unit: their places among all, and a reference for each block."""

    places: tuple[int, ...]
    blocks: tuple[Any, ...]


@dataclass(frozen=True)
class RayColumns:
    """The updates of a round's clients; blocks have the widths that workers cut them into.

    ``like`` has their kind of numbers and their device. If a machine is lost, Ray computes again
    what lay there.
    """

    parts: Sequence[Part]
    widths: tuple[int, ...]
    finite: Sequence[bool]
    like: Tensor

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.finite)

    @property
    def d(self) -> int:
        """The number of coordinates."""
        return sum(self.widths)

    @property
    def dtype(self) -> torch.dtype:
        """The kind of the numbers."""
        return self.like.dtype

    def blocks(self, rows: Sequence[int] | None = None) -> Iterator[Updates]:
        """Yield blocks of all rows, or of some. Only units that have such rows are asked.

        While a group of units is copied into its place, the next one is on its way.
        """
        place = {row: k for k, row in enumerate(range(self.n) if rows is None else rows)}
        parts = [part for part in self.parts if any(i in place for i in part.places)]
        groups = [parts[k : k + _AT_A_TIME] for k in range(0, len(parts), _AT_A_TIME)]
        asked = [(b, group) for b in range(len(self.widths)) for group in groups]
        with ThreadPoolExecutor(1, "fetching blocks") as pool:
            coming = [pool.submit(_group, *asked[0])] if asked else []
            for b, width in enumerate(self.widths):
                block = self.like.new_empty(len(place), width, device="cpu")
                for g, group in enumerate(groups):
                    found = coming.pop().result()
                    if (after := b * len(groups) + g + 1) < len(asked):
                        coming.append(pool.submit(_group, *asked[after]))
                    for part, sent in zip(group, found, strict=True):
                        for i, row in zip(part.places, sent.tensor(), strict=True):
                            if i in place:
                                block[place[i]] = row
                    del found
                yield block.to(self.like.device)
                del block


def _group(b: int, parts: Sequence[Part]) -> list[Sent]:
    """Return block ``b`` of the rows of some units."""
    return fetched([part.blocks[b] for part in parts])
