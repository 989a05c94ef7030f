"""Show the progress of a run: bars on a terminal, and some lines anywhere else."""

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from fedrobust.config.explain import printable
from fedrobust.federation.state import RoundLog
from fedrobust.progress import CELLS
from fedrobust.progress import Progress as Watch
from fedrobust.runs.prepare import Prepared
from fedrobust.typing import Json


def _say(console: Console, text: str) -> None:
    """Print ``text`` as it is, without reading brackets as markup and without breaking lines."""
    console.print(printable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


class SweepDisplay:
    """Draws a bar for the sweep and for each running cell, and a line for each finished cell."""

    def __init__(self, console: Console, cells: int) -> None:
        """If ``console`` is no terminal, only the lines are printed."""
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._console = console
        self._all = self._bar.add_task("cells", total=cells)
        self._tasks: dict[str, TaskID] = {}
        self.progress = Watch(moved=self._moved, ended=self._ended)

    def __enter__(self) -> "SweepDisplay":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def _moved(self, name: str, done: int, total: int) -> None:
        if name == CELLS:
            if done:
                _say(self._console, f"{done} cells were finished before")
            self._bar.update(self._all, completed=done)
            return
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total)

    def _ended(self, name: str, failure: str | None) -> None:
        self._bar.remove_task(self._tasks.pop(name))
        self._bar.update(self._all, advance=1)
        _say(self._console, f"{name}: {'done' if failure is None else f'failed: {failure}'}")


class Display:
    """Draws round, accuracies and time left. ``progress`` is what :func:`fedrobust.run` takes."""

    def __init__(self, console: Console) -> None:
        """If ``console`` is no terminal, print notes, evaluations and tenths of a training."""
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[scores]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._console = console
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
            repaired=self._repaired,
            unkept=self._unkept,
        )

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

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

    def _repaired(self, text: str) -> None:
        _say(self._console, text)

    def _unkept(self, text: str) -> None:
        _say(self._console, f"warning: {text}")

    def _started(self, run: Prepared, done: int) -> None:
        experiment, self._rounds = run.experiment, run.experiment.rounds
        for note in run.notes:
            _say(self._console, note)
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
        if not self._console.is_terminal:
            _say(self._console, f"{scores[:-1]} of {self._rounds})")


class AuditDisplay:
    """Draws a bar for each attack of an audit; without a terminal, a line when it begins."""

    def __init__(self, console: Console) -> None:
        """Draw the bars or the lines on ``console``."""
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._console, self._tasks = console, dict[str, TaskID]()
        self.progress = Watch(moved=self._moved, part=self._surrogate)

    def __enter__(self) -> "AuditDisplay":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def _moved(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
            if not self._console.is_terminal:
                _say(self._console, f"{name}: {total:,}")
        self._bar.update(self._tasks[name], completed=done, total=total)

    def _surrogate(self, name: str) -> Watch:
        """Return the ``Progress`` of a surrogate, which is trained, or read if it exists."""
        text = f"training the {name} surrogate"
        rounds = 0

        def started(run: Prepared, done: int) -> None:
            nonlocal rounds
            rounds = run.experiment.rounds
            self._moved(text, done, rounds)

        return Watch(
            started=started,
            played=lambda log: self._moved(text, log.round, rounds),
            repaired=lambda text: _say(self._console, text),
        )
