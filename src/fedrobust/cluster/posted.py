"""Work that is put into Ray's object store once, and that each worker opens once."""

import functools
import os
import pickle
import sys
import traceback
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedrobust.cluster.arrays import Sent
from fedrobust.cluster.machine import Machine
from fedrobust.config import beside
from fedrobust.errors import ConfigError

_KEPT = 2
"""How many pieces of work a worker keeps open: training, and what an evaluation asks."""
_OPEN: OrderedDict[str, tuple[Callable[..., Any], torch.dtype]] = OrderedDict()

Told = list[tuple[type[Warning], str]]
"""The warnings of a task, which the run passes on."""


@dataclass(frozen=True)
class _Package:
    """Pickled work. ``arrays`` are parts of it that workers read where they lie.

    ``places`` are the folders of the user's own modules, ``path`` is what Python itself searches,
    and ``dtype`` is PyTorch's default. ``origin`` is where it was packed.
    """

    code: bytes
    arrays: tuple[Any, ...]
    places: tuple[str, ...]
    path: tuple[str, ...]
    dtype: torch.dtype
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
        cls,
        work: Callable[..., Any],
        origin: Machine,
        *,
        shared: Sequence[Sent] = (),
        mixed: bool = False,
        gpus: float = 0.0,
    ) -> "Posted":
        """Put ``work`` into the object store. With ``mixed``, any kind of processor may do it.

        Workers of a machine read the tensors ``shared``, parts of the work, where they lie.

        Raises: ``ConfigError`` where it cannot be sent, like a model that holds an open file.
        """
        import ray

        arrays, places = list[Any](), {_address(each.bytes) for each in shared}

        def keep(part: pickle.PickleBuffer) -> bool:
            """Put an array of ``shared`` beside the rest, of which each worker has its own."""
            array = np.frombuffer(part.raw(), dtype=np.uint8)
            if _address(array) not in places:
                return True
            arrays.append(array)
            return False

        package = _Package(
            code=pickled(work, keep),
            arrays=tuple(arrays),
            places=beside.places(),
            path=_own_path(),
            dtype=torch.get_default_dtype(),
            origin=origin,
            mixed=mixed,
        )
        return cls(uuid.uuid4().hex, ray.put(package), gpus)

    def at_a_time(self) -> int:
        """Return how many tasks of this work the cluster can compute at a time, now."""
        import ray

        there = ray.cluster_resources()
        return int(there.get("GPU", 0) / self.gpus if self.gpus else there.get("CPU", 0))

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


def pickled(value: object, keep: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes:
    """Return ``value`` as bytes, without the arrays for which ``keep`` gives False.

    Raises: ``ConfigError`` where it cannot be pickled: a user's object may refuse in any way.
    """
    import cloudpickle

    try:
        found: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=keep)
    except Exception as error:
        raise cannot_be_sent(error) from error
    return found


def cannot_be_sent(error: Exception) -> ConfigError:
    """Return the error for a user's object that cannot be sent, because of ``error``."""
    return ConfigError(
        "the model, the objective or the attack cannot be sent to other machines "
        f"({type(error).__name__}: {error}); use execution.backend: local"
    )


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def _own_path() -> tuple[str, ...]:
    """Return where Python searches for modules, without the working directory.

    The files in it may come from anybody, unless the program itself lies there.
    """
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    program = os.path.dirname(os.path.abspath(main)) if main else None
    here = os.getcwd()
    return tuple(p for p in sys.path if p and (os.path.abspath(p) != here or p == program))


@functools.cache
def _task() -> Any:
    import ray

    return ray.remote(max_retries=-1, retry_exceptions=False)(_performed)


class ExitedError(Exception):
    """A task called ``sys.exit``, which would end the worker; ``code`` is what it gave."""

    def __init__(self, code: object) -> None:
        super().__init__(code)
        self.code = code


def _performed(key: str, held: Sequence[Any], several: bool, unit: Any, *given: Any) -> Any:
    """Do the work of one task, on a worker. ``several``: its answer is a tuple of answers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            work, dtype = _opened(key, held[0])
            before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            try:
                answer = work(unit, *given)
            finally:
                torch.set_default_dtype(before)
        except SystemExit as error:
            raise ExitedError(error.code) from error
        except Exception as error:
            if _can_be_sent(error):
                raise
            text = "".join(traceback.format_exception(error))
            raise RuntimeError(f"{type(error).__name__}: {error}\n{text}") from None
    told: Told = [(each.category, str(each.message)) for each in caught]
    return ((answer[0], told), *answer[1:]) if several else (answer, told)


def _can_be_sent(error: Exception) -> bool:
    import cloudpickle

    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:
        return False
    return True


def _opened(key: str, ref: Any) -> tuple[Callable[..., Any], torch.dtype]:
    """Return the work, which this worker has opened before, or opens now, and the default dtype."""
    import ray

    if key not in _OPEN:
        package: _Package = ray.get(ref)
        Machine.here(package.origin.device).require_like(package.origin, mixed=package.mixed)
        beside.look_in(package.places)
        sys.path += [place for place in package.path if place not in sys.path]
        try:
            _OPEN[key] = pickle.loads(package.code, buffers=package.arrays), package.dtype
        except ModuleNotFoundError as error:
            host = Machine.here(package.origin.device).host
            raise ConfigError(
                f"the worker on {host} has no module {error.name}, which the model, the objective "
                "or the attack comes from: put it where all machines see it at the same path, "
                "beside the config or on Python's search path, or install it on all of them"
            ) from error
        while len(_OPEN) > _KEPT:
            _OPEN.popitem(last=False)
    _OPEN.move_to_end(key)
    return _OPEN[key]
