"""Play the cells of a sweep on this machine, each in a process of its own."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from fedrobust.config import beside
from fedrobust.runs.grid import Cell
from fedrobust.runs.launchers.launcher import SECONDS, Job, device
from fedrobust.runs.launchers.play import play_cell

_PLAYS = "fedrobust.runs.run"
"""The module that plays a cell. Importing it takes seconds."""


@dataclass(frozen=True)
class Processes:
    """Cells are processes of this machine, and end with the process of the sweep."""

    @contextmanager
    def opened(self) -> Iterator["_Processes"]:
        """Within the context, cells can be started."""
        yield _Processes()


class _Processes:
    """The running cells, each with its process and a pipe for why it failed."""

    def __init__(self) -> None:
        self._context = _context()
        self._threads = 1
        self._running: dict[str, tuple[BaseProcess, Connection]] = {}
        self._said: dict[str, str] = {}

    def check(self, out: Path, cells: Sequence[Cell]) -> None:
        """There is nothing to refuse."""

    def begin(self, out: Path, cells: Sequence[Cell], jobs: int | None) -> int:
        """As many cells at a time as cores, but one where they share a GPU."""
        by_default = 1 if "cuda" in {device(cell) for cell in cells} else cores()
        at_once = max(1, min(jobs or by_default, len(cells)))
        self._threads = max(1, cores() // at_once)
        return at_once

    def start(self, jobs: Sequence[Job]) -> None:
        """Start a process for each cell."""
        for job in jobs:
            # Each cell has its own pipe: a cell killed amid a message does not damage the others'.
            ours, theirs = self._context.Pipe(duplex=False)
            with beside.safe_path() as before:
                environment = dict(os.environ)
                whole = replace(job, threads=self._threads, before=before, environment=environment)
                process = self._context.Process(target=_play, args=(whole, theirs), daemon=True)
                process.start()
            theirs.close()
            self._running[job.name] = process, ours

    def ended(self) -> dict[str, str | None]:
        """Return the cells that have ended, each with its failure."""
        wait([process.sentinel for process, _ in self._running.values()], timeout=SECONDS)
        over = [name for name, (process, _) in self._running.items() if not process.is_alive()]
        for name, (_, pipe) in self._running.items():
            with suppress(EOFError, OSError):  # it has ended, perhaps amid a message
                if pipe.poll():
                    self._said[name] = pipe.recv()
        return {name: self._end(name) for name in over}

    def _end(self, name: str) -> str | None:
        process, pipe = self._running.pop(name)
        process.join()
        pipe.close()
        if process.exitcode == 0:
            return None
        return self._said.get(name) or _sudden(process.exitcode)

    def stop(self) -> None:
        """End the processes."""
        for process, _ in self._running.values():
            process.terminate()
        for process, _ in self._running.values():
            process.join()


def cores() -> int:
    """Return how many cells this machine plays at a time: as many as it has cores for us."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), psutil.cpu_count(logical=False) or 1)
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def _context() -> SpawnContext | ForkServerContext:
    """Return how to start a cell's process.

    On Linux a server process imports once what a run needs, and each cell is a fork of it. It has
    played nothing, so a cell cannot see what another did.
    """
    if not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([_PLAYS])
    return server


def _sudden(code: int | None) -> str:
    return (
        f"the process ended with code {code} and no message: it was killed from outside, or the "
        "machine ran out of memory (run fewer --jobs at a time)"
    )


def _play(job: Job, pipe: Connection) -> None:
    """Play one cell. The environment may have changed since the server process began."""
    os.environ.clear()
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    failure = play_cell(job)
    if failure is not None:
        pipe.send(failure)
        sys.exit(1)


def _end_with_the_sweep() -> None:
    """End this process as soon as the sweep's process ends in any way, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
