"""Units of work: the fixed parts of a computation, which any number of workers share.

One worker computes a unit alone. On a CPU it does so in one thread, on its own copy of the model. A
unit depends on nothing that another one does, so the results have the same bits for any number of
workers. How many there are is a setting of this process, like PyTorch's number of threads: it can
change no result, so nothing passes it on.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from copy import deepcopy
from queue import SimpleQueue
from typing import Protocol, TypeVar

import torch
from torch import nn

from fedrobust.compute.global_draws import DRAWS, Draws
from fedrobust.compute.network import frozen
from fedrobust.compute.randomness import Streams, isolated, positions, seed_globally
from fedrobust.errors import DrawWarning

_LOG = logging.getLogger(__name__)

Unit = TypeVar("Unit")
Result = TypeVar("Result")

_WORKERS: ContextVar[int | None] = ContextVar("workers", default=None)


class Place(Protocol):
    """Other processes or machines, which compute units with the same bits as this process."""

    def computed(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        work: Callable[[nn.Module, Unit], Result],
        writes: bool,
        done: Callable[[int, Result], None],
        seeds: Sequence[int] | None,
    ) -> list[Result]:
        """Return ``work(model, unit)`` of every unit, as :func:`computed` does.

        ``seeds``, where given, are those of the global generators, from which a unit may draw.
        """
        ...


_PLACE: ContextVar[Place | None] = ContextVar("place", default=None)


@contextmanager
def placed(place: Place | None) -> Iterator[None]:
    """Inside this context, units that can be computed ``anywhere`` are computed in ``place``."""
    token = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(token)


def workers() -> int:
    """Return how many units are computed at a time: as many as PyTorch has threads, if not set."""
    return _WORKERS.get() or torch.get_num_threads()


@contextmanager
def shared_by(count: int) -> Iterator[None]:
    """Inside this context ``count`` workers share the units.

    PyTorch's own operations then take one thread each: with several, some sums are split by their
    number, which changes the rounding.
    """
    threads, token = torch.get_num_threads(), _WORKERS.set(count)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _WORKERS.reset(token)


def seeds(seed: int) -> Callable[[slice], int]:
    """Return a seed for each unit of examples, by the place where it starts."""
    streams = Streams(seed)
    return lambda part: streams.generator("unit", part.start).initial_seed() % 2**63


def slices(total: int, size: int) -> list[slice]:
    """Return the units of ``total`` examples: ``size`` neighbours each, the last may be smaller."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def computed(
    model: nn.Module,
    units: Sequence[Unit],
    work: Callable[[nn.Module, Unit], Result],
    *,
    seed: Callable[[Unit], int] = lambda unit: 0,
    draws: Draws = "never",
    writes: bool = False,
    anywhere: bool = False,
    done: Callable[[int, Result], None] = lambda i, result: None,
) -> list[Result]:
    """Return ``work(model, unit)`` of every unit, in order. Workers get copies of ``model``.

    The copies share the model's parameters, which are frozen meanwhile. If ``work`` ``writes`` to
    the parameters, or takes gradients by them, each copy has its own.

    Some models and attacks draw from the global generators, of which a process has one set. Unless
    ``draws`` says that none does, these are seeded by ``seed`` for every unit, and restored
    afterwards. If they "perhaps" draw, the first unit is computed alone; if it draws, the others
    are computed one after another, too. If a unit draws although the trial or the first unit did
    not, a ``DrawWarning`` says that the result may depend on the number of workers. A model that
    draws "from its own" generator computes all units itself, in their order.

    ``anywhere`` says that ``work`` changes nothing and can be sent to another machine.

    ``done`` is called for each unit in order, in the calling thread. The first exception, in the
    order of the units, is raised, and no further unit begins.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    alone = draws == "from its own"  # then a copy would go on otherwise than the model itself
    count = workers() if on_cpu and not alone else 1
    place = _PLACE.get() if anywhere and on_cpu and not alone else None
    with shared_by(1):
        if draws == "never":
            return _shared(model, units, work, count, writes, done, place)
        with isolated():
            found, drawn = list[Result](), positions()
            quiet = draws == "not in a trial"
            for i, unit in enumerate(units):
                if (count > 1 or place is not None) and quiet:
                    break
                seed_globally(seed(unit))
                drawn = positions()
                found.append(work(model, unit))
                done(i, found[-1])
                quiet = positions() == drawn
            begun = len(found)
            found += _shared(
                model,
                units[begun:],
                work,
                count,
                writes,
                lambda i, result: done(begun + i, result),
                place,
                seed,
            )
            if begun < len(units) and positions() != drawn:
                told = DRAWS.format("the model or the attack", "on the first examples")
                warnings.warn(told, DrawWarning, stacklevel=3)
    return found


def _shared(
    model: nn.Module,
    units: Sequence[Unit],
    work: Callable[[nn.Module, Unit], Result],
    count: int,
    writes: bool,
    done: Callable[[int, Result], None],
    place: Place | None,
    seed: Callable[[Unit], int] | None = None,
) -> list[Result]:
    """Compute units that draw from no global generator; elsewhere ``seed`` is used if they do."""
    if place is not None and len(units) > 1:
        seeds = None if seed is None else [seed(unit) for unit in units]
        return place.computed(model, units, work, writes, done, seeds)
    found: list[Result] = []
    free: SimpleQueue[nn.Module] = SimpleQueue()
    count = min(count, len(units))
    copies = _copies(model, count, writes) if count > 1 else []
    for copy in copies:
        free.put(copy)

    def turn(unit: Unit) -> Result:
        copy = free.get()
        try:
            return work(copy, unit)
        finally:
            free.put(copy)

    if not copies:
        for i, unit in enumerate(units):
            found.append(work(model, unit))
            done(i, found[-1])
        return found
    pool = ThreadPoolExecutor(count, "unit", initializer=_begin)
    try:
        with nullcontext() if writes else frozen(model):
            for i, future in enumerate([pool.submit(turn, unit) for unit in units]):
                found.append(future.result())
                done(i, found[-1])
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _begin() -> None:
    """Prepare a worker: it computes in one thread, and what it calls has no workers of its own."""
    _WORKERS.set(1)
    torch.set_num_threads(1)


def _copies(model: nn.Module, count: int, writes: bool) -> list[nn.Module]:
    """Return copies of ``model``; none where it cannot be copied, so that one worker does it all.

    PyTorch copies no tensor that has been computed, which a module may hold (``weight_norm``).
    """
    kept = [] if writes else list(model.parameters())
    try:
        return [
            deepcopy(model, {id(parameter): parameter for parameter in kept}) for _ in range(count)
        ]
    except Exception as error:  # a user's module may refuse in any way
        _LOG.info("one worker does it all, since the model cannot be copied: %s", error)
        return []
