"""A run directory as the report sees it: read once, checked, never changed."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fedrobust.component import Count, Fraction, Size
from fedrobust.errors import RecordError

T = TypeVar("T")

_NEEDED = {"name": str, "rounds": int, "malicious": int} | dict.fromkeys(
    ("data", "partition", "aggregator", "evaluation"), dict
)
_OPEN = ConfigDict(extra="ignore")  # records may hold more than a page shows


@checked(frozen=True, config=_OPEN)
class PerUser:
    """Scores of each user of the data, or of each client's own part of the test set, by id."""

    accuracy: dict[str, Fraction]
    robust_accuracy: dict[str, Fraction]
    examples: dict[str, Size]

    def __post_init__(self) -> None:
        if not self.accuracy.keys() == self.robust_accuracy.keys() == self.examples.keys():
            raise ValueError("accuracy, robust_accuracy and examples name different users")
        if not self.accuracy:
            raise ValueError("there are no users; leave per_user out")


@checked(frozen=True, config=_OPEN)
class Robustness:
    """The Wasserstein certificate of one model."""

    gamma: float | None
    rho: float | None
    worst_case_loss: float | None
    certified: bool


@checked(frozen=True, config=_OPEN)
class Audited:
    """What an audit said of one model."""

    verdict: str
    claimed: Fraction
    robust: Fraction
    examples: Count
    masked: tuple[str, ...] = ()


@checked(frozen=True, config=_OPEN)
class Score:
    """One model's shares of right answers, over ``examples`` held-out examples."""

    accuracy: Fraction
    robust_accuracy: Fraction
    examples: Count
    per_user: PerUser | None = None
    per_client: PerUser | None = None
    wasserstein: Robustness | None = None
    audit: Audited | None = None


@checked(frozen=True, config=_OPEN)
class Evaluation:
    """One line of ``metrics.jsonl``: a round's score; ``seconds`` is the training time so far."""

    round: Size
    split: str
    seconds: float
    accuracy: Fraction
    robust_accuracy: Fraction
    examples: Count
    per_user: PerUser | None = None
    audit: Audited | None = None


@checked(frozen=True, config=_OPEN)
class Round:
    """One line of ``rounds.jsonl``; ``participants`` is None where everyone took part."""

    round: Count
    participants: frozenset[int] | None
    malicious: frozenset[int]
    kept: frozenset[int] | None
    dropped: tuple[int, ...]
    applied: bool
    reason: str | None = None


@checked(frozen=True, config=_OPEN)
class Test:
    """The test split's one reading: the model that validation chose, and the last one."""

    best: Score
    final: Score


@checked(frozen=True, config=_OPEN)
class Summary:
    """What a finished run adds."""

    rounds: Count
    clients: Count
    parameters: Count
    best_round: Size
    seconds: float
    notes: tuple[str, ...] = ()
    threat: str | None = None
    test: Test | None = None
    attack: dict[str, Any] | None = None


@dataclass(frozen=True)
class Examples:
    """Pictures ``[b, c, h, w]`` in [0, 1], their labels, and the model's answers."""

    clean: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    labels: NDArray[np.int64]
    clean_answers: NDArray[np.int64]
    adversarial_answers: NDArray[np.int64]


