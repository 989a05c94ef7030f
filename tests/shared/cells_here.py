"""Sweeps whose cells are played in this process, where each in its own would take seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fedrobust.runs.sweep
from fedrobust import run
from fedrobust.config.component import from_config
from fedrobust.errors import UserError
from fedrobust.experiment import Experiment
from fedrobust.progress import Progress


class OneByOne:
    """The cells of a sweep, one after the other."""

    def __init__(self, out: Path, threads: int, other: bool, watch: Any) -> None:
        self._out = out
        self.running: dict[str, Any] = {}
        self.failures: dict[str, str] = {}

    def start(self, cell: Any) -> None:
        path = self._out / "cells" / cell.name
        quiet = Progress(repaired=lambda text: None)
        try:
            run(from_config(Experiment, cell.config), path, resume=path.exists(), progress=quiet)
        except UserError as error:
            self.failures[cell.name] = str(error)

    def look(self) -> None:
        """There is nothing to wait for."""

    def stop(self) -> None:
        """There is nothing to stop."""


@contextmanager
def in_this_process() -> Iterator[None]:
    """Within, sweeps play their cells here."""
    pool = fedrobust.runs.sweep._Pool
    fedrobust.runs.sweep._Pool = OneByOne  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        fedrobust.runs.sweep._Pool = pool  # type: ignore[misc]
