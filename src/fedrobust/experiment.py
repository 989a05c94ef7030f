"""One run as one frozen, validated value, for Python, for YAML and for the command line."""

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    StringConstraints,
    model_validator,
)

from fedrobust.aggregators import AnyAggregator, Mean
from fedrobust.attacks import AnyAttack
from fedrobust.clients.client import Client
from fedrobust.compute.execution import Execution
from fedrobust.config.component import component, from_config, keyword_component
from fedrobust.config.overrides import override
from fedrobust.config.own import asking
from fedrobust.config.scalars import Count, Seed, Size
from fedrobust.config.shelf import found
from fedrobust.config.text import shortened
from fedrobust.config.yaml import read_yaml
from fedrobust.data import AnyData, AnyPartition
from fedrobust.errors import ConfigError
from fedrobust.evaluation.auditing.in_training import Auditing
from fedrobust.evaluation.wasserstein_metrics import Wasserstein
from fedrobust.federation.fitting import require_clients, require_one_model, require_parts
from fedrobust.federation.participation import All, AnyParticipation
from fedrobust.federation.server import Server
from fedrobust.federation.threat import ThreatModel
from fedrobust.models import LOCAL, AnyModel, BatchNorm
from fedrobust.objectives import ERM, AnyObjective
from fedrobust.perturb import AnyPerturbation, Pgd

__all__ = ["Evaluation", "Experiment", "Name", "load", "read_yaml"]

Name = Annotated[
    str, StringConstraints(strict=True, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]
"""A name that can name a folder. File systems allow 255 bytes, and a run needs some of them."""


@component
class Evaluation:
    """Accuracy and robust accuracy during training, on ``samples`` fixed held-out examples.

    They are measured every ``every`` rounds and after the last round, and they choose the round to
    report. ``samples: null`` takes the whole split. The test split is read once, when the run ends,
    for the chosen and the final model; ``test_samples`` takes a seeded part of it.
    ``test_attacks`` are further attacks by name. Each is measured alone, as is ``attack``, on
    ``test_attack_samples`` of those test examples, drawn at random. ``wasserstein``
    adds the certificate of Wasserstein robustness and the error under shift. ``audit`` adds an
    audit of whether the robust accuracy is real: ``quick``, ``standard``, or
    {budget: quick, samples: 200, test_samples: 1000, every: 4, surrogates: true}.
    """

    attack: AnyPerturbation
    every: Count = 25
    samples: Count | None = 1000
    split: Literal["validation", "train"] = "validation"
    test_samples: Count | None = None
    test_attacks: dict[Name, AnyPerturbation] = field(default_factory=dict)
    test_attack_samples: Count | None = None
    wasserstein: Wasserstein | None = None
    audit: Annotated[Auditing | None, BeforeValidator(Auditing.named)] = None

    def due(self, round: int) -> bool:
        """Whether runs of any length are evaluated after this round."""
        return round % self.every == 0

    def audit_due(self, round: int) -> bool:
        """Whether the evaluation after this round has an audit in runs of any length."""
        return self.audit is not None and round % (self.every * self.audit.every) == 0

    @model_validator(mode="after")
    def _fits(self) -> "Evaluation":
        attack = self.attack
        if "evaluation.attack" in self.test_attacks:
            raise ValueError("test_attacks: evaluation.attack is measured beside them; rename it")
        if self.audit is not None and not (isinstance(attack, Pgd) and attack.box and attack.eps):
            raise ValueError(
                "audit checks the robust accuracy under PGD on pixels: attack must be PGD with "
                "box: true and eps above 0"
            )
        if self.audit is not None and self.audit.budget == "full":
            raise ValueError(
                "audit is full: in training it is quick or standard; surrogates: true adds transfer"
            )
        return self


@keyword_component
class Experiment:
    """One federated training run. ``fedrobust.run`` plays it, and ``config.yaml`` stores it.

    Raises: ``ConfigError``, which is a ``ValueError``, for fields that are unknown, have the wrong
    type, or do not fit each other.
    """

    name: Name
    seed: Seed = 0
    rounds: Count
    data: AnyData
    partition: AnyPartition
    model: AnyModel
    batch_norm: BatchNorm = "refuse"
    objective: AnyObjective = ERM()
    client: Client
    participation: AnyParticipation = All()
    malicious: Size = 0
    attack: AnyAttack | None = None
    threat: ThreatModel = ThreatModel()
    aggregator: AnyAggregator = Mean()
    server: Server = Server()
    evaluation: Evaluation
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _fits(self) -> "Experiment":
        self._require_one_model()
        require_parts(self.attack, self.malicious, self.threat, self.aggregator, self.server)
        with asking("the partition, asked for its clients,"):
            clients = getattr(self.partition, "clients", None)
        if isinstance(clients, int):
            self.require_clients(clients)
        return self

    def _require_one_model(self) -> None:
        """Refuse what needs one model, where each client has its own. Raises: ``ValueError``."""
        if self.batch_norm not in LOCAL:
            return
        require_one_model(self.batch_norm, self.attack, self.malicious)
        for key, why in {
            "audit": "an audit is of one model",
            "wasserstein": "the certificate is of one model",
        }.items():
            if getattr(self.evaluation, key) is not None:
                raise ValueError(
                    f"evaluation.{key}: {why}, and with batch_norm: {self.batch_norm} each client "
                    "has its own: leave it out, or use to_group_norm"
                )
        if self.execution.gradients in ("vmap", "compiled"):
            raise ValueError(
                f"execution.gradients: {self.execution.gradients} trains several clients as one "
                f"batch, and with batch_norm: {self.batch_norm} each normalises by its own: use "
                "autograd or leave it out"
            )

    def require_clients(self, clients: int) -> None:
        """Check the settings against this number of clients.

        Raises: ``ValueError`` where they do not fit.
        """
        require_clients(clients, self.malicious, self.threat, self.participation, self.aggregator)


def load(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read the experiment of a YAML file, with ``dotted.key=value`` overrides.

    ``path`` may also name an experiment that comes with fedrobust, such as "demo" or "fat/recipe".
    An override that gives a component another name drops the keys that the new component does not
    have, with an ``OverrideWarning``; see :func:`fedrobust.config.overrides.apply`.

    Raises: ``ConfigError`` for a file that cannot be read, and for every wrong key.
    """
    path = found(Path(path))
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of keys such as name, rounds and data")
    if "grid" in content:
        raise ConfigError(f"{path} has a grid:, so it is many experiments: fedrobust sweep {path}")
    override(Experiment, content, overrides)
    try:
        return from_config(Experiment, content)
    except ConfigError as error:
        settings = " ".join(f"-s {text}" for text in overrides)
        source = f"{path} with {shortened(settings, 300)}" if overrides else str(path)
        raise ConfigError(f"{source}:\n{error}") from error
