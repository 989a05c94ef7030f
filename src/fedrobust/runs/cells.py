"""What there is of a sweep's cells in its folder: begun, finished, damaged, or another sweep's."""

from pathlib import Path

from fedrobust.errors import ConfigError, RecordError
from fedrobust.records.reading import (
    evaluations_of,
    json_of,
    mapping_of,
    present,
    rounds_of,
    tensors_of,
)
from fedrobust.records.schema.run import Round, Summary
from fedrobust.records.schema.sweep import SweepRecord
from fedrobust.runs.directory import Json
from fedrobust.runs.grid import Cell, Sweep, same

CELLS = "cells"
"""The folder within a sweep's that has a run directory for each cell."""


def begun_with(out: Path) -> int | None:
    """The threads of the cells of a sweep whose record is lost; None where there are none."""
    for path in sorted((out / CELLS).glob("*/config.yaml")):
        plan = (_config_of(path) or {}).get("execution")
        threads = plan.get("threads") if isinstance(plan, dict) else None
        if type(threads) is int and 1 <= threads <= 4096:
            return threads
    return None


def _config_of(path: Path) -> Json | None:
    """The config of a cell; None where it is broken, which the cell itself says when it is played.

    A sweep goes on with its other cells.
    """
    try:
        return mapping_of(path)
    except RecordError:
        return None


def require_grown(stored: SweepRecord, sweep: Sweep, out: Path) -> None:
    """A grid may gain cells, such as further seeds; those that were there must be as they were.

    Raises: ``RecordError``.
    """
    cells = {cell.name: cell for cell in sweep.cells}
    lost = [cell.name for cell in stored.cells if cell.name not in cells]
    for name, cell in cells.items():
        path = out / CELLS / name / "config.yaml"
        if present(path) and (config := _config_of(path)) and not _same(cell, config):
            lost.append(name)
    if lost:
        raise RecordError(
            f"{out} holds a sweep of another config: this one has no cell {lost[0]}, or an altered "
            "one. A grid can gain cells, such as seeds, and go on; otherwise choose another --out"
        )


def _same(cell: Cell, config: Json) -> bool:
    """Whether ``config`` is the cell's; also where it is none, as the cell itself then says."""
    try:
        return same(cell, config)
    except (ConfigError, AttributeError, TypeError, ValueError):
        return True


def finished(cell: Cell, out: Path) -> bool:
    """Whether the cell's run is there and done. Raises: ``RecordError`` where another's is.

    One whose records are damaged is not: its run makes them again, or says why it cannot.
    """
    path = out / CELLS / cell.name
    if not present(path / "summary.json"):
        return False
    config = _config_of(path / "config.yaml")
    if config is None:
        return False
    if not _same(cell, config):
        raise RecordError(f"{path} holds a run of another config; choose another --out")
    return not _damaged(path, config)


def _damaged(path: Path, config: Json) -> bool:
    """Whether a finished run's records are damaged, and it can put them right."""
    try:
        summary = json_of(path / "summary.json", Summary)
        if (path / "checkpoint.pt").exists():
            metrics = evaluations_of(path / "metrics.jsonl", config)
            rounds = rounds_of(path / "rounds.jsonl", Round)
            if not metrics or not metrics[-1].round == len(rounds) == summary.rounds:
                return True
            for name in ("model", "best"):
                tensors_of(path / f"{name}.safetensors")
    except RecordError:
        return True  # the run says which, when it goes on
    return False
