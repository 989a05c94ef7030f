"""The live progress of a run, on a terminal; silent anywhere else."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedrobust.federation import RoundLog
from fedrobust.prepare import Prepared
from fedrobust.records import Json
from fedrobust.training import Progress as Watch


def _say_nothing(*_: object) -> None:
    """Where nobody watches."""


class Display:
    """Draws round, accuracies and time left. ``progress`` is what :func:`fedrobust.run` takes."""

    def __init__(self, console: Console) -> None:
        """``console`` is drawn on only where it is a terminal."""
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[scores]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._say = console.print if console.is_terminal else _say_nothing
        self._task = self._bar.add_task("preparing", total=None, scores="")
        self.progress = Watch(self._started, self._played, self._evaluated)

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

    def _started(self, run: Prepared, done: int) -> None:
        experiment = run.experiment
        for note in run.notes:
            self._say(note)
        self._bar.reset(
            self._task,
            description=experiment.name,
            total=experiment.rounds,
            completed=done,
            scores="accuracy –, robust –",
        )

    def _played(self, log: RoundLog) -> None:
        if log.outcome.reason is not None:
            self._say(f"round {log.round}: no step, {log.outcome.reason}")
        if log.dropped:
            self._say(f"round {log.round}: dropped rows of clients {log.dropped}")
        self._bar.update(self._task, completed=log.round)

    def _evaluated(self, metrics: Json) -> None:
        scores = (
            f"accuracy {metrics['accuracy']:.1%}, robust {metrics['robust_accuracy']:.1%} "
            f"(round {metrics['round']})"
        )
        self._bar.update(self._task, scores=scores)
