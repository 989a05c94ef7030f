"""Play a grid of experiments, each in its own process; a sweep resumes cell by cell."""

import json
import multiprocessing
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from fedrobust.compute.execution import default_device
from fedrobust.config import beside
from fedrobust.config.component import from_config
from fedrobust.errors import RecordError, RecordWarning, UserError, WriteError
from fedrobust.experiment import Experiment
from fedrobust.files import clear, held, listing, reason, written
from fedrobust.progress import CELLS as ALL
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.records.reading import json_of, present
from fedrobust.records.schema.formats import declared, with_format
from fedrobust.records.schema.sweep import SweepRecord
from fedrobust.runs.cells import CELLS, finished, require_grown
from fedrobust.runs.grid import Cell, Sweep
from fedrobust.typing import Json

FAILED = "failed"
"""The subfolder of a sweep with a text about each cell that failed."""
_PLAYS = "fedrobust.runs.run"
"""The module that plays a cell. Importing it takes seconds."""
_SECONDS = 0.2
"""The seconds between two looks at the progress of running cells."""


def run_sweep(
    sweep: Sweep,
    out: Path | str,
    resume: bool = False,
    *,
    jobs: int | None = None,
    other_processor: bool = False,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Play every cell of ``sweep`` that is not finished; return the failed cells and why.

    ``out`` holds sweep.json, cells/NAME, each an ordinary run directory, and failed/NAME.txt with
    the traceback of a cell that failed. A failed cell does not stop the others. ``jobs`` cells run
    at a time, each in its own process, and share the cores. By default there are as many jobs as
    cores, and one on a GPU. With ``resume`` finished cells are kept and begun cells go on, with
    ``other_processor`` also on another kind of processor. The grid may have gained cells since.

    Raises: ``RecordError`` where ``out`` holds something else.
    """
    out, seen = Path(out), progress or UNWATCHED
    with _opened(sweep, out, resume):
        waiting = [cell for cell in sweep.cells if not finished(cell, out)]
        seen.moved(ALL, len(sweep.cells) - len(waiting), len(sweep.cells))
        at_once = max(1, min(jobs or _by_default(sweep), len(waiting)))
        pool = _Pool(out, max(1, _cores() // at_once), other_processor, seen)
        try:
            while waiting or pool.running:
                while waiting and len(pool.running) < at_once:
                    pool.start(waiting.pop(0))
                pool.look()
        finally:
            pool.stop()
    return pool.failures


def _by_default(sweep: Sweep) -> int:
    """Return how many cells run at a time: as many as cores, but one where they share a GPU."""
    devices = {cell.experiment.execution.device or default_device() for cell in sweep.cells}
    return 1 if "cuda" in devices else _cores()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), psutil.cpu_count(logical=False) or 1)
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


@contextmanager
def _opened(sweep: Sweep, out: Path, resume: bool) -> Iterator[None]:
    """Within the context, hold ``out`` for this process alone. Raises: ``RecordError``."""
    try:
        _refuse_foreign(out, resume)
        _refuse_links(sweep, out)
    except OSError as error:
        raise RecordError(f"cannot read {out}: {reason(error)}; choose another --out") from error
    with held(out, f"another process is running the sweep in {out}"):
        clear(out)
        _record(sweep, out, resume)
        yield


def _refuse_foreign(out: Path, resume: bool) -> None:
    """Refuse a folder that holds anything but a sweep. Raises: ``RecordError``."""
    if not out.is_dir() or present(out / "sweep.json"):
        return
    there = listing(out)
    # A sweep can go on without its record, since each cell has a config of its own.
    if resume and CELLS in there and set(there) <= {CELLS, FAILED, "report"}:
        return
    if there:
        raise RecordError(f"{out} is not empty ({there[0]}, ...): choose another --out")


def _refuse_links(sweep: Sweep, out: Path) -> None:
    """Refuse a link in ``out`` through which a cell would write elsewhere.

    Raises: ``RecordError``.
    """
    cells = [f"{CELLS}/{cell.name}" for cell in sweep.cells]
    for name in (CELLS, FAILED, *cells):
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


def _processes() -> SpawnContext | ForkServerContext:
    """Return how to start a cell's process.

    On Linux a server process imports once what a run needs, and each cell is a fork of it. It has
    played nothing, so a cell cannot see what another did.
    """
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([_PLAYS])
    return server


class _Pool:
    """The running cells, each in its own process."""

    def __init__(self, out: Path, threads: int, other_processor: bool, progress: Progress) -> None:
        self._context = _processes()
        self._out, self._progress = out, progress
        self._how = threads, other_processor
        self.running: dict[str, tuple[Cell, BaseProcess, Connection]] = {}
        self.failures: dict[str, str] = {}
        self._said: dict[str, str] = {}

    def start(self, cell: Cell) -> None:
        path = self._out / CELLS / cell.name
        # Each cell has its own pipe: a cell killed amid a message does not damage the others'.
        ours, theirs = self._context.Pipe(duplex=False)
        with beside.safe_path() as before:
            known = beside.places(), before, dict(os.environ)
            arguments = (cell.config, path, self._how, known, theirs)
            process = self._context.Process(target=_play, args=arguments, daemon=True)
            process.start()
        theirs.close()
        self.running[cell.name] = cell, process, ours
        self._progress.moved(cell.name, 0, cell.experiment.rounds)

    def look(self) -> None:
        """Pass on the reports of running cells, and remove the cells that have ended."""
        wait([process.sentinel for _, process, _ in self.running.values()], timeout=_SECONDS)
        ended = [name for name, (_, process, _) in self.running.items() if not process.is_alive()]
        for name, (_, _, pipe) in self.running.items():
            with suppress(EOFError, OSError):  # it has ended, perhaps amid a message
                while pipe.poll():
                    kind, value = pipe.recv()
                    if kind == "round":
                        self._progress.moved(name, *value)
                    else:
                        self._said[name] = value
        for name in ended:
            _, process, pipe = self.running.pop(name)
            process.join()
            pipe.close()
            failure = None
            if process.exitcode != 0:
                failure = self._said.get(name) or _sudden(process.exitcode)
                self.failures[name] = (failure.strip().splitlines() or [failure])[-1]
                self._keep(name, failure)
            else:
                with suppress(OSError):  # if it stays, the text is only out of date
                    (self._out / FAILED / f"{name}.txt").unlink(missing_ok=True)
            self._progress.ended(name, self.failures.get(name))

    def _keep(self, name: str, failure: str) -> None:
        """Write why a cell failed. If that fails, warn; the other cells go on."""
        path = self._out / FAILED / f"{name}.txt"
        try:
            path.parent.mkdir(exist_ok=True)
            written(path, failure)
        except (OSError, WriteError) as error:
            warnings.warn(f"cannot write {path}: {reason(error)}", RecordWarning, stacklevel=2)

    def stop(self) -> None:
        for _, process, _ in self.running.values():
            process.terminate()
        for _, process, _ in self.running.values():
            process.join()


def _sudden(code: int | None) -> str:
    return (
        f"the process ended with code {code} and no message: it was killed from outside, or the "
        "machine ran out of memory (run fewer --jobs at a time)"
    )


def _play(
    config: Json,
    path: Path,
    how: tuple[int, bool],
    known: tuple[tuple[str, ...], str | None, dict[str, str]],
    pipe: Connection,
) -> None:
    """Play one cell in its own process. ``config`` is the user's own config, not a record of it.

    ``how`` are the threads, and whether a run may go on from another kind of processor. ``known``
    are the folders of the user's own modules, the value of ``beside.safe_path``, and the
    environment, which may have changed since the server process began.
    """
    (threads, other_processor), (places, before, environment) = how, known
    os.environ.clear()
    os.environ.update(environment)
    beside.look_in(places)
    beside.restore(before)
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    import torch

    from fedrobust.runs.run import play

    torch.set_num_threads(threads)
    rounds = config["rounds"]
    progress = Progress(
        started=lambda ready, done: pipe.send(("round", (done, rounds))),
        played=lambda log: pipe.send(("round", (log.round, rounds))),
        repaired=lambda text: print(f"{path.name}: {text}", file=sys.stderr),
        unkept=lambda text: print(f"{path.name}: warning: {text}", file=sys.stderr),
    )
    try:
        ended = play(
            from_config(Experiment, config),
            path,
            resume=path.exists(),
            other_processor=other_processor,
            progress=progress,
        )
        if ended.unkept is not None:
            raise WriteError(ended.unkept)
    except UserError as error:
        pipe.send(("failed", str(error)))
        sys.exit(1)
    except Exception:
        pipe.send(("failed", traceback.format_exc()))
        sys.exit(1)


def _end_with_the_sweep() -> None:
    """End this process as soon as the sweep's process ends in any way, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
