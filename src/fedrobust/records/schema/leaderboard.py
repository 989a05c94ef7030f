"""The record of one result of a leaderboard: one rule under one attack, from one seed."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from fedrobust.config.scalars import Count, Flag, Fraction, Seed, Size
from fedrobust.records.schema.figures import OPEN, Figure, Unread, Verdict

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
LONGEST, LONGEST_BY = 60, 200
"""The most characters in the name of a rule or an attack, and in that of a submitter."""
Label = Annotated[str, Field(pattern=NAME, max_length=LONGEST)]
"""The name of a rule or of an attack, which is part of a file's name."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Knowledge = Literal["own data", "other attackers", "benign updates"]
"""What an attack is granted, from the least to the most; the last includes the server's rule."""


@checked(frozen=True, config=OPEN)
class ProtocolOf:
    """The protocol of a result. ``attacks`` are all attacks that a rule has to be played under.

    ``digest`` is that of everything that all results of the protocol have in common.
    """

    name: Label
    digest: Digest
    data: str
    attacks: Annotated[dict[Label, Knowledge], Field(min_length=1)]
    settings: dict[str, Any]


@checked(frozen=True, config=OPEN)
class RuleOf:
    """The rule of a result: its label, its config, and how many examples the server holds.

    ``knows_f``: whether it is told how many clients to tolerate.
    """

    label: Label
    config: dict[str, Any]
    root: Size
    knows_f: Flag


@checked(frozen=True, config=OPEN)
class AttackOf:
    """The attack of a result: its label, its config, and the threat model."""

    label: Label
    malicious: Size
    config: dict[str, Any] | None
    threat: dict[str, Any]


@checked(frozen=True, config=OPEN)
class AuditOf:
    """The audit of the last model: plain PGD's claim and what is true, on the same examples.

    ``low`` and ``high`` are the ends of the 95 % interval of ``robust``.
    """

    budget: str
    examples: Count
    claimed: Fraction
    robust: Fraction
    low: Fraction
    high: Fraction
    verdict: Verdict

    def __post_init__(self) -> None:
        if not self.low - 1e-9 <= self.robust <= self.high + 1e-9:
            raise ValueError("robust lies outside its interval")


@checked(frozen=True, config=OPEN)
class PlayedOn:
    """Where a result was computed. ``commit`` is None for an installed version."""

    fedrobust: str
    commit: str | None
    platform: str
    device: str
    cores: Count | None = None


@checked(frozen=True, config=OPEN)
class ResultRecord:
    """The contents of one file of a leaderboard.

    ``clean`` is the share of ``examples`` test examples that the last model answers rightly.
    ``run`` is the digest of the run's config, ``digest`` that of all other keys of this record.
    """

    protocol: ProtocolOf
    rule: RuleOf
    attack: AttackOf
    seed: Seed
    clean: Fraction
    examples: Count
    audit: AuditOf
    rounds: Count
    seconds: Figure
    played: PlayedOn
    submitted_by: Annotated[str, Field(min_length=1, max_length=LONGEST_BY)]
    run: Digest
    digest: Digest
    format: Unread = None

    def __post_init__(self) -> None:
        if self.attack.label not in self.protocol.attacks:
            raise ValueError(f"attack.label: {self.attack.label} is no attack of the protocol")

    @property
    def file(self) -> str:
        """Its place in the folder of the leaderboard."""
        return f"{self.protocol.name}/{self.rule.label}-{self.attack.label}-{self.seed}.json"
