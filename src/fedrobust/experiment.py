"""One run as one frozen, validated value: the same in Python, in YAML and on the command line."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, StringConstraints, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedrobust.aggregators import AnyAggregator, Mean
from fedrobust.aggregators.rule import check
from fedrobust.attacks import AnyAttack
from fedrobust.attacks.attack import traits
from fedrobust.client import Client
from fedrobust.component import (
    Count,
    Size,
    component,
    from_config,
    keyword_component,
    name_of,
    to_config,
)
from fedrobust.data import AnyData, AnyPartition
from fedrobust.errors import ConfigError
from fedrobust.evaluation.auditing.following import Auditing
from fedrobust.evaluation.wasserstein import Wasserstein
from fedrobust.execution import Execution
from fedrobust.models import AnyModel
from fedrobust.objectives import ERM, AnyObjective
from fedrobust.participation import All, AnyParticipation
from fedrobust.perturb import AnyPerturbation, Pgd
from fedrobust.server import Server, rooted
from fedrobust.threat import ThreatModel

Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that may be a folder's."""


@component
class Evaluation:
    """Accuracy and robust accuracy during training, on ``samples`` fixed held-out examples.

    They are measured every ``every`` rounds and after the last one, and choose the round to report.
    ``samples: null`` takes the whole split. The test split is read once, when the run ends, for the
    chosen and the final model; ``test_samples`` takes a seeded part of it. ``wasserstein`` adds the
    certificate of Wasserstein robustness and the error under shift, ``audit`` an audit of whether
    the robust accuracy is real: ``quick``, ``standard``, or {budget: quick, samples: 200}.
    """

    attack: AnyPerturbation
    every: Count = 25
    samples: Count | None = 1000
    split: Literal["validation", "train"] = "validation"
    test_samples: Count | None = None
    wasserstein: Wasserstein | None = None
    audit: Annotated[Auditing | None, BeforeValidator(Auditing.named)] = None

    @model_validator(mode="after")
    def _audits_pgd(self) -> "Evaluation":
        attack = self.attack
        if self.audit is not None and not (isinstance(attack, Pgd) and attack.box and attack.eps):
            raise ValueError("audit asks whether PGD on pixels tells the truth: attack must be one")
        if self.audit is not None and self.audit.budget == "full":
            raise ValueError("audit is full, which trains surrogates: choose quick or standard")
        return self


@keyword_component
class Experiment:
    """One federated training run: ``fedrobust.run`` plays it, ``config.yaml`` holds it.

    Raises: ``ConfigError`` (by :func:`load`) or pydantic's ``ValidationError``, which is a
    ``ValueError``, for fields that are unknown, of the wrong type, or do not fit each other.
    """

    name: Name
    seed: Size = 0
    rounds: Count
    data: AnyData
    partition: AnyPartition
    model: AnyModel
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
        if self.attack is None and self.malicious > 0:
            raise ValueError(f"malicious is {self.malicious}, but there is no attack to play")
        if self.attack is not None and self.malicious > 0:
            lacking = self.threat.lacks(traits(self.attack).needs)
            if lacking:
                raise ValueError(
                    f"attack {name_of(type(self.attack))} needs {' and '.join(lacking)}, "
                    "which the threat model does not grant"
                )
            least = traits(self.attack).least
            if self.malicious < least and not self.threat.benign:
                raise ValueError(
                    f"attack {name_of(type(self.attack))} needs {least} malicious clients, or "
                    f"threat.benign: true; malicious is {self.malicious}"
                )
            if "rule" in traits(self.attack).needs:
                self._require_rows_to_try()
        if rooted(self.aggregator) and self.server.root is None:
            raise ValueError(
                f"the rule {name_of(type(self.aggregator))} trusts an update of the server's own: "
                "set server.root to the number of training examples that the server holds"
            )
        clients = getattr(self.partition, "clients", None)
        if isinstance(clients, int):
            self.require_clients(clients)
        return self

    def _require_rows_to_try(self) -> None:
        """An attack that tries the rule does so on as many rows as it knows to be sent."""
        bound = self.threat.clients
        if self.threat.benign or isinstance(bound, bool):
            return
        try:
            check(self.aggregator, bound)
        except ValueError as error:
            name = name_of(type(self.attack))
            raise ValueError(
                f"attack {name} tries the rule on threat.clients = {bound} rows, too few: {error}"
            ) from error

    def require_clients(self, clients: int) -> None:
        """Raises: ``ValueError`` where the settings do not fit this number of clients."""
        if self.malicious > clients:
            raise ValueError(f"malicious is {self.malicious}, but there are {clients} clients")
        if self.threat.data > clients - self.malicious:
            raise ValueError(
                f"threat.data is {self.threat.data}, but {clients - self.malicious} of {clients} "
                "clients are benign"
            )
        size, bound = self.participation.size(clients), self.threat.clients
        if bound is not True and bound > size:
            raise ValueError(
                f"threat.clients is {bound}, but {size} clients take part in a round: "
                "it is a lower bound on that"
            )
        check(self.aggregator, size)


