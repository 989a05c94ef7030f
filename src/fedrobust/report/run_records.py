"""Read a run directory for the report: once, with checks, and without changing it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrobust.errors import RecordError
from fedrobust.records.pictures import Examples, examples_of
from fedrobust.records.reading import (
    broken,
    evaluations_of,
    json_of,
    mapping_of,
    present,
    rounds_of,
    shaped,
    text_of,
)
from fedrobust.records.schema.run import (
    Audited,
    Computed,
    Evaluation,
    Extension,
    PerUser,
    Round,
    Score,
    Summary,
    Test,
    Troubles,
)

__all__ = ["Audited", "Evaluation", "PerUser", "ReportRun", "Round", "Score", "Summary"]

_NEEDED = {"name": str, "rounds": int, "malicious": int} | dict.fromkeys(
    ("data", "partition", "aggregator", "evaluation"), dict
)


_OTHERS = ("sweep.json", "audit.json", "reproduction.json", "leaderboard.json")
"""The records of what is not one run."""


@dataclass(frozen=True)
class ReportRun:
    """The content of one run directory.

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
    extensions: tuple[Extension, ...] = ()
    """How often the run was extended from fewer rounds, and what was known by then."""

    @classmethod
    def read(cls, path: Path, *, lean: bool = False) -> "ReportRun":
        """Read the run directory at ``path``; if ``lean``, also one without rounds.jsonl."""
        path = Path(path)
        if not present(path / "config.yaml"):
            other = next((name for name in _OTHERS if present(path / name)), None)
            if other is not None:
                raise RecordError(
                    f"{path} holds {other}, so it is not one run, and only runs are compared with "
                    "each other: report on it alone"
                )
            lacking = "holds no config.yaml, and no sweep.json or audit.json either"
            problem = lacking if path.is_dir() else "is not a folder"
            raise RecordError(
                f"{path} {problem}, so it is not a run directory; "
                "give the folder that `fedrobust run` wrote"
            )
        config = config_of(path / "config.yaml")
        metrics = path / "metrics.jsonl"
        evaluations = evaluations_of(metrics, config)
        if not evaluations:
            raise RecordError(
                f"{path} has no evaluations yet: metrics.jsonl is missing or empty; "
                "report on it after its first evaluation"
            )
        log = path / "rounds.jsonl"
        without = lean and not present(log)
        rounds = () if without else rounds_of(log, Round)
        for name, found in (("metrics", evaluations), ("rounds", rounds)):
            numbers = [entry.round for entry in found]
            if numbers and numbers[-1] > config["rounds"]:
                raise broken(
                    path / f"{name}.jsonl", f"it goes to round {numbers[-1]} of {config['rounds']}"
                )
        if rounds and len(rounds) != rounds[-1].round:
            raise broken(path / "rounds.jsonl", "it lacks rounds")
        played = evaluations[-1].round if without else len(rounds)
        summary = _summary(path / "summary.json", evaluations, played)
        pictures, place = path / "examples.npz", path / "environment.json"
        environment = _environment(place)
        return cls(
            path=path.resolve(),
            config=config,
            config_text=text_of(path / "config.yaml"),
            environment=environment,
            evaluations=evaluations,
            rounds=rounds,
            summary=summary,
            examples=examples_of(pictures) if present(pictures) else None,
            extensions=_extensions(place, environment),
        )

    @property
    def chosen_round(self) -> int:
        """The round that validation chose; until the run ends, the most robust round so far."""
        if self.summary is not None:
            return self.summary.best_round
        return max(self.evaluations, key=_rank).round

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
        """The number of clients of the federation, where that is known."""
        count = self.summary.clients if self.summary else self.config["partition"].get("clients")
        return count if isinstance(count, int) else None

    @property
    def users(self) -> tuple[PerUser, str, str] | None:
        """The scores of each user or client, the word for them, and a phrase about their source.

        They are of the chosen model on the test split, by user where the data has users, else by
        client. Until the run ends, they are by user on the split that the run watches.
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


def _rank(found: Evaluation) -> tuple[bool, float, float]:
    """Return the key by which a run itself chooses a round."""
    return not found.before_attack, found.robust_accuracy, found.accuracy


def _summary(path: Path, evaluations: tuple[Evaluation, ...], rounds: int) -> Summary | None:
    """Return the run's summary. Raises: ``RecordError`` where it does not fit the other files."""
    if not present(path):
        return None
    found = json_of(path, Summary)
    by_round, last = {e.round: e for e in evaluations}, evaluations[-1].round
    if found.best_round not in by_round:
        raise broken(path, f"its best_round {found.best_round} was never evaluated")
    if found.rounds != last or found.rounds != rounds:
        raise broken(
            path,
            f"it has {found.rounds} rounds, rounds.jsonl has {rounds}, and metrics.jsonl "
            f"ends with round {last}",
        )
    told = found.validation
    for name, round in (("best", found.best_round), ("final", last)):
        repeated = getattr(told, name, None)
        here = by_round[round]
        if repeated is not None and any(
            repeated.get(key) != getattr(here, key)
            for key in ("round", "accuracy", "robust_accuracy")
        ):
            raise broken(path, f"its validation.{name} is not the line of metrics.jsonl")
    try:
        shaped(Troubles, found.attack or {})
    except ValueError as error:
        raise broken(path, f"attack: {error}") from error
    return found


def _environment(path: Path) -> Mapping[str, Any]:
    if not present(path):
        return {"environment": f"not known: {path.name} is missing"}
    return json_of(path, dict)


def _extensions(path: Path, environment: Mapping[str, Any]) -> tuple[Extension, ...]:
    try:
        found = shaped(Computed, environment)
    except ValueError as error:
        raise broken(path, error) from error
    return tuple(part.extended for part in found.resumed if part.extended is not None)


def config_of(path: Path) -> Mapping[str, Any]:
    """Return a run's config, with the keys that every page needs. Raises: ``RecordError``."""
    config = mapping_of(path)
    for key, kind in _NEEDED.items():
        value = config.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise broken(path, f"its {key} is missing or no {kind.__name__}")
    for key, least in (("rounds", 1), ("malicious", 0)):
        if not least <= config[key] < 2**63:
            raise broken(path, f"its {key} is {config[key]:.3g}")
    return config
