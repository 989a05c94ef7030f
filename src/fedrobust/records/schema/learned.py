"""What a learned attack says of itself, in a run's summary and in the file of its policy."""

import math
from typing import Any

from pydantic.dataclasses import dataclass as checked

from fedrobust.config.scalars import Count, Flag, Size
from fedrobust.records.schema.figures import OPEN, Drawn, Figure, Maybe


@checked(frozen=True, config=OPEN)
class Compared:
    """W₁ to the truth of equally many examples, and the shares of the classes."""

    own: Drawn
    learned: Drawn
    floor: Drawn
    examples: Size
    nearest: Drawn
    labels: dict[str, tuple[Figure, ...]]

    def __post_init__(self) -> None:
        if not any(self.labels.values()):
            raise ValueError("labels has no shares")


@checked(frozen=True, config=OPEN)
class LearnedReport:
    """What a learned attack says of itself in summary.json."""

    observed_rounds: Size
    reconstructed: Size
    distances: tuple[Drawn, ...]
    matching: tuple[tuple[Drawn, Drawn], ...]
    unused: tuple[Drawn, ...]
    returns: tuple[Drawn, ...]
    checks: tuple[tuple[Figure, Drawn], ...]
    simulated_rounds: Size
    seconds: Figure
    acts: Flag
    comparison: Compared | None = None
    value: Maybe = None
    source: str | None = None
    acts_from: Size | None = None

    def __post_init__(self) -> None:
        if max(len(self.distances), len(self.unused)) > len(self.matching):
            raise ValueError("there are more distances than inversions")

    @property
    def kept(self) -> int | None:
        """The step of the check that was best, whose policy acts; None where only one was there."""
        known = [(step, value) for step, value in self.checks if not math.isnan(value)]
        if len(self.checks) < 2 or not known:
            return None
        return int(max(known, key=lambda check: check[1])[0])


@checked(frozen=True, config=OPEN)
class PolicyRule:
    """What tells the rule that a policy was trained against."""

    clients: Count
    answers: tuple[Figure, ...]


@checked(frozen=True, config=OPEN)
class PolicyThreat:
    """What is read of the threat model that a policy was trained under."""

    rule: Flag
    clients: bool | int
    data: Size


@checked(frozen=True, config=OPEN)
class PolicyValue:
    """What is read of the report of the attack that trained a policy."""

    value: Maybe


@checked(frozen=True, config=OPEN)
class PolicyRecord:
    """What a policy's file says of how it was trained."""

    attack: dict[str, Any]
    threat: PolicyThreat
    parameters: Count
    gamma: Maybe
    report: PolicyValue
    rule: PolicyRule | None = None

    def __post_init__(self) -> None:
        for name in ("encoding", "hold", "reward", "ascent"):
            if name not in self.attack:
                raise ValueError(f"attack has no {name}")
