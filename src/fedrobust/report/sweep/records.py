"""Read a sweep for the report: the cells from their run directories, grouped by place.

Cells that differ only in their seed are one group. A figure of a group is the median over the
seeds, with the smallest and the largest value.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from fedrobust.errors import RecordError
from fedrobust.records.reading import (
    broken,
    evaluations_of,
    json_of,
    lines_of,
    mapping_of,
    present,
    shaped,
    text_of,
)
from fedrobust.records.schema.learned import LearnedReport
from fedrobust.records.schema.run import Summary, Troubles
from fedrobust.records.schema.sweep import SweepRecord

SEED = "seed"


@dataclass(frozen=True)
class Spread:
    """The median of a figure over the seeds, with the smallest and the largest value.

    Infinity stands for a value that is not finite: a model that has blown up counts as the worst.
    """

    middle: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class SweepCell:
    """One finished cell: its place, its config, and its summary."""

    name: str
    labels: Mapping[str, str]
    path: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def final(self) -> Mapping[str, Any]:
        """The test scores of the model after the last round."""
        scores: Mapping[str, Any] = self.summary["test"]["final"]
        return scores

    @property
    def wasserstein(self) -> Mapping[str, Any]:
        """The cell's certificate on the test split; empty where none was measured."""
        found: Mapping[str, Any] = self.final.get("wasserstein") or {}
        return found

    @cached_property
    def metrics(self) -> list[Mapping[str, Any]]:
        """The evaluations on held-out examples during training, one mapping for each."""
        path = self.path / "metrics.jsonl"
        found = evaluations_of(path, self.config)
        if not found or found[-1].round != self.summary["rounds"]:
            raise broken(path, f"it does not end with round {self.summary['rounds']}")
        return list(lines_of(path, dict))

    @property
    def attacked(self) -> bool:
        """Whether the cell has malicious clients."""
        return bool(self.config["malicious"])


@dataclass(frozen=True)
class Group:
    """The cells at one place, one for each seed."""

    labels: tuple[str, ...]
    cells: tuple[SweepCell, ...]

    def spread(self, figure: Callable[[SweepCell], float | None]) -> Spread | None:
        """Return the spread of ``figure`` over the seeds; None where a cell does not have it."""
        return spread(self.cells, figure)


def spread(
    cells: Sequence[SweepCell], figure: Callable[[SweepCell], float | None]
) -> Spread | None:
    """Return the spread of ``figure`` over ``cells``; None where a cell does not have it."""
    values = [v for v in map(figure, cells) if v is not None]
    if not values or len(values) < len(cells):
        return None
    return Spread(median(values), min(values), max(values), len(values))


def count(cells: Sequence[SweepCell], figure: Callable[[SweepCell], float | None]) -> Spread | None:
    """Return the sum of ``figure`` over ``cells``; None where a cell does not have it."""
    values = [v for v in map(figure, cells) if v is not None]
    if not values or len(values) < len(cells):
        return None
    return Spread(sum(values), sum(values), sum(values), len(values))


@dataclass(frozen=True)
class Unfinished:
    """One cell that is not finished: its place, whether it was begun, and why it failed, if so."""

    labels: Mapping[str, str]
    begun: bool = False
    failure: str | None = None


