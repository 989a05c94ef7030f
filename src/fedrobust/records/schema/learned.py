"""The report of a learned attack in a run's summary, and the contents of a policy's file."""

import math
from typing import Any

from pydantic.dataclasses import dataclass as checked

from fedrobust.config.scalars import Count, Flag, Size
from fedrobust.records.schema.figures import OPEN, Drawn, Figure, Maybe


@checked(frozen=True, config=OPEN)
class Compared:
    """W₁ distances to as many true examples, and the shares of the classes."""

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
    """The report of a learned attack in summary.json."""

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
    kept_step: Size | None = None
    reached: tuple[Drawn, ...] = ()
    """What each inversion minimised. Earlier versions had it at the end in ``matching``."""

    def __post_init__(self) -> None:
        if max(map(len, (self.distances, self.unused, self.reached))) > len(self.matching):
            raise ValueError("there are more distances than inversions")

    @property
    def kept(self) -> int | None:
        """The step of the policy that acts; None where fewer than two were checked.

        Where the record does not say it, it is the best one, as in earlier versions.
        """
        known = [(step, value) for step, value in self.checks if not math.isnan(value)]
        if len(self.checks) < 2 or not known:
            return None
        return (
            self.kept_step
            if self.kept_step is not None
            else int(max(known, key=lambda check: check[1])[0])
        )


@checked(frozen=True, config=OPEN)
class PolicyRule:
    """The fingerprint of the rule that a policy was trained against."""

    clients: Count
    answers: tuple[Figure, ...]


@checked(frozen=True, config=OPEN)
class PolicyThreat:
    """The part that is read of the threat model that a policy was trained under."""

    rule: Flag
    clients: bool | int
    data: Size


@checked(frozen=True, config=OPEN)
class PolicyValue:
    """The part that is read of the report of the attack that trained a policy."""

    value: Maybe


@checked(frozen=True, config=OPEN)
class PolicyRecord:
    """How a policy was trained, as its file stores it."""

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
