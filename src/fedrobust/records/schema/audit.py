"""The record of an audit."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, Strict
from pydantic.dataclasses import dataclass as checked

from fedrobust.config.scalars import Count, Fraction, Size
from fedrobust.records.schema.figures import OPEN, Figure, Maybe, Unread, Verdict


@checked(frozen=True, config=OPEN)
class ShareRecord:
    """``count`` of ``total`` examples."""

    count: Size
    total: Count

    def __post_init__(self) -> None:
        if self.count > self.total:
            raise ValueError(f"{self.count} of {self.total} is no share")


@checked(frozen=True, config=OPEN)
class TakenRecord:
    """The result of one attack of an audit."""

    name: str
    tried: Size
    fell: Size
    seconds: Figure


@checked(frozen=True, config=OPEN)
class IndicatorRecord:
    """One sign of gradient masking in an audit, with its interval."""

    name: str
    value: Figure
    low: Figure
    high: Figure
    floor: Figure


@checked(frozen=True, config=OPEN)
class SurfaceRecord:
    """The loss around the examples of an audit, on a square grid."""

    ticks: Annotated[list[Figure], Field(min_length=2)]
    loss: list[list[Maybe]]
    lead: list[list[Maybe]]
    errors: list[list[Maybe]]
    examples: Size

    def __post_init__(self) -> None:
        n = len(self.ticks)
        if any(a >= b for a, b in pairwise(self.ticks)):
            raise ValueError("ticks do not rise")
        for name in ("loss", "lead", "errors"):
            rows = getattr(self, name)
            if len(rows) != n or any(len(row) != n for row in rows):
                raise ValueError(f"{name} is not [{n}, {n}]")


@checked(frozen=True, config=OPEN)
class OwnAudit:
    """What the record of a run says of its own audit of the same model."""

    verdict: Verdict
    robust: Fraction
    examples: Count
    budget: str
    attacks: Count | None = None


@checked(frozen=True, config=OPEN)
class AuditRecord:
    """The contents of audit.json. ``run`` is None for a model of no run, and in older records."""

    verdict: Verdict
    clean: Fraction
    claimed: Fraction
    robust: Fraction
    shares: dict[Literal["clean", "claimed", "robust"], ShareRecord]
    taken: tuple[TakenRecord, ...]
    signs: Annotated[tuple[IndicatorRecord, ...], Field(min_length=1)]
    notes: tuple[str, ...]
    settings: dict[str, str | Annotated[int, Strict()] | Figure]
    surface: SurfaceRecord
    run: OwnAudit | None = None
    format: Unread = None
    fedrobust: Unread = None
    model: Unread = None
    data: Unread = None
    asked: Unread = None
    about: Unread = None

    def __post_init__(self) -> None:
        for name in ("clean", "claimed", "robust"):
            if name not in self.shares:
                raise ValueError(f"shares has no {name}")
            share = self.shares[name]
            if abs(getattr(self, name) - share.count / share.total) > 1e-9:
                raise ValueError(f"{name} is not {share.count} of {share.total}")
        if not isinstance(self.settings.get("examples"), int):
            raise ValueError("settings does not give the number of examples")
