"""Play an experiment from Python, with progress on the screen and callbacks."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from fedrobust.config.arguments import told
from fedrobust.display import Display
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.progress import UNWATCHED, Progress
from fedrobust.results.callbacks import Callback, checked, told_of_failure, told_the_end, told_to
from fedrobust.results.run import Run
from fedrobust.results.sources import Memory
from fedrobust.runs.run import play


def run(
    experiment: Experiment,
    out: Path | str | None = None,
    resume: bool = False,
    *,
    other_processor: bool = False,
    progress: Progress | bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Play ``experiment`` to its end.

    ``out`` is the run directory to write; None writes nothing. With ``resume``, a run that is
    there goes on from its last checkpoint, to bit-identical results; a finished run is read. If the
    run there has fewer rounds than ``experiment``, it is extended, to the bits of a run that had as
    many from its start. The number of cores may differ. On another kind of processor the rounding
    may differ, so that a run goes on there only with ``other_processor``.

    ``progress`` True shows rounds and accuracies on the standard error, and False shows nothing.
    Left out, they are shown on a terminal and in a notebook only. A ``Progress`` of your own gets
    every event. ``callbacks`` are objects with some of the methods of
    :class:`~fedrobust.results.callbacks.Callback`.

    Raises: the ``UserError`` whose type fits the fault: config, data, records or resources.
    """
    if not isinstance(experiment, Experiment):
        raise ConfigError(
            f"run takes an Experiment, not a {type(experiment).__name__}; "
            "fedrobust.load(Path(...)) reads one from a YAML file"
        )
    called = checked(callbacks)
    if progress is None or isinstance(progress, bool):
        display = _display(progress)
        shown, watch = display or nullcontext(), display.progress if display else UNWATCHED
    elif isinstance(progress, Progress):
        shown, watch = nullcontext(), progress
    else:
        raise ConfigError(f"progress must be True, False or a Progress; it is {told(progress)}")
    with shown, told_of_failure(called):
        played = play(
            experiment,
            out,
            resume,
            other_processor=other_processor,
            progress=told_to(called, watch),
        )
    ended = Run(Memory(played))
    told_the_end(called, ended)
    return ended


def _display(asked: bool | None) -> Display | None:
    """Return the display of a run; None where nothing is to be shown."""
    if asked is False:
        return None
    notebook = Console().is_jupyter
    if asked is None and not (notebook or sys.stderr.isatty()):
        return None
    # Bars in a notebook are widgets. Without them, the display prints a line for each evaluation.
    if notebook and "ipywidgets" not in sys.modules and find_spec("ipywidgets") is None:
        return Display(Console(stderr=True, force_jupyter=False, force_terminal=False))
    return Display(Console(stderr=True, force_jupyter=notebook))
