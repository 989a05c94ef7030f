"""The workers of a connected Ray cluster as a place where units of work are computed."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import nn

from fedrobust.cluster.arrays import Sent
from fedrobust.cluster.machine import Machine
from fedrobust.cluster.posted import ExitedError, Posted, Told
from fedrobust.compute.execution import Execution
from fedrobust.compute.network import frozen
from fedrobust.compute.randomness import drawing
from fedrobust.compute.units import Result, Unit, shared_by
from fedrobust.errors import ResourceError, UserError


@dataclass(frozen=True)
class Workers:
    """The workers of the cluster to which this process is connected.

    They compute under ``plan``, with the kind of processor of this machine, unless ``mixed``.
    """

    plan: Execution
    mixed: bool = False

    def post(self, work: Callable[..., Any], shared: Sequence[Sent] = ()) -> Posted:
        """Put ``work`` into the object store, once for many units: see :meth:`Posted.of`."""
        device = self.plan.device or "cpu"
        share = self.plan.gpu_share if device == "cuda" else 0.0
        origin = Machine.here(device)
        return Posted.of(work, origin, shared=shared, mixed=self.mixed, gpus=share)

    def computed(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        work: Callable[[nn.Module, Unit], Result],
        writes: bool,
        done: Callable[[int, Result], None],
        seeds: Sequence[int] | None,
    ) -> list[Result]:
        """Return ``work(model, unit)`` of every unit, in order: see ``compute.units.computed``."""
        with nullcontext() if writes else frozen(model):
            posted = self.post(_Computing(model, work, self.plan))
        found = dict[int, Result]()
        told = 0

        def take(i: int, answer: Result) -> None:
            nonlocal told
            found[i] = answer
            while told in found:
                done(told, found[told])
                told += 1

        drawn = [None] * len(units) if seeds is None else seeds
        tasks = (posted.start(unit, seed) for unit, seed in zip(units, drawn, strict=True))
        gather(posted, tasks, take)
        return [found[i] for i in range(len(units))]


@dataclass(frozen=True)
class _Computing:
    """The work of an evaluation, with the worker's own copy of the model."""

    model: nn.Module
    work: Callable[[nn.Module, Any], Any]
    plan: Execution

    def __call__(self, unit: Any, seed: int | None) -> Any:
        with self.plan.active(), shared_by(1), nullcontext() if seed is None else drawing(seed):
            return self.work(self.model, unit)


def gather(posted: Posted, tasks: Iterable[list[Any]], take: Callable[[int, Any], None]) -> None:
    """Call ``take`` with the number and the first answer of each task, as the answers arrive.

    A task of what is ``posted`` begins when it is iterated over. Twice as many as the cluster can
    compute at a time are begun, and each answer begins the next one. So a failure leaves few tasks
    behind, which end by themselves. They are not cancelled: where one ends at that moment, Ray 2.60
    aborts this process ("Tried to complete task that was not pending").

    Raises: the first exception, in the order of the tasks, as the task raised it;
        ``ResourceError`` where the cluster itself fails.
    """
    import ray

    place, pending, failed = dict[Any, int](), list[Any](), dict[int, BaseException]()
    coming, most = enumerate(tasks), 2 * max(1, posted.at_a_time())
    while True:
        for i, task in [] if failed else islice(coming, most - len(pending)):
            place[task[0]] = i
            pending.append(task[0])
        if not pending:
            break
        (ready, *_), pending = ray.wait(pending, num_returns=1)
        with _told(place[ready], failed):
            answer, told = ray.get(ready)
            _pass_on(told)
            take(place[ready], answer)
        if failed:  # only an earlier task's exception could still take precedence
            pending = [ref for ref in pending if place[ref] < min(failed)]
    if failed:
        raise failed[min(failed)]


@contextmanager
def _told(number: int, failed: dict[int, BaseException]) -> Iterator[None]:
    """Inside this context, keep the exception of a task; raise one of the cluster at once."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        failed[number] = _cause(error)
    except ray.exceptions.RayError as error:
        raise _failed(error) from error


def fetched(refs: Sequence[Any]) -> list[Any]:
    """Return what these references refer to; what a lost machine had is computed again.

    Raises: what the task raised; ``ResourceError`` where the cluster itself fails.
    """
    import ray

    try:
        return list(ray.get(list(refs)))
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error
    except ray.exceptions.RayError as error:
        raise _failed(error) from error


def _cause(error: Any) -> BaseException:
    """Return the exception of a task as the task raised it, with a note where that was."""
    cause: BaseException = error.cause if isinstance(error.cause, BaseException) else error
    if isinstance(cause, ExitedError):
        return SystemExit(cause.code)
    if not isinstance(cause, UserError):
        cause.add_note(f"in a task on another worker:\n{error}")
    return cause


def _failed(error: Exception) -> ResourceError:
    return ResourceError(
        f"the Ray cluster failed ({type(error).__name__}: {error}); put that right, then go on "
        "with --resume"
    )


def _pass_on(told: Told) -> None:
    for category, text in told:
        warnings.warn(text, category, stacklevel=2)
