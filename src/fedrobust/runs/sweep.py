"""Play a grid of experiments, here or on a cluster; a sweep resumes cell by cell."""

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedrobust.config import beside
from fedrobust.config.text import printable, shortened
from fedrobust.errors import RecordError, RecordWarning, WriteError
from fedrobust.files import clear, held, listing, reason, written
from fedrobust.progress import CELLS as ALL
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.records.reading import json_of, present
from fedrobust.records.schema.formats import declared, with_format
from fedrobust.records.schema.sweep import SweepRecord
from fedrobust.runs.cells import CELLS, finished, require_comparable, require_grown
from fedrobust.runs.grid import Cell, Sweep
from fedrobust.runs.launchers import report
from fedrobust.runs.launchers.launcher import Job, Launcher
from fedrobust.runs.launchers.processes import Processes
from fedrobust.runs.launchers.report import PLAYING
from fedrobust.runs.launchers.slurm_jobs import SLURM
from fedrobust.typing import Json

FAILED = "failed"
"""The subfolder of a sweep with a text about each cell that failed."""


def run_sweep(
    sweep: Sweep,
    out: Path | str,
    resume: bool = False,
    *,
    jobs: int | None = None,
    other_processor: bool = False,
    progress: Progress | None = None,
    on: Launcher | None = None,
) -> dict[str, str]:
    """Play every cell of ``sweep`` that is not finished; return the failed cells and why.

    ``out`` holds sweep.json, cells/NAME, each an ordinary run directory, and failed/NAME.txt with
    the traceback of a cell that failed. A failed cell does not stop the others. ``on`` is where the
    cells are played: in processes of this machine if it is left out. ``jobs`` cells run at a time.
    By default these are as many as cores, and one on a GPU; they share the cores. With ``resume``
    finished cells are kept and begun cells go on, with ``other_processor`` also on another kind of
    processor. The grid may have gained cells since, and the cells may be played elsewhere.

    Raises: ``RecordError`` where ``out`` holds something else; the ``UserError`` of the launcher
    where cells cannot be played there.
    """
    out, seen = Path(out), progress or UNWATCHED
    with (
        (on or Processes()).opened() as pool,
        _opened(sweep, out, resume, lambda: pool.check(out, sweep.cells)),
    ):
        waiting = [cell for cell in sweep.cells if not finished(cell, out)]
        seen.moved(ALL, len(sweep.cells) - len(waiting), len(sweep.cells))
        if not waiting:
            return {}
        watched = _Watched(out, other_processor, seen)
        at_once = pool.begin(out, waiting, jobs)
        with _reports(out):
            try:
                while waiting or watched.playing:
                    room = at_once - len(watched.playing)
                    if now := waiting[: max(room, 0)]:
                        del waiting[: len(now)]
                        pool.start([watched.job(cell) for cell in now])
                    ended = pool.ended()
                    watched.look()
                    watched.end(ended)
            finally:
                pool.stop()
                watched.sum_up()
    return watched.failures


@contextmanager
def _reports(out: Path) -> Iterator[None]:
    """Within the context, cells may write what they report. Raises: ``WriteError``."""
    folder = out / PLAYING
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write to {folder}: {reason(error)}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # a file of somebody else keeps the folder there
            for path in folder.iterdir():
                if path.suffix in (".json", ".part"):
                    path.unlink(missing_ok=True)
            folder.rmdir()


@contextmanager
def _opened(sweep: Sweep, out: Path, resume: bool, check: Callable[[], None]) -> Iterator[None]:
    """Within the context, hold ``out`` for this process alone.

    ``check`` may refuse the folder before a record is written. Raises: ``RecordError``.
    """
    try:
        _refuse_foreign(out, resume)
        _refuse_links(sweep, out)
    except OSError as error:
        raise RecordError(f"cannot read {out}: {reason(error)}; choose another --out") from error
    with held(out, f"another process is running the sweep in {out}"):
        clear(out)
        check()
        _record(sweep, out, resume)
        yield


def _refuse_foreign(out: Path, resume: bool) -> None:
    """Refuse a folder that holds anything but a sweep. Raises: ``RecordError``."""
    if not out.is_dir() or present(out / "sweep.json"):
        return
    there = listing(out)
    # A sweep can go on without its record, since each cell has a config of its own.
    if resume and CELLS in there and set(there) <= {CELLS, FAILED, PLAYING, SLURM, "report"}:
        return
    if there:
        raise RecordError(f"{out} is not empty ({there[0]}, ...): choose another --out")


