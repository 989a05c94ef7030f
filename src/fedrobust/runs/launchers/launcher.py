"""What every launcher of a sweep does, and what it is given to play."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fedrobust.compute.execution import default_device
from fedrobust.runs.grid import Cell
from fedrobust.typing import Json

SECONDS = 0.2
"""The seconds between two looks at the running cells."""
LOST = 5
"""How often in a row a cell's process may be lost without a further round, where it is retried."""
_OURS = "FEDROBUST_"


@dataclass(frozen=True)
class Job:
    """A cell to play: everything that a process needs to know, on this machine or another.

    ``config`` is the user's own config, not a record of it. ``path`` is the cell's run directory,
    and ``report`` the file in which it says how far it is. ``places`` are the folders of the user's
    own modules, ``before`` is the value of ``beside.safe_path``, and ``folder`` is the working
    directory. ``environment`` has variables to set. ``threads`` are the processor's cores for it.
    The process waits ``patience`` seconds for a run directory that another one holds. Where the
    launcher retries by itself, a cell gives up after ``lives`` lost processes in a row.
    """

    name: str
    config: Json
    path: Path
    report: Path
    other_processor: bool
    places: tuple[str, ...]
    folder: Path
    before: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    patience: float = 0.0
    lives: int | None = None


class Pool(Protocol):
    """The cells of one sweep that are being played. It is made anew for each sweep."""

    def check(self, out: Path, cells: Sequence[Cell]) -> None:
        """Refuse a folder, or cells, that cannot be played here. Nothing is written before.

        Raises: ``UserError``.
        """

    def begin(self, out: Path, cells: Sequence[Cell], jobs: int | None) -> int:
        """Get ready for the cells that are not finished; return how many to start at a time.

        ``jobs`` is how many the user wants to be played at a time, None without a wish.
        """

    def start(self, jobs: Sequence[Job]) -> None:
        """Start cells. Raises: ``UserError`` where none can be started."""

    def ended(self) -> dict[str, str | None]:
        """Return which cells have ended since the last call, each with the text of its failure.

        The text is None where the cell was played to its end. Waits a moment.
        """

    def stop(self) -> None:
        """End the cells that are being played, and wait until they have ended."""


class Launcher(Protocol):
    """Where the cells of a sweep are played."""

    def opened(self) -> AbstractContextManager[Pool]:
        """Within the context, cells can be started. Raises: ``UserError`` where they cannot."""


def device(cell: Cell) -> str:
    """Return the device of a cell that is played on this machine."""
    return cell.experiment.execution.device or default_device()


def own_variables() -> dict[str, str]:
    """Return the environment variables that fedrobust reads, for a process on another machine."""
    return {key: value for key, value in os.environ.items() if key.startswith(_OURS)}
