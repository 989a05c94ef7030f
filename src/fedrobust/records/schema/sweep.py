"""The record of a sweep."""

from typing import Annotated, Any

from pydantic import Field, Strict
from pydantic.dataclasses import dataclass as checked

from fedrobust.records.schema.figures import OPEN, Unread


@checked(frozen=True, config=OPEN)
class SweepCellEntry:
    """One cell of a sweep: its folder's name, and its place on every axis."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    labels: dict[str, str]


@checked(frozen=True, config=OPEN)
class SweepRecord:
    """The contents of sweep.json."""

    name: str
    axes: dict[str, tuple[str, ...]]
    cells: tuple[SweepCellEntry, ...]
    threads: Annotated[int, Strict(), Field(ge=1, le=4096)] | None = None
    config: Any = None
    reference: str | None = None
    format: Unread = None
