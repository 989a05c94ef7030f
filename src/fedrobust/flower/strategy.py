"""The server: a Flower ``Strategy`` whose rounds are those of fedrobust, with all its records."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedrobust.config.arguments import told
from fedrobust.config.kind import name_of
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment, load
from fedrobust.federation.round_log import RoundLog
from fedrobust.flower.backend import FlowerClients
from fedrobust.flower.rounds import Rounds
from fedrobust.flower.tensors import Tensors
from fedrobust.flower.words import OURS
from fedrobust.progress import Progress
from fedrobust.results.run import Run
from fedrobust.results.sources import Memory
from fedrobust.runs.prepare import Prepared
from fedrobust.runs.run import play
from fedrobust.typing import Json

_LOG = logging.getLogger("flwr")


class RobustStrategy(Strategy):  # type: ignore[misc]
    """Plays ``experiment`` with the clients of a Flower federation, and records it in ``out``.

    ``strategy.start(grid=grid)`` plays it to its end. Its rule, its participation and its server's
    step are those of the experiment; it is evaluated on the server's own data. ``out`` becomes a
    run directory as that of ``fedrobust run``. A run that is there already goes on from its last
    checkpoint, and a finished one is read.

    The server takes no weight, no number and no order from a client. What does not fit is refused
    before the rule, and ``rounds.jsonl`` says why.

    Args:
        experiment: The experiment, or the path of its YAML file. Its partition is ``remote`` where
            clients have data of their own.
        out: The run directory; None keeps nothing.
        nodes: Flower's node id of each client, 0 to n - 1. If it is left out, each node is asked
            for its ``partition-id``.
        minimum: How many clients must be connected before the first round; all if left out.
        wait: The most seconds to wait for them.
        timeout: The most seconds that a round waits for replies.
        other_processor: As in :func:`fedrobust.run`.

    Raises: ``ConfigError`` for an experiment that no real federation can play.
    """

    def __init__(
        self,
        experiment: Experiment | Path | str,
        out: Path | str | None = None,
        *,
        nodes: Mapping[int, int] | None = None,
        minimum: int | None = None,
        wait: float = 300.0,
        timeout: float = 600.0,
        other_processor: bool = False,
    ) -> None:
        if isinstance(experiment, Path | str):
            experiment = load(experiment)
        if not isinstance(experiment, Experiment):
            raise ConfigError(
                f"RobustStrategy takes an Experiment or the path of one, not {told(experiment)}"
            )
        for name, value in (("wait", wait), ("timeout", timeout)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name} must be seconds above 0; it is {told(value)}")
        if minimum is not None and (type(minimum) is not int or minimum < 1):
            raise ConfigError(f"minimum must be a number of clients; it is {told(minimum)}")
        self.experiment, self.out = experiment, None if out is None else Path(out)
        self.run: Run | None = None
        """The run, after ``start``."""
        self._known, self._minimum = nodes, minimum
        self._wait, self._timeout, self._other = wait, timeout, other_processor
        self._rounds: Rounds | None = None

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Play the experiment to its end, and return what Flower's strategies return.

        The arguments are Flower's. ``num_rounds`` and ``timeout`` take the place of those of the
        experiment and of the strategy. ``train_config`` goes to the clients. The other arguments
        are refused: the experiment says how to begin and how to evaluate.

        Raises: the ``UserError`` whose type fits the fault: config, data, records or resources.
        """
        for name, given, instead in (
            ("initial_arrays", initial_arrays, "experiment.model may be a module with parameters"),
            ("evaluate_config", evaluate_config, "experiment.evaluation says how to evaluate"),
            ("evaluate_fn", evaluate_fn, "experiment.evaluation says how to evaluate"),
        ):
            if given is not None:
                raise ConfigError(f"{name} has no place here: {instead}; leave it out")
        more = dict(train_config or {})
        if taken := sorted(more.keys() & set(OURS)):
            raise ConfigError(f"train_config: {taken[0]} is set by the strategy; leave it out")
        experiment = self.experiment
        if num_rounds is not None:
            experiment = replace(experiment, rounds=num_rounds)
        clients = FlowerClients(
            grid,
            known=self._known,
            least=self._minimum,
            wait=self._wait,
            timeout=timeout or self._timeout,
            more=more,
        )
        self.summary()
        played = play(
            experiment,
            self.out,
            resume=True,
            other_processor=self._other,
            progress=_progress(),
            elsewhere=clients,
        )
        self.run = Run(Memory(played))
        return Result(
            arrays=Tensors.of(played.model).record(played.state.parameters),
            evaluate_metrics_serverapp={
                line["round"]: MetricRecord(
                    {key: line[key] for key in ("accuracy", "robust_accuracy")}
                )
                for line in played.metrics
            },
        )

    def summary(self) -> None:
        """Log what is played."""
        rule, chosen = self.experiment.aggregator, self.experiment.participation
        _LOG.info("%s: %d rounds", self.experiment.name, self.experiment.rounds)
        _LOG.info("rule %s, participation %s", name_of(type(rule)), name_of(type(chosen)))
        _LOG.info("records: %s", self.out or "none")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the messages of one round, for a loop of Flower's own around this strategy.

        Such a loop, as a strategy that wraps this one has it, plays the same rounds without records
        and without an evaluation. :meth:`start` does not use it.
        """
        if self._rounds is None:
            self._rounds = Rounds(self.experiment, self._known)
        return self._rounds.messages(server_round, arrays, config, grid, self._timeout)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the parameters after the round, None where it made no step, and what happened."""
        if self._rounds is None:
            raise ConfigError("aggregate_train before configure_train: there is no round yet")
        return self._rounds.aggregated(server_round, list(replies), _played)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return no message: the server evaluates, and takes no figure from a client."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return None: there is nothing to aggregate."""
        return None


def _progress() -> Progress:
    """Return a progress that writes Flower's log."""
    return Progress(
        started=_started,
        played=_played,
        evaluated=_evaluated,
        extended=_LOG.info,
        repaired=_LOG.warning,
        unkept=_LOG.warning,
    )


def _started(run: Prepared, done: int) -> None:
    Tensors.of(run.model)  # refuses what cannot travel, before anybody is asked
    for note in run.notes:
        _LOG.info("%s", note)
    for doubt in run.doubts:
        _LOG.warning("%s", doubt)
    if done:
        _LOG.info("the run goes on after round %d of %d", done, run.experiment.rounds)


def _played(log: RoundLog) -> None:
    for client, why in sorted(log.reasons.items()):
        _LOG.warning("round %d: client %d is refused: %s", log.round, client, why)
    if log.outcome.reason is not None:
        _LOG.warning("round %d: no step: %s", log.round, log.outcome.reason)
    _LOG.info(
        "round %d: %d of %d rows",
        log.round,
        len(log.participants) - len(log.dropped),
        len(log.participants),
    )


def _evaluated(line: Json) -> None:
    _LOG.info(
        "round %d: accuracy %.1f %%, robust %.1f %%",
        line["round"],
        100 * line["accuracy"],
        100 * line["robust_accuracy"],
    )
