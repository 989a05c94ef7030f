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

    def __init__(self) -> None:
        self._ended: dict[str, str | None] = {}

    def check(self, out: Path, cells: Any) -> None:
        """There is nothing to refuse."""

    def begin(self, out: Path, cells: Any, jobs: int | None) -> int:
        return 1

    def start(self, jobs: Any) -> None:
        quiet = Progress(repaired=lambda text: None)
        for job in jobs:
            experiment = from_config(Experiment, job.config)
            self._ended[job.name] = None
            try:
                run(experiment, job.path, resume=job.path.exists(), progress=quiet)
            except UserError as error:
                self._ended[job.name] = str(error)

    def ended(self) -> dict[str, str | None]:
        ended, self._ended = self._ended, {}
        return ended

    def stop(self) -> None:
        """There is nothing to stop."""


class Here:
    """Cells are played in this process."""

    @contextmanager
    def opened(self) -> Iterator[OneByOne]:
        yield OneByOne()


@contextmanager
def in_this_process() -> Iterator[None]:
    """Within, sweeps play their cells here."""
    usual = fedrobust.runs.sweep.Processes
    fedrobust.runs.sweep.Processes = Here  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        fedrobust.runs.sweep.Processes = usual  # type: ignore[misc]