def load(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a YAML file, with ``dotted.key=value`` overrides.

    Raises: ``ConfigError`` for a file that cannot be read and for every key that is wrong.
    """
    path = Path(path)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must be a mapping of keys such as name, rounds and data")
    if "grid" in content:
        raise ConfigError(f"{path} has a grid:, so it is many experiments: fedrobust sweep {path}")
    for text in overrides:
        override(content, text)
    try:
        return from_config(Experiment, content)
    except ConfigError as error:
        source = f"{path} with {' '.join(f'-s {o}' for o in overrides)}" if overrides else str(path)
        raise ConfigError(f"{source}:\n{error}") from error


_BEFORE = {
    "attack.encoding=basis.draws": "fixed",
    "attack.training.check_episodes": 1,
    "attack.training.start": "random",
    "execution.gradients": "autograd",
}


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config with the fields that fedrobust has gained since, at their defaults.

    Where a default is not what was done before there was the field, ``_BEFORE`` says what was. What
    cannot be read, such as an object that no file can rebuild, stays as it is.
    """
    content = deepcopy(dict(stored))
    for path, value in _BEFORE.items():
        *way, last = path.split(".")
        for node in _nodes(content, way):
            node.setdefault(last, value)
    try:
        found: dict[str, Any] = to_config(from_config(Experiment, content))
    except ConfigError:
        plan = content.get("execution", {})
        return dict(stored) | {"execution": to_config(from_config(Execution, plan))}
    return found


def _nodes(content: Any, way: Sequence[str]) -> list[dict[str, Any]]:
    """The mappings at ``way``; an attack may lie within another that wraps it.

    A step ``key=name`` leads to the component of that name alone.
    """
    if not isinstance(content, dict):
        return []
    if not way:
        return [content]
    key, _, name = way[0].partition("=")
    first, rest = content.get(key), way[1:]
    if name and (not isinstance(first, dict) or first.get("name") != name):
        first = None
    wrapped = _nodes(first, way) if way[0] == "attack" else []
    return [*_nodes(first, rest), *wrapped]


def read_yaml(source: Path | str) -> Any:
    """The content of a YAML 1.2 file, or of a piece of text. Raises: ``ConfigError``."""
    try:
        text = source.read_text("utf-8") if isinstance(source, Path) else source
        return _apart(YAML(typ="safe", pure=True).load(text))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {source}: {error}") from error
    except YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {error}") from error


def _apart(node: Any) -> Any:
    """``node`` with nothing in it twice: a YAML alias is a copy, which an override leaves alone."""
    if isinstance(node, dict):
        return {key: _apart(value) for key, value in node.items()}
    return [_apart(item) for item in node] if isinstance(node, list) else node


def override(content: dict[str, Any], text: str) -> None:
    """Put what ``dotted.key=value`` says into ``content``. Raises: ``ConfigError``."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"-s {text}: write dotted.key=value, such as aggregator.f=12")
    try:
        put(content, key.strip(), read_yaml(value))
    except ConfigError as error:
        raise ConfigError(f"-s {text}: {error}") from error


def put(content: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted ``key`` of a config. Raises: ``ConfigError`` where a step is no mapping."""
    *above, last = key.split(".")
    node = content
    for step in above:
        below = node.setdefault(step, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{step} is {below!r}, which has no keys")
        node = below
    node[last] = value
