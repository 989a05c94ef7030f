"""A round's updates in blocks of coordinates, and what cannot be played on them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from fedrobust.aggregators import Aggregator
from fedrobust.aggregators.checks import finite_rows
from fedrobust.aggregators.in_blocks import Columns, Shape, require_in_blocks
from fedrobust.errors import ConfigError
from fedrobust.federation.threat import ThreatModel
from fedrobust.typing import Updates, Vector


class RoundColumns(Columns, Protocol):
    """The updates of a round's clients, of which the server holds one block at a time."""

    @property
    def finite(self) -> Sequence[bool]:
        """Whether each row is finite."""
        ...


@dataclass(frozen=True)
class Merged:
    """Rows that lie elsewhere, beside whole rows that are in memory: those of malicious clients.

    Row i is row ``here[i]`` of ``rows`` [m, d], or else row ``there[i]`` of ``columns``.
    """

    columns: RoundColumns
    there: Mapping[int, int]
    rows: Updates
    here: Mapping[int, int]

    @classmethod
    def of(
        cls,
        columns: RoundColumns,
        clients: Sequence[int],
        malicious: Sequence[int],
        working: Sequence[int],
        like: Vector,
    ) -> "Merged":
        """Return the rows of all ``clients``; ``columns`` has those at the places ``working``.

        The rows of ``malicious`` clients are fetched; they are zero where they are not in
        ``columns``. They have the kind and the device of ``like``.
        """
        there = {i: k for k, i in enumerate(working)}
        bad = [i for i, client in enumerate(clients) if client in set(malicious)]
        here = {i: k for k, i in enumerate(bad)}
        rows = like.new_zeros(len(bad), columns.d)
        if fetched := [i for i in bad if i in there]:
            at, start = [here[i] for i in fetched], 0
            for block in columns.blocks([there[i] for i in fetched]):
                rows[at, start : start + block.shape[1]] = block
                start += block.shape[1]
        return cls(columns, there, rows, here)

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.there.keys() | self.here.keys())

    @property
    def d(self) -> int:
        """The number of coordinates."""
        return self.columns.d

    @property
    def dtype(self) -> torch.dtype:
        """The kind of the numbers."""
        return self.columns.dtype

    @cached_property
    def finite(self) -> list[bool]:
        """Whether each row is finite."""
        mine = finite_rows(self.rows)
        return [
            mine[self.here[i]] if i in self.here else self.columns.finite[self.there[i]]
            for i in range(self.n)
        ]

    def blocks(self, rows: Sequence[int] | None = None) -> Iterator[Updates]:
        """Yield blocks of all rows, or of some; rows that are here are not fetched."""
        wanted = range(self.n) if rows is None else rows
        mine = [k for k, i in enumerate(wanted) if i in self.here]
        others = [k for k, i in enumerate(wanted) if i not in self.here]
        held = self.rows[[self.here[wanted[k]] for k in mine]]
        start = 0
        for block in self.columns.blocks([self.there[wanted[k]] for k in others]):
            whole, end = block, start + block.shape[1]
            if mine:
                whole = block.new_empty(len(wanted), block.shape[1])
                whole[others] = block
                whole[mine] = held[:, start:end]
            yield whole
            start = end


def require_columns(rule: Aggregator, columns: Shape, attacked: bool, threat: ThreatModel) -> None:
    """Refuse rounds that need whole rows of all clients.

    ``attacked``: an attack makes the rows of malicious clients. Raises: ``ConfigError``.
    """
    require_in_blocks(rule, columns.n, columns.d, columns.dtype)
    granted = [name for name in ("benign", "rule") if getattr(threat, name)]
    if attacked and granted:
        raise ConfigError(
            f"execution.block: with threat.{granted[0]}: true the attack works on whole updates of "
            f"all {columns.n:,} clients, which are not in memory; set threat.{granted[0]}: false "
            "if the attack does not need it, or leave execution.block out"
        )
