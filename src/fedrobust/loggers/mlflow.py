"""Scores as a run of MLflow."""

from typing import Any

from fedrobust.config.text import shortened
from fedrobust.experiment import Experiment
from fedrobust.loggers.scalars import ended, imported, scalars, settings
from fedrobust.results.run import Run
from fedrobust.typing import Json

_LONGEST = 500
"""The longest text of a parameter in every version of MLflow."""


class MLflow:
    """Log each evaluation to MLflow, with the round as the step.

    ``start`` are the arguments of ``mlflow.start_run``. Where the run is stored is MLflow's own
    setting: ``mlflow.set_tracking_uri``. To go on with the same run after a kill, give its
    ``run_id``.

    Raises: ``ConfigError`` where mlflow is not installed.
    """

    def __init__(self, **start: Any) -> None:
        self._mlflow, self._start, self._running = imported("mlflow", "mlflow"), start, False

    def on_start(self, experiment: Experiment, round: int) -> None:
        """Begin the run, with the settings as its parameters."""
        self._mlflow.start_run(**{"run_name": experiment.name} | self._start)
        self._running = True
        if not round:
            found = settings(experiment)
            self._mlflow.log_params({k: shortened(str(v), _LONGEST) for k, v in found.items()})

    def on_evaluation(self, metrics: Json) -> None:
        """Log the scores of a round."""
        self._mlflow.log_metrics(scalars(metrics), step=metrics["round"])

    def on_end(self, run: Run) -> None:
        """Log the test scores, and end the run."""
        self._mlflow.log_metrics(ended(run), step=run.summary.rounds)
        self._mlflow.end_run()
        self._running = False

    def on_failure(self, error: BaseException) -> None:
        """End the run as failed."""
        if self._running:
            self._mlflow.end_run("FAILED")
            self._running = False