@dataclass(frozen=True)
class SweepRecords:
    """The content of a sweep's folder, which is read once and never changed.

    ``axes`` are the axes other than the seed. ``groups`` are in the order of their labels.
    ``missing`` and ``failed`` name the cells that are not finished; ``unfinished`` says where in
    the sweep they are. ``reference`` names the attack that the others are compared with. ``order``
    has the labels of every axis, the seed included, in the order of the sweep.
    """

    path: Path
    name: str
    axes: tuple[str, ...]
    groups: tuple[Group, ...]
    missing: tuple[str, ...]
    failed: Mapping[str, str]
    reference: str | None = None
    unfinished: Mapping[str, Unfinished] = field(default_factory=dict)
    order: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "SweepRecords":
        """Read the sweep at ``path``.

        Raises: ``RecordError`` for a folder that is no sweep, is broken, or has no finished cell.
        """
        record = path / "sweep.json"
        content = json_of(record, SweepRecord)
        axes = tuple(axis for axis in content.axes if axis != SEED)
        cells, missing = [], []
        for entry in content.cells:
            if strange := _strange(content, entry.labels):
                raise broken(record, f"cell {entry.name} has {strange}, which no axis has")
            where = path / "cells" / entry.name
            if not present(where / "summary.json"):
                missing.append(entry.name)
                continue
            cells.append(SweepCell(entry.name, entry.labels, where, *_cell(where)))
        if not cells:
            raise RecordError(f"{path}: no cell of this sweep is finished yet")
        places: dict[tuple[str, ...], list[SweepCell]] = {}
        for cell in cells:
            places.setdefault(tuple(cell.labels.get(axis, "") for axis in axes), []).append(cell)
        failed = {
            name: _failure(text)
            for name in missing
            if (text := path / "failed" / f"{name}.txt").is_file()
        }
        # Sort axis by axis by the labels: a list of grids, or a grid that grew, is not in order.
        ranks = [["", *content.axes[axis]] for axis in axes]

        def place(labels: tuple[str, ...]) -> list[int]:
            return [rank.index(label) for rank, label in zip(ranks, labels, strict=True)]

        groups = tuple(Group(labels, tuple(places[labels])) for labels in sorted(places, key=place))
        unfinished = {
            entry.name: Unfinished(
                entry.labels,
                os.path.isdir(path / "cells" / entry.name),
                failed.get(entry.name),
            )
            for entry in content.cells
            if entry.name in set(missing)
        }
        found = path, content.name, axes, groups, tuple(missing), failed, content.reference
        return cls(*found, unfinished, content.axes)

    @property
    def seeds(self) -> int:
        """The largest number of seeds in a group."""
        return max(len(group.cells) for group in self.groups)

    @property
    def cells(self) -> list[SweepCell]:
        """All finished cells, group by group."""
        return [cell for group in self.groups for cell in group.cells]

    def labels(self, axis: str) -> list[str]:
        """Return the labels of ``axis`` that cells have, in the order of the sweep.

        An empty label stands for cells that have no place on this axis.
        """
        places = [cell.labels for cell in self.cells]
        places += [cell.labels for cell in self.unfinished.values()]
        known = dict.fromkeys(labels.get(axis, "") for labels in places)
        ordered = [label for label in ("", *self.order.get(axis, ())) if label in known]
        return ordered + [label for label in known if label not in ordered]


def _strange(content: SweepRecord, labels: Mapping[str, str]) -> str:
    """Return a label of a cell that the sweep's axes do not have; empty where there is none."""
    known = content.axes
    return next(
        (f"{a}: {label}" for a, label in labels.items() if label not in known.get(a, ())), ""
    )


def _cell(where: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and summary of a finished cell. Raises: ``RecordError`` if they are broken."""
    path, file = where / "summary.json", where / "config.yaml"
    summary = json_of(path, dict)
    try:
        found = shaped(Summary, summary)
    except ValueError as error:
        raise broken(path, error) from error
    if found.test is None:
        raise broken(path, "it has no test scores")
    try:
        shaped(Troubles, found.attack or {})
        if "observed_rounds" in (found.attack or {}):
            shaped(LearnedReport, found.attack)
    except ValueError as error:
        raise broken(path, f"attack: {error}") from error
    config = mapping_of(file)
    malicious, data = config.get("malicious"), config.get("data")
    if type(malicious) is not int or not isinstance(data, dict):
        raise broken(file, "its malicious or its data is missing")
    if type(config.get("rounds")) is not int:
        raise broken(file, "its rounds is missing or no int")
    if config.get("rounds") != found.rounds:
        told = f"it has {found.rounds} rounds, but {file.name} beside it has {config['rounds']}"
        raise broken(path, told)
    return config, summary


def _failure(path: Path) -> str:
    """Return the last line of a failed cell's file, which may have been cut off."""
    if path.is_symlink():
        return f"{path.name} is a link, which may lead anywhere: it was not read"
    lines = text_of(path, damaged=True).strip().splitlines()
    return lines[-1] if lines else f"{path.name} does not say why"
