"""A sweep in its folder: its cells as runs, its table and its figures."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from fedrobust.config.text import printable, shortened
from fedrobust.config.trust import NOTHING, Trusted
from fedrobust.errors import RecordError
from fedrobust.records.reading import json_of, present
from fedrobust.records.schema.sweep import SweepRecord
from fedrobust.report import drawings
from fedrobust.report.page import write_report
from fedrobust.report.sweep.columns import COLUMNS, shown, table
from fedrobust.report.sweep.records import SweepCell, SweepRecords
from fedrobust.results.frames import frame
from fedrobust.results.run import Run
from fedrobust.results.sources import Directory

if TYPE_CHECKING:
    import pandas as pd


class Sweep:
    """The cells of a sweep, as runs by name. ``sweep["krum-none-2"]`` opens one of them."""

    def __init__(self, path: Path, trusted: Trusted = NOTHING) -> None:
        """Open the sweep at ``path``. Raises: ``RecordError`` where sweep.json is broken."""
        self.path, self._trusted = path, trusted
        self._record = json_of(path / "sweep.json", SweepRecord)

    @property
    def name(self) -> str:
        """The name of the sweep."""
        return self._record.name

    @property
    def axes(self) -> Mapping[str, tuple[str, ...]]:
        """The axes of the grid, each with the labels of its places."""
        return self._record.axes

    @property
    def config(self) -> Any:
        """The config of the sweep as it was given; None in records of earlier versions."""
        return self._record.config

    @property
    def cells(self) -> tuple[str, ...]:
        """The names of all cells, finished or not."""
        return tuple(cell.name for cell in self._record.cells)

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the cells that are not finished."""
        folder = self.path / "cells"
        return tuple(name for name in self.cells if not present(folder / name / "summary.json"))

    @property
    def failed(self) -> Mapping[str, str]:
        """Why the cells that failed did; empty where none did, or none is finished."""
        return self._records.failed if len(self.missing) < len(self.cells) else {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, cell: str) -> Run:
        """Open the run of a cell. Raises: ``RecordError`` for a cell that is not there."""
        if cell not in self.cells:
            there = shortened(", ".join(self.cells), 300)
            raise RecordError(f"{self.path} has no cell {shortened(cell, 60)!r}; it has: {there}")
        return Run(Directory(self.path / "cells" / cell, self._trusted))

    @cached_property
    def _records(self) -> SweepRecords:
        return SweepRecords.read(self.path)

    @property
    def _finished(self) -> list[SweepCell]:
        return [cell for group in self._records.groups for cell in group.cells]

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures that :meth:`figure` draws."""
        return tuple(self._drawings)

    @cached_property
    def _drawings(self) -> drawings.Drawings:
        return drawings.of_sweep(self.path, self._trusted)

    def figure(self, name: str, width: float | None = None) -> Figure:
        """Return a figure of the sweep's page as a matplotlib figure, ``width`` inches wide.

        Raises: ``ConfigError`` for a name that is not among ``figures``.
        """
        return drawings.drawn(self._drawings, name, width)

    def report(self, out: Path | str | None = None) -> Path:
        """Write the page of the sweep, by default to ``report`` in its folder; return its path."""
        return write_report([self.path], None if out is None else Path(out), trust=self._trusted)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one line for each finished cell: its labels, and the scores of its last model.

        Raises: ``ConfigError`` where pandas is not installed.
        """
        found, _ = table(self._records)
        return frame(
            [
                {"cell": cell.name, **cell.labels, **{name: COLUMNS[name](cell) for name in found}}
                for cell in self._finished
            ]
        )

    def __repr__(self) -> str:
        axes = " × ".join(f"{len(labels)} {axis}" for axis, labels in self.axes.items())
        return printable(f"<Sweep {self.name}: {len(self.cells)} cells ({axes})>")

    def _repr_html_(self) -> str:
        """Return the table of the sweep for a notebook: medians over the seeds."""
        if len(self.missing) == len(self.cells):
            return f"<p>{escape(repr(self))}: no cell is finished</p>"
        found, rows = table(self._records)
        lines = [[*self._records.axes, *found]]
        lines += [[*group.labels, *map(shown, found, values)] for group, values in rows]
        texts = [
            Markup("<tr>") + Markup("").join(map(Markup(f"<{tag}>{{}}</{tag}>").format, line))
            for tag, line in zip(["th"] + ["td"] * len(rows), lines, strict=True)
        ]
        return str(Markup("<table>") + Markup("").join(texts) + Markup("</table>"))
