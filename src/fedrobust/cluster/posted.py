"""Work that is put into Ray's object store once, and that each worker opens once."""

import functools
import pickle
import sys
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fedrobust.cluster.machine import Machine
from fedrobust.config import beside
from fedrobust.errors import ConfigError

_KEPT = 2
"""How many pieces of work a worker keeps open: training, and what an evaluation asks."""
_OPEN: OrderedDict[str, Callable[..., Any]] = OrderedDict()

Told = list[tuple[type[Warning], str]]
"""The warnings of a task, which the run passes on."""


@dataclass(frozen=True)
class _Package:
    """Pickled work. ``arrays`` are its large parts, which workers read where they lie.

    ``places`` are the folders of the user's own modules, of which those in ``path`` are searched
    by Python itself. ``origin`` is where it was packed.
    """

    code: bytes
    arrays: tuple[Any, ...]
    places: tuple[str, ...]
    path: tuple[str, ...]
    origin: Machine
    mixed: bool


@dataclass(frozen=True)
class Posted:
    """Work in the object store: ``start`` makes a task of it for one unit.

    Each task takes one core, or this share of a GPU.
    """

    key: str
    ref: Any
    gpus: float = 0.0

    @classmethod
    def of(
        cls, work: Callable[..., Any], origin: Machine, *, mixed: bool = False, gpus: float = 0.0
    ) -> "Posted":
        """Put ``work`` into the object store. With ``mixed``, any kind of processor may do it.

        Raises: ``ConfigError`` where it cannot be sent, like a model that holds an open file.
        """
        import cloudpickle
        import ray

        arrays = list[pickle.PickleBuffer]()
        try:
            code = cloudpickle.dumps(work, protocol=5, buffer_callback=arrays.append)
        except Exception as error:  # a user's object may refuse in any way
            raise ConfigError(
                "the model, the objective or the attack cannot be sent to other machines "
                f"({type(error).__name__}: {error}); use execution.backend: local"
            ) from error
        places = beside.places()
        package = _Package(
            code=code,
            arrays=tuple(_array(part) for part in arrays),
            places=places,
            path=tuple(place for place in places if place in sys.path),
            origin=origin,
            mixed=mixed,
        )
        return cls(uuid.uuid4().hex, ray.put(package), gpus)

    def start(self, unit: Any, *given: Any, returns: int = 1) -> list[Any]:
        """Begin a task for ``unit`` and return references to its answers.

        The work is called with the unit and ``given``. References in ``given`` become what they
        refer to. A lost worker or node is no failure: the task begins again elsewhere. The first
        answer is a pair of the work's own and of its warnings.
        """
        # In a list, the reference reaches the worker as it is, and is opened once.
        found = (
            _task()
            .options(num_cpus=0 if self.gpus else 1, num_gpus=self.gpus, num_returns=returns)
            .remote(self.key, [self.ref], returns > 1, unit, *given)
        )
        return [found] if returns == 1 else list(found)


def _array(part: pickle.PickleBuffer) -> Any:
    import numpy as np

    return np.frombuffer(part.raw(), dtype=np.uint8)


@functools.cache
def _task() -> Any:
    import ray

    return ray.remote(max_retries=-1, retry_exceptions=False)(_performed)


def _performed(key: str, held: Sequence[Any], several: bool, unit: Any, *given: Any) -> Any:
    """Do the work of one task, on a worker. ``several``: its answer is a tuple of answers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        answer = _opened(key, held[0])(unit, *given)
    told: Told = [(each.category, str(each.message)) for each in caught]
    return ((answer[0], told), *answer[1:]) if several else (answer, told)


def _opened(key: str, ref: Any) -> Callable[..., Any]:
    """Return the work, which this worker has opened before, or opens now."""
    import ray

    if key not in _OPEN:
        package: _Package = ray.get(ref)
        Machine.here(package.origin.device).require_like(package.origin, mixed=package.mixed)
        beside.look_in(package.places)
        sys.path += [place for place in package.path if place not in sys.path]
        try:
            _OPEN[key] = pickle.loads(package.code, buffers=package.arrays)
        except ModuleNotFoundError as error:
            host = Machine.here(package.origin.device).host
            raise ConfigError(
                f"the worker on {host} has no module {error.name}, which the model, the objective "
                "or the attack comes from: put it beside the config in a folder that all machines "
                "share, or install it on all of them"
            ) from error
        while len(_OPEN) > _KEPT:
            _OPEN.popitem(last=False)
    _OPEN.move_to_end(key)
    return _OPEN[key]