@dataclass(frozen=True)
class ReportRun:
    """One run directory.

    Raises (``read``): ``RecordError`` where the folder is no run directory, has no evaluations
    yet, or holds a broken file.
    """

    path: Path
    config: Mapping[str, Any]
    config_text: str
    environment: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]
    rounds: tuple[Round, ...]
    summary: Summary | None
    examples: Examples | None

    @classmethod
    def read(cls, path: Path) -> "ReportRun":
        """Read the run directory at ``path``."""
        path = Path(path)
        if not (path / "config.yaml").is_file():
            problem = "holds no config.yaml" if path.is_dir() else "is not a folder"
            raise RecordError(
                f"{path} {problem}, so it is not a run directory; "
                "give the folder that `fedrobust run` wrote"
            )
        text = _text(path / "config.yaml")
        config = _config(path / "config.yaml", text)
        metrics = path / "metrics.jsonl"
        evaluations = _lines(metrics, Evaluation) if metrics.is_file() else ()
        if not evaluations:
            raise RecordError(
                f"{path} has no evaluations yet: metrics.jsonl is missing or empty; "
                "report on it after its first evaluation"
            )
        rounds = _lines(path / "rounds.jsonl", Round)
        for name, found in (("metrics", evaluations), ("rounds", rounds)):
            numbers = [entry.round for entry in found]
            if any(b <= a for a, b in pairwise(numbers)):
                raise RecordError(f"{path / name}.jsonl is broken: its rounds are not in order")
        finished, pictures = path / "summary.json", path / "examples.npz"
        summary = _json(finished, Summary) if finished.exists() else None
        if summary and summary.best_round not in {e.round for e in evaluations}:
            raise RecordError(
                f"{finished} is broken: its best_round {summary.best_round} was never evaluated"
            )
        return cls(
            path=path.resolve(),
            config=config,
            config_text=text,
            environment=_json(path / "environment.json", dict[str, Any]),
            evaluations=evaluations,
            rounds=rounds,
            summary=summary,
            examples=_examples(pictures) if pictures.exists() else None,
        )

    @property
    def chosen_round(self) -> int:
        """The round that validation chose; until the run ends, the most robust one so far."""
        if self.summary is not None:
            return self.summary.best_round
        return max(self.evaluations, key=lambda e: (e.robust_accuracy, -e.round)).round

    @property
    def chosen(self) -> Evaluation:
        """The evaluation of the chosen round."""
        return next(e for e in self.evaluations if e.round == self.chosen_round)

    @property
    def test(self) -> Test | None:
        """The scores on the test split, once there are any."""
        return self.summary.test if self.summary else None

    @property
    def clients(self) -> int | None:
        """How many clients the federation has, where that is known."""
        count = self.summary.clients if self.summary else self.config["partition"].get("clients")
        return count if isinstance(count, int) else None

    @property
    def users(self) -> tuple[PerUser, str, str] | None:
        """Everyone's own scores, what they are (users or clients), and a phrase saying of what.

        The chosen model on the test split, by user where the data has users, else by client; until
        the run ends, users on the split that it watches.
        """
        if self.test and self.test.best.per_user:
            return self.test.best.per_user, "users", "the chosen model on the test split"
        if self.test and self.test.best.per_client:
            source = "the chosen model on each client’s own part of the test split"
            return self.test.best.per_client, "clients", source
        known = [e for e in self.evaluations if e.per_user]
        if not known:
            return None
        evaluation = self.chosen if self.chosen.per_user else known[-1]
        assert evaluation.per_user is not None
        source = f"the model of round {evaluation.round:,} on the {evaluation.split} split"
        return evaluation.per_user, "users", source


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot read {path}: {error}") from error


def _parse(where: str, text: str, kind: type[T]) -> T:
    try:
        return TypeAdapter(kind).validate_python(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise RecordError(f"{where} is broken: {key}: {first['msg']}") from error
    except json.JSONDecodeError as error:
        raise RecordError(f"{where} is broken: {error}") from error


def _json(path: Path, kind: type[T]) -> T:
    return _parse(str(path), _text(path), kind)


def _lines(path: Path, kind: type[T]) -> tuple[T, ...]:
    lines = enumerate(_text(path).splitlines(), start=1)
    return tuple(_parse(f"{path}, line {i}", line, kind) for i, line in lines if line.strip())


def _config(path: Path, text: str) -> Mapping[str, Any]:
    try:
        config = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise RecordError(f"{path} is broken: {error}") from error
    if not isinstance(config, dict):
        raise RecordError(f"{path} is broken: it is not a mapping of keys to values")
    for key, kind in _NEEDED.items():
        if not isinstance(config.get(key), kind):
            raise RecordError(f"{path} is broken: its {key} is missing or no {kind.__name__}")
    return config


def _examples(path: Path) -> Examples:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = Examples(**{name: archive[name] for name in Examples.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path} is broken: {error}") from error
    shape = found.clean.shape
    answers = (found.labels, found.clean_answers, found.adversarial_answers)
    if (
        len(shape) != 4
        or found.adversarial.shape != shape
        or any(a.shape != shape[:1] for a in answers)
    ):
        raise RecordError(f"{path} is broken: its arrays do not fit together")
    return found
