"""Open what fedrobust has written: a run, a sweep or an audit."""

import os
from pathlib import Path

from fedrobust.config.trust import trusting
from fedrobust.errors import RecordError
from fedrobust.records.reading import present
from fedrobust.records.schema.reproduction import FILE as REPRODUCTION
from fedrobust.results.audit import StoredAudit
from fedrobust.results.run import Run
from fedrobust.results.sources import Directory
from fedrobust.results.sweep import Sweep


def open(path: Path | str, *, trust: bool = False) -> Run | Sweep | StoredAudit:
    """Open a run directory, the folder of a sweep, or the folder of an audit.

    Nothing is played and nothing is changed. A run need not be finished. ``trust`` lets the configs
    name code (``module:name``) as their model, their data or another part; this code is then run.

    Raises: ``RecordError`` for a folder that holds none of these, or that is broken.
    """
    path = Path(path)
    if not os.path.isdir(path):
        raise RecordError(f"{path} is not a folder; give what fedrobust run, sweep or audit wrote")
    if present(path / "sweep.json"):
        return Sweep(path, trusting(trust))
    if present(path / "audit.json"):
        return StoredAudit(path)
    if present(path / "config.yaml"):
        return Run(Directory(path, trusting(trust)))
    if present(path / REPRODUCTION):
        parts = sorted(part.parent.name for part in path.glob("*/sweep.json"))
        raise RecordError(
            f"{path} is a reproduction; open one of its sweeps: {', '.join(parts) or 'none yet'}"
        )
    raise RecordError(
        f"{path} holds no config.yaml, sweep.json or audit.json, so it is no run, sweep or audit"
    )
