"""One run, played just now or opened from its directory."""

from collections.abc import Mapping
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from markupsafe import Markup, escape
from matplotlib.figure import Figure
from torch import nn

from fedrobust.config.arguments import told
from fedrobust.config.text import printable
from fedrobust.errors import ConfigError, RecordError
from fedrobust.experiment import Experiment
from fedrobust.federation.state import FederationState
from fedrobust.models import LOCAL
from fedrobust.records.schema.run import Summary
from fedrobust.report import drawings, wording
from fedrobust.report.page import write_report
from fedrobust.report.run_records import ReportRun
from fedrobust.report.style import svg
from fedrobust.results.frames import flat, frame
from fedrobust.typing import Json, Vector

if TYPE_CHECKING:
    import pandas as pd


class Source(Protocol):
    """Where the content of a run comes from: the memory, or a run directory."""

    config: Mapping[str, Any]
    metrics: list[Json]

    @property
    def path(self) -> Path | None:
        """The run directory, where there is one."""
        ...

    @property
    def unkept(self) -> str | None:
        """Why the last records could not be written; None where they were."""
        ...

    @property
    def ended(self) -> bool:
        """Whether there is a summary, which is written last."""
        ...

    def experiment(self) -> Experiment:
        """Return the experiment. Raises: ``ConfigError``."""
        ...

    def summary(self) -> Summary:
        """Return the summary. Raises: ``RecordError``."""
        ...

    def state(self) -> FederationState:
        """Return the state after the last round. Raises: ``RecordError``."""
        ...

    def model(self, *, last: bool, client: int | None = None) -> nn.Module:
        """Return the last model, or the one that validation chose; of one ``client``, if given.

        Raises: ``RecordError``, ``ConfigError``.
        """
        ...

    def parameters(self) -> Vector:
        """Return the parameters of the model that validation chose. Raises: ``RecordError``."""
        ...

    def records(self) -> ReportRun:
        """Return what a page shows. Raises: ``RecordError``."""
        ...