def _refuse_links(sweep: Sweep, out: Path) -> None:
    """Refuse a link in ``out`` through which a cell would write elsewhere.

    Raises: ``RecordError``.
    """
    cells = [f"{CELLS}/{cell.name}" for cell in sweep.cells]
    for name in (CELLS, FAILED, PLAYING, SLURM, *cells):
        if (path := out / name).is_symlink():
            raise RecordError(
                f"{path} is a link, and a sweep writes into its own folder alone: put the folder "
                "itself there, or choose another --out"
            )


def _record(sweep: Sweep, out: Path, resume: bool) -> None:
    record = out / "sweep.json"
    if present(record):
        if not resume:
            raise RecordError(
                f"{out} already holds a sweep: continue it with --resume (resume=True), or "
                "choose another --out"
            )
        stored = json_of(record, SweepRecord)
        if stored.config == sweep.content:
            return
        require_grown(stored, sweep, out)
    else:
        require_comparable(sweep, out)
    content: Json = {
        "name": sweep.name,
        "axes": {axis: list(labels) for axis, labels in sweep.axes.items()},
        "cells": [{"name": cell.name, "labels": cell.labels} for cell in sweep.cells],
        "config": sweep.content,
        "reference": sweep.reference,
    }
    text = json.dumps(
        declared(SweepRecord, with_format(record.name, content)), indent=1, ensure_ascii=False
    )
    written(record, f"{text}\n")


class _Watched:
    """The cells that are being played, as the caller's ``Progress`` and the failures show them."""

    def __init__(self, out: Path, other_processor: bool, progress: Progress) -> None:
        self._out, self._other, self._progress = out, other_processor, progress
        self.playing: dict[str, Cell] = {}
        self.failures: dict[str, str] = {}
        self._moved: set[str] = set()
        self._said: dict[str, dict[str, None]] = {}  # the cells of each text, in order

    def job(self, cell: Cell) -> Job:
        """Return the cell as a process plays it. What an earlier process said of it is removed."""
        self.playing[cell.name] = cell
        said = self._report(cell.name)
        with suppress(OSError):  # if it stays, the cell soon replaces it
            said.unlink(missing_ok=True)
        return Job(
            cell.name,
            cell.config,
            (self._out / CELLS / cell.name).absolute(),
            said.absolute(),
            self._other,
            beside.places(),
            Path.cwd(),
        )

    def _report(self, name: str) -> Path:
        return self._out / PLAYING / f"{name}.json"

    def look(self) -> None:
        """Pass on how far the cells are, and what their runs tell."""
        there = {path.stem for path in (self._out / PLAYING).iterdir() if path.suffix == ".json"}
        for name, cell in self.playing.items():
            said = report.read(self._report(name)) if name in there else None
            if said is None:
                continue
            self._progress.moved(name, min(said.done, cell.experiment.rounds), said.rounds)
            self._moved.add(name)
            for text in said.notes:  # where a process was lost, these are of the next one
                if text not in self._said:
                    print(printable(f"{name}: {text}"), file=sys.stderr)
                self._said.setdefault(text, {})[name] = None

    def sum_up(self) -> None:
        """Tell what several cells have said, which was told of the first one only."""
        for text, names in self._said.items():
            if len(names) > 1:
                cells = shortened(", ".join(names), 200)
                print(printable(f"{len(names)} cells ({cells}): {text}"), file=sys.stderr)

    def end(self, ended: dict[str, str | None]) -> None:
        """Pass on which cells have ended, and keep why they failed."""
        for name, failure in ended.items():
            cell, path = self.playing.pop(name), self._out / FAILED / f"{name}.txt"
            if failure is None:
                with suppress(OSError):  # if it stays, the text is only out of date
                    path.unlink(missing_ok=True)
            else:
                self.failures[name] = (failure.strip().splitlines() or [failure])[-1]
                _keep(path, failure)
            if name not in self._moved:  # it ended between two looks
                self._progress.moved(name, 0, cell.experiment.rounds)
            self._progress.ended(name, self.failures.get(name))
            with suppress(OSError):  # it is of no use any more
                self._report(name).unlink(missing_ok=True)


def _keep(path: Path, failure: str) -> None:
    """Write why a cell failed. If that fails, warn; the other cells go on."""
    try:
        path.parent.mkdir(exist_ok=True)
        written(path, failure)
    except (OSError, WriteError) as error:
        warnings.warn(f"cannot write {path}: {reason(error)}", RecordWarning, stacklevel=2)
