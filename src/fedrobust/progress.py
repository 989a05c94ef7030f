"""The events that a caller can watch (``Progress``), and what a run gives to an attack (``Host``).

Both are passed as arguments from function to function.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrobust.errors import RecordWarning

CELLS = "all cells"
"""The name under which :attr:`Progress.moved` reports on all cells of a sweep together."""


def _silent(*told: object) -> None:
    """Do nothing, because nobody watches this event."""


def _warn(text: str) -> None:
    warnings.warn(text, RecordWarning, stacklevel=3)


def _the_part(name: str) -> "Progress":
    return UNWATCHED


@dataclass(frozen=True)
class Progress:
    """One function for each event that a caller can watch of a run, a sweep or an audit.

    A field that is not given does nothing, except that ``repaired`` and ``unkept`` warn. The
    command line draws its display from these events.
    """

    started: Callable[[Any, int], object] = _silent
    """A run begins, or resumes after a round. Arguments: the ``Prepared`` run, and the round."""
    extended: Callable[[str], object] = _silent
    """A run of fewer rounds is extended. Argument: a text that says how its results are kept."""
    played: Callable[[Any], object] = _silent
    """A round was played. Argument: its ``RoundLog``."""
    evaluated: Callable[[dict[str, Any]], object] = _silent
    """The model was evaluated. Argument: the line of metrics.jsonl."""
    trained: Callable[[int, int], object] = _silent
    """A learned attack has simulated some steps. Arguments: steps so far, and steps in all."""
    troubled: Callable[[str], object] = _silent
    """An attack reports a problem. Argument: the text."""
    repaired: Callable[[str], object] = _warn
    """A file was missing or damaged, and is made again. Argument: the text."""
    unkept: Callable[[str], object] = _warn
    """A checkpoint could not be written; the run goes on, and tries again. Argument: the text."""
    moved: Callable[[str, int, int], object] = _silent
    """A part has made progress. Arguments: its name, how much is done, and how much there is.

    The parts of an audit are its attacks. The parts of a sweep are its running cells and ``CELLS``.
    """
    ended: Callable[[str, str | None], object] = _silent
    """A cell of a sweep has ended. Arguments: its name, and why it failed (None if it did not)."""
    part: Callable[[str], "Progress"] = _the_part
    """Return the ``Progress`` of an inner run by its name: a surrogate that an audit trains."""

    def __deepcopy__(self, memo: object) -> "Progress":
        """Return it as it is: a user's attack may copy its view, and a display cannot be copied."""
        return self


UNWATCHED = Progress()
"""The default, where nobody watches: ``repaired`` and ``unkept`` warn."""


@dataclass(frozen=True)
class Host:
    """What a run gives to an attack: whom to report to, and a folder for what must survive a kill.

    ``folder`` is None where nothing is kept. A host grants no knowledge of the federation.
    """

    progress: Progress = UNWATCHED
    folder: Path | None = None


ALONE = Host()
"""The host in a simulated round, which reports to nobody and keeps nothing."""