class Run:
    """The records, the models and the figures of one run.

    :func:`fedrobust.run` returns it, and :func:`fedrobust.open` reads it from a run directory.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def path(self) -> Path | None:
        """The run directory; None for a run without one."""
        return self._source.path

    @property
    def unkept(self) -> str | None:
        """Why the last records could not be written, for example on a full disk; else None.

        With ``resume`` such a run goes on from its last checkpoint.
        """
        return self._source.unkept

    @property
    def config(self) -> Mapping[str, Any]:
        """The complete config as plain data, as config.yaml holds it."""
        return self._source.config

    @cached_property
    def experiment(self) -> Experiment:
        """The experiment that was played.

        Raises: ``UntrustedError`` where an opened config names code that is not trusted,
        ``RecordError`` where it holds an object that no file can rebuild.
        """
        return self._source.experiment()

    @property
    def metrics(self) -> list[Json]:
        """The evaluations on held-out examples, one mapping for each, in the order of rounds."""
        return self._source.metrics

    @property
    def finished(self) -> bool:
        """Whether all rounds are played and the test examples are read."""
        return self._source.ended

    @cached_property
    def summary(self) -> Summary:
        """What came out, with the keys of summary.json as attributes.

        ``summary.test.best`` are the test scores of the model that validation chose, and
        ``summary.test.final`` those of the last model.

        Raises: ``RecordError`` before the run has ended.
        """
        return self._source.summary()

    @cached_property
    def state(self) -> FederationState:
        """The federation after the last round. Raises: ``RecordError`` without a checkpoint."""
        return self._source.state()

    @cached_property
    def model(self) -> nn.Module:
        """The model after the last round, in evaluation mode.

        Raises: ``RecordError`` where its file is missing; ``DataError`` where the data set of an
        opened run is; ``ConfigError`` where each client has a model of its own.
        """
        return self._of_all(last=True)

    @cached_property
    def best_model(self) -> nn.Module:
        """The model that validation chose, in evaluation mode. Raises: as for ``model``."""
        return self._of_all(last=False)

    def _of_all(self, *, last: bool) -> nn.Module:
        if self.config.get("batch_norm") in LOCAL:
            raise ConfigError(
                f"each client has a model of its own (batch_norm: {self.config['batch_norm']}); "
                "take client_model(client)"
            )
        return self._source.model(last=last)

    def client_model(self, client: int, *, last: bool = True) -> nn.Module:
        """Return the model of one client, where BatchNorm stays with each (``batch_norm: local``).

        It is the model after the last round, or, without ``last``, of the round that validation
        chose. A client that has not taken part has the initial BatchNorm.

        Raises: ``ConfigError`` where all clients have the same model, or there is no such client.
        """
        if self.config.get("batch_norm") not in LOCAL:
            raise ConfigError("all clients have the same model: take .model or .best_model")
        clients = self.summary.clients
        try:
            place = index(client)
        except TypeError:
            place = -1
        if place not in range(clients):
            raise ConfigError(f"client must be one of 0 to {clients - 1}; it is {told(client)}")
        return self._source.model(last=last, client=place)

    @property
    def best(self) -> Vector:
        """The parameters [d] that validation chose; without what stays with each client."""
        return self._source.parameters()

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures that :meth:`figure` draws."""
        return tuple(self._drawings)

    @cached_property
    def _drawings(self) -> drawings.Drawings:
        return drawings.of_run(self._source.records())

    def figure(self, name: str = "accuracy", width: float | None = None) -> Figure:
        """Return a figure of the run's page as a matplotlib figure, ``width`` inches wide.

        Raises: ``ConfigError`` for a name that is not among ``figures``, ``RecordError`` for a run
        without an evaluation.
        """
        return drawings.drawn(self._drawings, name, width)

    def report(self, out: Path | str | None = None) -> Path:
        """Write the page of the run, by default to ``report`` in its directory; return its path.

        Raises: ``RecordError`` for a run without a directory.
        """
        if self.path is None:
            raise RecordError(
                "this run has no directory, so it has no page: play it with out='runs/NAME'"
            )
        return write_report([self.path], None if out is None else Path(out))

    def to_pandas(self) -> "pd.DataFrame":
        """Return the evaluations as a table: one line each, nested figures as ``audit.robust``.

        Lists and the scores by user are left out; they are in ``metrics``.

        Raises: ``ConfigError`` where pandas is not installed.
        """
        return frame([dict(flat(line)) for line in self.metrics])

    def __repr__(self) -> str:
        name, rounds = printable(self.config["name"]), self.config["rounds"]
        if not self.finished:
            done = self.metrics[-1]["round"] if self.metrics else 0
            return f"<Run {name}: not finished; the last evaluation is of round {done} of {rounds}>"
        if self.summary.test is None:
            return f"<Run {name}: {rounds} rounds>"
        scores = self.summary.test.best
        return (
            f"<Run {name}: {rounds} rounds; {scores.accuracy:.1%} accurate and "
            f"{scores.robust_accuracy:.1%} robust on test examples (round "
            f"{self.summary.best_round}, chosen on held-out ones){self._troubled()}>"
        )

    def _troubled(self) -> str:
        number = len(self.summary.troubles)
        return f"; {number} warning{'s' * (number > 1)} in summary.troubles" if number else ""

    def _repr_html_(self) -> str:
        """Return the run for a notebook: what came out, its warnings, and the curves."""
        if not self.metrics:
            return f"<p>{escape(repr(self))}</p>"
        records = self._source.records()
        said = [wording.verdict(records), *wording.warnings(records)]
        text = Markup("").join(Markup("<p>{}</p>").format(line) for line in said)
        curves = svg(self._drawings["accuracy"])
        return f"<h4>{escape(self.config['name'])}</h4>{text}{curves[curves.find('<svg') :]}"
