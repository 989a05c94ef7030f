"""Check the cells in a sweep's folder: begun, finished, damaged, or of another sweep."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedrobust.config.component import to_config
from fedrobust.config.differences import differing, told
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
from fedrobust.runs.grid import Cell, Sweep
from fedrobust.runs.older_configs import completed
from fedrobust.runs.resume import require_told
from fedrobust.typing import Json

CELLS = "cells"
"""The subfolder of a sweep with a run directory for each cell."""


def _config_of(path: Path) -> Json | None:
    """Return the config of a cell; None where it is broken.

    The cell reports a broken config itself when it is played, and the sweep goes on with the other
    cells.
    """
    try:
        return mapping_of(path)
    except RecordError:
        return None


def require_grown(stored: SweepRecord, sweep: Sweep, out: Path) -> None:
    """Check that a grid has only gained cells, such as more seeds. Old cells must be unchanged.

    Raises: ``RecordError``.
    """
    cells = {cell.name: cell for cell in sweep.cells}
    lost = [cell.name for cell in stored.cells if cell.name not in cells]
    why = f"this one has no cell {lost[0]}" if lost else ""
    for name, cell in cells.items():
        path = out / CELLS / name / "config.yaml"
        if not why and present(path) and (config := _config_of(path)):
            altered = _altered(cell, config)
            why = f"its cell {name} is another run: {altered}" if altered else ""
    if not why and not _extends(stored.config, sweep.content):
        require_comparable(sweep, out)
    if why:
        raise RecordError(
            f"{out} holds a sweep of another config: {why}. "
            "A grid can gain cells, such as seeds, and go on; otherwise choose another --out"
        )


def require_comparable(sweep: Sweep, out: Path) -> None:
    """Refuse cells with objects that nothing compares with those of the stored runs.

    Raises: ``RecordError``.
    """
    for cell in sweep.cells:
        if present((path := out / CELLS / cell.name) / "config.yaml"):
            require_told(path, to_config(cell.experiment))


def _extends(stored: object, content: str) -> bool:
    """Whether a sweep's whole config is the stored one with further choices, and else unchanged."""
    new = json.loads(content)
    try:
        old = json.loads(stored)  # type: ignore[arg-type]
        pairs = zip(old["grid"], new["grid"], strict=False)
        return bool(
            old["base"] == new["base"]
            and len(old["grid"]) <= len(new["grid"])
            and all(
                _choices(choices) <= _choices(after[axis])
                for before, after in pairs
                for axis, choices in before.items()
            )
        )
    except (AttributeError, KeyError, TypeError, ValueError):  # of an older version, or damaged
        return False


def _choices(axis: Any) -> set[str]:
    """Return the choices of an axis of a grid, each as a text."""
    each = axis.items() if isinstance(axis, dict) else axis
    return {json.dumps(choice, sort_keys=True) for choice in each}


def differences(cell: Cell, stored: Mapping[str, Any]) -> list[str]:
    """Return in what ``stored``, the config of a run, differs from the cell's.

    The execution plan may differ, but not in its precision where the cell's has one.

    Raises: ``ConfigError``, and errors of Python's own, where the stored config is broken.
    """
    asked = to_config(cell.experiment)
    found = completed(stored, like=asked)
    wanted = asked.pop("execution")["precision"]
    kept = found.pop("execution", {}).get("precision")
    several = list(differing(found, asked))
    if wanted not in (None, kept):
        several.append(f"execution.precision: {kept} there, {wanted} here")
    return several


def _altered(cell: Cell, config: Json) -> str:
    """Return in words in what ``config`` differs from the cell's; empty where it is the cell's.

    A broken config is the cell's, which reports it itself.
    """
    try:
        several = differences(cell, config)
    except (ConfigError, AttributeError, TypeError, ValueError):
        return ""
    if not several:
        return ""
    alone = len(several) == 1 and several[0].startswith("rounds: ")
    more = "; a sweep cannot extend or shorten its cells" if alone else ""
    return f"they differ in {told(several)}{more}"


def finished(cell: Cell, out: Path) -> bool:
    """Whether the cell's run is finished. Raises: ``RecordError`` if the run is of another config.

    A run with damaged records is not finished: playing it makes them again, or says why it cannot.
    """
    path = out / CELLS / cell.name
    config = _config_of(path / "config.yaml") if present(path / "config.yaml") else None
    if config is None:
        return False
    if altered := _altered(cell, config):
        raise RecordError(f"{path} holds a run of another config: {altered}; choose another --out")
    return present(path / "summary.json") and not _damaged(path, config)


def _damaged(path: Path, config: Json) -> bool:
    """Whether the records of a finished run are damaged. Resuming the run can mend them."""
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
        return True  # the run names the damaged record when it goes on
    return False
