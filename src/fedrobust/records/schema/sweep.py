"""The record of a sweep, and what its cells report while they are played."""

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


_Rounds = Annotated[int, Strict(), Field(ge=0, le=2**63)]


@checked(frozen=True, config=OPEN)
class CellReport:
    """The contents of playing/NAME.json, which a cell writes while it is played.

    ``done`` rounds are played of ``rounds``, and at most ``furthest`` were before. ``deaths`` is
    how often the process was lost since that number last rose. ``notes`` are what the run tells.
    ``ended`` is true at the end, and ``failure`` then says why it failed; null where it did not.
    """

    done: _Rounds
    rounds: _Rounds
    furthest: _Rounds = 0
    deaths: _Rounds = 0
    notes: tuple[str, ...] = ()
    ended: bool = False
    failure: str | None = None


@checked(frozen=True, config=OPEN)
class SlurmJobs:
    """The contents of slurm/jobs.json: the job of each cell that was submitted, by its name."""

    cluster: str
    jobs: dict[str, Annotated[str, Field(pattern=r"^[0-9]+(_[0-9]+)?$")]]
