"""Scores as TensorBoard scalars."""

from pathlib import Path
from typing import Any

from fedrobust.experiment import Experiment
from fedrobust.loggers.scalars import ended, imported, scalars, settings
from fedrobust.results.run import Run
from fedrobust.typing import Json


class TensorBoard:
    """Write each evaluation to ``folder``, with the round as the step.

    A run that goes on after a kill writes a new file. TensorBoard then leaves out the older points
    of the rounds that are played again. The settings are the text ``config``.

    Raises: ``ConfigError`` where tensorboard is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        self._made = imported("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._folder, self._writer = str(folder), None

    def on_start(self, experiment: Experiment, round: int) -> None:
        """Open a file of events."""
        self._writer = self._made(self._folder, purge_step=round + 1 if round else None)
        lines = [f"    {key}: {value}" for key, value in settings(experiment).items()]
        self._open.add_text("config", "\n".join(lines))

    def on_evaluation(self, metrics: Json) -> None:
        """Write the scores of a round."""
        for name, value in scalars(metrics).items():
            self._open.add_scalar(name.replace(".", "/"), value, metrics["round"])

    def on_end(self, run: Run) -> None:
        """Write the test scores, and close the file."""
        for name, value in ended(run).items():
            self._open.add_scalar(name.replace(".", "/"), value, run.summary.rounds)
        self._open.close()

    def on_failure(self, error: BaseException) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    @property
    def _open(self) -> Any:
        assert self._writer is not None, "on_start comes first"
        return self._writer
