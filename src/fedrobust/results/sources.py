"""Where the content of a run comes from: the memory of this process, or a run directory."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from fedrobust.compute.parameters import read, write
from fedrobust.config.component import from_record, to_config
from fedrobust.config.trust import CURE, NOTHING, Trusted, UntrustedError
from fedrobust.errors import ConfigError, RecordError
from fedrobust.experiment import Experiment
from fedrobust.federation.state import FederationState
from fedrobust.models import LOCAL, client_model
from fedrobust.records.plain import plain_json
from fedrobust.records.reading import broken, evaluations_of, json_of, lines_of, present, shaped
from fedrobust.records.schema.run import Evaluation, Summary
from fedrobust.report.run_records import ReportRun, config_of
from fedrobust.runs.audited_model import opened
from fedrobust.runs.checkpoint import read as checkpoint
from fedrobust.runs.older_configs import completed
from fedrobust.runs.run import Played
from fedrobust.runs.weights import Weights
from fedrobust.typing import Json, Vector


class Memory:
    """A run that was played just now."""

    ended = True

    def __init__(self, played: Played) -> None:
        self._played = played
        self.path, self.unkept, self.metrics = played.path, played.unkept, played.metrics
        self.config: Mapping[str, Any] = to_config(played.experiment)

    def experiment(self) -> Experiment:
        """Return the experiment, with its execution plan filled in."""
        return self._played.experiment

    def summary(self) -> Summary:
        """Return the summary."""
        content, _ = plain_json(self._played.summary, "the summary")
        return shaped(Summary, content)

    def state(self) -> FederationState:
        """Return the state after the last round."""
        return self._played.state

    def model(self, *, last: bool, client: int | None = None) -> nn.Module:
        """Return a copy of the network with the weights that are asked for."""
        weights = Weights.of(self._played.state) if last else self._played.best
        model = deepcopy(self._played.model)
        write(model, weights.parameters)
        return model if client is None else client_model(model, weights.store.get(client))

    def parameters(self) -> Vector:
        """Return the parameters of the model that validation chose."""
        return self._played.best.parameters

    def records(self) -> ReportRun:
        """Return what a page shows. Without a directory there are no rounds and no pictures."""
        if self.path is not None and self.unkept is None:
            return ReportRun.read(self.path)
        lines, _ = plain_json(self.metrics, "the evaluations")
        found = tuple(shaped(Evaluation, line) for line in lines)
        return ReportRun(
            path=Path(self.config["name"]),
            config=self.config,
            config_text="",
            environment={},
            evaluations=found,
            rounds=(),
            summary=self.summary(),
            examples=None,
        )


class Directory:
    """A run in a directory. Its files are read when they are asked for, and never changed."""

    unkept = None

    def __init__(self, path: Path, trusted: Trusted = NOTHING) -> None:
        """Open the run directory ``path``. Raises: ``RecordError`` where it is none."""
        self.path, self._trusted = path, trusted
        self.config = config_of(path / "config.yaml")
        file = path / "metrics.jsonl"
        evaluations_of(file, self.config)
        self.metrics: list[Json] = list(lines_of(file, dict)) if present(file) else []

    @property
    def ended(self) -> bool:
        """Whether there is a summary, which is written last."""
        return present(self.path / "summary.json")

    def experiment(self) -> Experiment:
        """Return the experiment. Raises: ``UntrustedError``, ``RecordError``."""
        file = self.path / "config.yaml"
        try:
            found: Experiment = from_record(Experiment, completed(self.config), self._trusted)
        except UntrustedError as error:
            raise UntrustedError(f"{file}: {error}; {CURE}") from error
        except ConfigError as error:
            raise broken(file, error) from error
        return found

    def summary(self) -> Summary:
        """Return the summary. Raises: ``RecordError`` before the end, or where it is broken."""
        file = self.path / "summary.json"
        if not present(file):
            done = self.metrics[-1]["round"] if self.metrics else 0
            raise RecordError(
                f"{self.path} has no summary yet: its last evaluation is of round {done} of "
                f"{self.config['rounds']}; go on with resume=True (--resume)"
            )
        return json_of(file, Summary)

    def state(self) -> FederationState:
        """Return the state of the last checkpoint. Raises: ``RecordError``."""
        file = self.path / "checkpoint.pt"
        if not present(file):
            raise RecordError(f"{self.path} holds no checkpoint.pt, so its state is not known")
        content = checkpoint(file, "put a copy back").get("state")
        known = {field.name for field in fields(FederationState)}
        if not isinstance(content, dict) or not {"parameters"} <= content.keys() <= known:
            raise broken(file, "it holds no state of a federation")
        return FederationState(**content)

    def model(self, *, last: bool, client: int | None = None) -> nn.Module:
        """Return a model, in evaluation mode. Raises: ``RecordError`` where it was not kept."""
        trust = self._trusted.everything
        return opened(str(self.path), None, None, last, trust, client=client).model.eval()

    def parameters(self) -> Vector:
        """Return the parameters of the model that validation chose. Raises: ``RecordError``."""
        each = self.config.get("batch_norm") in LOCAL  # whose shared parameters are the same
        return read(self.model(last=False, client=0 if each else None))

    def records(self) -> ReportRun:
        """Return what a page shows, without the rounds where their log was not kept.

        Raises: ``RecordError``.
        """
        return ReportRun.read(self.path, lean=True)
