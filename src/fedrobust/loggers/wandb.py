"""Scores as a run of Weights & Biases."""

from typing import Any

from fedrobust.config.component import to_config
from fedrobust.experiment import Experiment
from fedrobust.loggers.scalars import ended, imported, scalars
from fedrobust.results.run import Run
from fedrobust.typing import Json


class WeightsAndBiases:
    """Log each evaluation to Weights & Biases, against the round.

    ``init`` are the arguments of ``wandb.init``, such as project, mode and id. To go on with the
    same run after a kill, give its ``id`` and ``resume="allow"``.

    Raises: ``ConfigError`` where wandb is not installed.
    """

    def __init__(self, **init: Any) -> None:
        self._wandb, self._init, self._run = imported("wandb", "wandb"), init, None

    def on_start(self, experiment: Experiment, round: int) -> None:
        """Begin the run, with the experiment as its config."""
        asked = {"name": experiment.name, "config": to_config(experiment)} | self._init
        self._run = self._wandb.init(**asked)
        self._open.define_metric("*", step_metric="round")

    def on_evaluation(self, metrics: Json) -> None:
        """Log the scores of a round."""
        self._open.log({"round": metrics["round"], **scalars(metrics)})

    def on_end(self, run: Run) -> None:
        """Put the test scores into the summary, and finish the run."""
        self._open.summary.update(ended(run))
        self._open.finish()

    def on_failure(self, error: BaseException) -> None:
        """Finish the run as failed."""
        if self._run is not None:
            self._run.finish(exit_code=1)

    @property
    def _open(self) -> Any:
        assert self._run is not None, "on_start comes first"
        return self._run
