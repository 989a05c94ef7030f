"""What a caller may watch, and what a run lends an attack. Both are passed along."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrobust.errors import RecordWarning

CELLS = "cells"
"""The part of a sweep that :attr:`Progress.moved` tells of all of its cells."""


def _silent(*told: object) -> None:
    """Nobody watches."""


def _warn(text: str) -> None:
    warnings.warn(text, RecordWarning, stacklevel=3)


def _the_part(name: str) -> "Progress":
    return UNWATCHED


@dataclass(frozen=True)
class Progress:
    """What a caller may watch of a run, a sweep, an audit or a training: one function an event.

    A field that is not given does nothing; ``repaired`` and ``unkept`` warn. The command line draws
    what it is told.
    """

    started: Callable[[Any, int], object] = _silent
    """A run begins, or goes on after a round: the ``Prepared`` run, and the round."""
    played: Callable[[Any], object] = _silent
    """A round was played: its ``RoundLog``."""
    evaluated: Callable[[dict[str, Any]], object] = _silent
    """The model was evaluated: the line of metrics.jsonl."""
    trained: Callable[[int, int], object] = _silent
    """A learned attack has simulated a number of steps, of so many in all."""
    troubled: Callable[[str], object] = _silent
    """An attack says what went wrong."""
    repaired: Callable[[str], object] = _warn
    """A file was missing or damaged, and is made again."""
    unkept: Callable[[str], object] = _warn
    """A checkpoint could not be written; the run goes on, and tries again."""
    moved: Callable[[str, int, int], object] = _silent
    """A part has moved on: its name, how much of it is done, and how much there is.

    The parts of an audit are its attacks, those of a sweep its running cells and ``CELLS``.
    """
    ended: Callable[[str, str | None], object] = _silent
    """A cell of a sweep has ended: its name, and why it failed, None where it did not."""
    part: Callable[[str], "Progress"] = _the_part
    """What watches a run within, by the name of that run: a surrogate that an audit trains."""


UNWATCHED = Progress()
"""Nobody watches; what is repaired or unkept warns."""


@dataclass(frozen=True)
class Host:
    """What a run lends an attack: whom it tells, and where it keeps what a kill must not lose.

    ``folder`` is None where nothing is kept. It grants no knowledge of the federation.
    """

    progress: Progress = UNWATCHED
    folder: Path | None = None


ALONE = Host()
"""What a simulated round lends, which tells nobody and keeps nothing."""
