"""Functions of the user that a run calls at its start, its rounds, its evaluations and its end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

from fedrobust.config.arguments import told
from fedrobust.config.signature import misfit
from fedrobust.errors import ConfigError
from fedrobust.experiment import Experiment
from fedrobust.federation.round_log import RoundLog
from fedrobust.progress import Progress
from fedrobust.results.run import Run
from fedrobust.typing import Json


class Callback:
    """What happens in a run, as methods to override. Each does nothing by default.

    An object with some of these methods serves as well. An exception that a callback raises ends
    the run; with ``out`` it can go on from its last checkpoint. The rounds after that checkpoint
    are then played again, and told again.
    """

    def on_start(self, experiment: Experiment, round: int) -> None:
        """The run begins, or goes on after ``round``, which is 0 for a new run."""

    def on_round(self, log: RoundLog) -> None:
        """A round was played."""

    def on_evaluation(self, metrics: Json) -> None:
        """The model was evaluated: ``metrics`` is the line of metrics.jsonl."""

    def on_end(self, run: Run) -> None:
        """The run has ended, and its records are written.

        If this fails, the other callbacks are still called. The error has the run as its ``run``.
        """

    def on_failure(self, error: BaseException) -> None:
        """The run was stopped by ``error``, also by the user."""


EVENTS = {
    "on_start": "experiment, round",
    "on_round": "log",
    "on_evaluation": "metrics",
    "on_end": "run",
    "on_failure": "error",
}
"""The methods of a callback, with the arguments that they are called with."""


def checked(callbacks: object) -> tuple[Any, ...]:
    """Return the callbacks. Raises: ``ConfigError`` for an object that would never be called."""
    if any(hasattr(callbacks, event) for event in EVENTS):
        callbacks = (callbacks,)
    if not isinstance(callbacks, Sequence):
        raise ConfigError(f"callbacks must be a list of objects; it is {told(callbacks)}")
    for callback in callbacks:
        names = [name for name in dir(callback) if name.startswith("on_")]
        kind = type(callback).__name__
        if isinstance(callback, type):
            name = callback.__name__
            raise ConfigError(f"callbacks: {name} is a class; give an object: {name}()")
        if strange := [name for name in names if name not in EVENTS]:
            raise ConfigError(
                f"callbacks: {kind} has {strange[0]}, which is never called; the events are "
                f"{', '.join(EVENTS)}"
            )
        called = [name for name in names if callable(getattr(callback, name))]
        if not called:
            methods = ", ".join(f"{name}({arguments})" for name, arguments in EVENTS.items())
            raise ConfigError(f"callbacks: {kind} has none of the methods {methods}")
        for name in called:
            if wrong := misfit(getattr(callback, name), name, EVENTS[name]):
                raise ConfigError(f"callbacks: {name} of {kind} {wrong}")
    return tuple(callbacks)


def told_to(callbacks: Sequence[Any], progress: Progress) -> Progress:
    """Return ``progress``, with the events passed on to the callbacks too."""

    def each(event: str) -> list[Callable[..., object]]:
        return [getattr(c, event) for c in callbacks if hasattr(c, event)]

    starts, rounds, evaluations = each("on_start"), each("on_round"), each("on_evaluation")

    def started(run: Any, round: int) -> None:
        progress.started(run, round)
        for call in starts:
            call(run.experiment, round)

    def played(log: RoundLog) -> None:
        progress.played(log)
        for call in rounds:
            call(log)

    def evaluated(metrics: Json) -> None:
        progress.evaluated(metrics)
        for call in evaluations:
            call(deepcopy(metrics))

    return replace(progress, started=started, played=played, evaluated=evaluated)


@contextmanager
def told_of_failure(callbacks: Sequence[Any]) -> Iterator[None]:
    """Tell the callbacks of an error that ends the run inside this context, and pass it on."""
    try:
        yield
    except BaseException as error:
        for callback in callbacks:
            if hasattr(callback, "on_failure"):
                try:
                    callback.on_failure(error)
                except Exception as other:  # the first error is the one to raise
                    error.add_note(f"{type(callback).__name__}.on_failure failed too: {other}")
        raise


def told_the_end(callbacks: Sequence[Any], run: Run) -> None:
    """Tell all callbacks of the end. Raises: the first error of them, with ``run`` attached."""
    failed: list[Exception] = []
    for callback in callbacks:
        if hasattr(callback, "on_end"):
            try:
                callback.on_end(run)
            except Exception as error:  # the result of the run must not be lost
                failed.append(error)
    if failed:
        first = failed[0]
        first.run = run  # type: ignore[attr-defined]
        first.add_note("the run itself has ended well: it is the attribute run of this error")
        for other in failed[1:]:
            first.add_note(f"another callback failed too: {type(other).__name__}: {other}")
        raise first
