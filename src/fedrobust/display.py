"""Show the progress of a run: bars on a terminal, and some lines anywhere else."""

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fedrobust.config.text import printable
from fedrobust.federation.round_log import RoundLog
from fedrobust.progress import CELLS
from fedrobust.progress import Progress as Watch
from fedrobust.runs.prepare import Prepared
from fedrobust.typing import Json


def _say(console: Console, text: str) -> None:
    """Print ``text`` as it is, without reading brackets as markup and without breaking lines."""
    console.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


class _Bars:
    """The bars of a display. They are drawn within ``with``, and only on a terminal."""

    def __init__(self, console: Console, *columns: TextColumn) -> None:
        """``columns`` stand between the counts and the time that is left."""
        self._console = console
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            *columns,
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            # What a callback prints must reach a file that the standard output is sent to.
            redirect_stdout=console.is_jupyter or sys.stdout.isatty(),
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def _surrogate(self, name: str) -> Watch:
        """Return the ``Progress`` of a surrogate, which is trained, or read if it exists."""
        task: TaskID | None = None

        def started(run: Prepared, done: int) -> None:
            nonlocal task
            text, rounds = f"training the {name} surrogate", run.experiment.rounds
            if not self._console.is_terminal and done < rounds:
                _say(self._console, f"{text}: {rounds} rounds")
            task = self._bar.add_task(text, total=rounds, completed=done, scores="")

        def played(log: RoundLog) -> None:
            assert task is not None
            self._bar.update(task, completed=log.round)

        return Watch(
            started=started,
            played=played,
            repaired=lambda text: _say(self._console, text),
        )


class SweepDisplay(_Bars):
    """Draws a bar for the sweep and for each running cell, and a line for each finished cell."""

    def __init__(self, console: Console, cells: int, directory: Path) -> None:
        """If ``console`` is no terminal, only the lines are printed.

        A finished cell's scores are read from the records in ``directory``.
        """
        super().__init__(console)
        self._directory = directory
        self._all = self._bar.add_task("cells", total=cells)
        self._tasks: dict[str, TaskID] = {}
        self.progress = Watch(moved=self._moved, ended=self._ended)

    def _moved(self, name: str, done: int, total: int) -> None:
        if name == CELLS:
            if done:
                cells = "1 cell was" if done == 1 else f"{done} cells were"
                _say(self._console, f"{cells} finished before")
            self._bar.update(self._all, completed=done)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total)

    def _ended(self, name: str, failure: str | None) -> None:
        self._bar.remove_task(self._tasks.pop(name))
        self._bar.update(self._all, advance=1)
        told = f"failed: {failure}" if failure is not None else _scores(self._directory, name)
        _say(self._console, f"{name}: {told}")


def _scores(directory: Path, name: str) -> str:
    """Return a finished cell's scores in words.

    The name of a cell has that of its sweep before it where there are several: "mnist/krum".
    """
    sweep, _, cell = name.rpartition("/")
    summary = directory / sweep / "cells" / cell / "summary.json"
    try:
        test = json.loads(summary.read_bytes())["test"]
        chosen, last = test["best"], test["final"]
        text = f"{chosen['robust_accuracy']:.1%} robust, {chosen['accuracy']:.1%} accurate"
        text += f" on test, round {chosen['round']}"
        if last["round"] != chosen["round"]:
            text += f" (chosen); {last['robust_accuracy']:.1%} robust after the last round"
    except (OSError, ValueError, KeyError, TypeError):  # it may lie on another machine
        return "done"
    return f"done: {text}"


class Display(_Bars):
    """Draws round, accuracies and time left. ``progress`` is what :func:`fedrobust.run` takes."""

    def __init__(self, console: Console) -> None:
        """If ``console`` is no terminal, print notes, evaluations and tenths of a training."""
        super().__init__(console, TextColumn("{task.fields[scores]}"))
        self._task = self._bar.add_task("preparing", total=None, scores="")
        self._training: TaskID | None = None
        self._tenths = self._rounds = 0
        self._troubles: set[str] = set()
        self.progress = Watch(
            started=self._started,
            played=self._played,
            evaluated=self._evaluated,
            trained=self._trained,
            troubled=self._troubled,
            extended=self._extended,
            repaired=self._repaired,
            unkept=self._unkept,
            part=self._surrogate,
        )

    def _trained(self, done: int, steps: int) -> None:
        """Show that a learned attack trains its policy within a round."""
        if self._training is None:
            self._training = self._bar.add_task("  the attacker trains", total=steps, scores="")
        tenths = 10 * done // max(steps, 1)
        if tenths > self._tenths and not self._console.is_terminal:
            _say(self._console, f"the attacker trains: {done:,} of {steps:,} steps")
        self._tenths = tenths
        self._bar.update(self._training, completed=done, total=steps, visible=done < steps)

    def _troubled(self, text: str) -> None:
        if text not in self._troubles:  # several attackers may report the same trouble
            self._troubles.add(text)
            _say(self._console, f"the attack: {text}")

    def _extended(self, text: str) -> None:
        _say(self._console, text)

    def _repaired(self, text: str) -> None:
        _say(self._console, text)

    def _unkept(self, text: str) -> None:
        self._warn(text)

    def _warn(self, text: str) -> None:
        """Print a warning, also on a quiet console."""
        self._console.quiet, quiet = False, self._console.quiet
        _say(self._console, f"warning: {text}")
        self._console.quiet = quiet

    def _started(self, run: Prepared, done: int) -> None:
        experiment, self._rounds = run.experiment, run.experiment.rounds
        for note in run.notes:
            _say(self._console, note)
        for doubt in run.doubts:
            self._warn(doubt)
        self._bar.reset(
            self._task,
            description=experiment.name,
            total=experiment.rounds,
            completed=done,
            scores="accuracy –, robust –",
        )

    def _played(self, log: RoundLog) -> None:
        if log.outcome.reason is not None and self._console.is_terminal:
            _say(self._console, f"round {log.round}: no step, {log.outcome.reason}")
        if log.dropped and self._console.is_terminal:
            _say(self._console, f"round {log.round}: dropped rows of clients {log.dropped}")
        self._bar.update(self._task, completed=log.round)

    def _evaluated(self, metrics: Json) -> None:
        scores = (
            f"accuracy {metrics['accuracy']:.1%}, robust {metrics['robust_accuracy']:.1%} "
            f"(round {metrics['round']})"
        )
        self._bar.update(self._task, scores=scores)
        _say(self._console, f"{scores[:-1]} of {self._rounds})")


class AuditDisplay(_Bars):
    """Draws a bar for each attack of an audit; without a terminal, a line when it begins."""

    def __init__(self, console: Console) -> None:
        """Draw the bars or the lines on ``console``."""
        super().__init__(console)
        tasks = dict[str, TaskID]()

        def moved(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = self._bar.add_task(name, total=total)
                if not self._console.is_terminal:
                    _say(self._console, f"{name}: {total:,} to try")
            self._bar.update(tasks[name], completed=done, total=total)

        self.progress = Watch(moved=moved, part=self._surrogate)
