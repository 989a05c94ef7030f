"""What a cell says while it is played, in a file that the sweep reads, on any machine.

A reader may see an older file than the newest, as on a network's disk, or none. It then shows what
it knew before.
"""

import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from fedrobust.config.text import shortened
from fedrobust.errors import RecordError, WriteError
from fedrobust.files import atomically
from fedrobust.records.reading import json_of, present
from fedrobust.records.schema.sweep import CellReport

PLAYING = "playing"
"""The subfolder of a sweep with a file about each cell that is being played."""
EVERY = 0.5
"""The least seconds between two reports of a cell's rounds."""
_NOTES = 100


class Reporter:
    """Writes the report of one cell, whose process this is."""

    def __init__(self, path: Path, rounds: int) -> None:
        """Say that the cell begins. The report of a process that was lost is counted."""
        last = read(path)
        self._path, self._failed, self._written = path, False, 0.0
        if last is None or last.ended:
            self.report = CellReport(0, rounds)
        else:
            self.report = replace(last, rounds=rounds, deaths=last.deaths + 1, notes=())
        self._write()

    def moved(self, done: int) -> None:
        """Say that so many rounds are done; most often it is enough to remember it."""
        further = done > self.report.furthest
        self.report = replace(
            self.report,
            done=done,
            furthest=max(done, self.report.furthest),
            deaths=0 if further else self.report.deaths,
        )
        if time.monotonic() - self._written >= EVERY:
            self._write()

    def note(self, text: str) -> None:
        """Pass on what the run tells."""
        notes = (*self.report.notes, shortened(text, 1000))
        self.report = replace(self.report, notes=notes[:_NOTES])
        self._write()

    def end(self, failure: str | None) -> None:
        """Say that the cell has ended, and why it failed; None where it did not."""
        self.report = replace(self.report, ended=True, failure=failure)
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        text = json.dumps(asdict(self.report)) + "\n"
        try:
            # Only a display depends on it, and it comes often: the disk is not waited for.
            atomically(self._path, lambda file: file.write(text.encode()), sync=False)
        except WriteError as error:
            if not self._failed:
                print(f"{self._path.stem}: warning: {error}", file=sys.stderr)
            self._failed = True


def read(path: Path) -> CellReport | None:
    """Return what a cell says; None where it says nothing that can be read."""
    try:
        return json_of(path, CellReport) if present(path) else None
    except RecordError:
        return None
