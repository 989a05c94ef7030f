"""How a model's parameters travel: the trained tensors by name, in one ``ArrayRecord``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import nn

from fedrobust.config.text import quoted, shortened
from fedrobust.digest import digest
from fedrobust.errors import ConfigError
from fedrobust.typing import Vector

_HEADER = 4096
"""The most bytes that an array in NumPy's format has beside its numbers."""
_NAMED = 5


class RefusedError(Exception):
    """What came over the network does not fit; the text says why."""


@dataclass(frozen=True)
class Tensors:
    """The trained tensors of a model by name, in the model's order, and their NumPy type."""

    shapes: Mapping[str, tuple[int, ...]]
    dtype: "np.dtype[np.generic]"

    @classmethod
    def of(cls, model: nn.Module) -> "Tensors":
        """Return the tensors of ``model``. Raises: ``ConfigError`` for a type NumPy lacks."""
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        first = next(iter(trained.values())).detach()
        try:
            dtype = first[:0].cpu().numpy().dtype if first.ndim else first.cpu().numpy().dtype
        except TypeError as error:
            raise ConfigError(
                f"model: parameters of type {first.dtype} cannot travel with Flower, which sends "
                "NumPy arrays: use float32"
            ) from error
        return cls({name: tuple(p.shape) for name, p in trained.items()}, dtype)

    def record(self, vector: Vector) -> ArrayRecord:
        """Return the parameters ``vector`` [d] as a record."""
        pieces = torch.split(vector.detach().cpu(), [math.prod(s) for s in self.shapes.values()])
        parts = zip(self.shapes.items(), pieces, strict=True)
        return ArrayRecord({name: Array(part.view(s).numpy()) for (name, s), part in parts})

    def vector(self, record: ArrayRecord, like: Vector) -> Vector:
        """Return the parameters [d] in ``record``, in the type and the place of ``like``.

        Shape, type and size are compared with what the sender claims before anything is read, and
        once more with what was read.

        Raises: ``RefusedError`` for a record that does not hold exactly these tensors.
        """
        if lacks := [name for name in self.shapes if name not in record]:
            raise RefusedError(f"it lacks {_some(lacks)}")
        if more := [name for name in record if name not in self.shapes]:
            raise RefusedError(f"it holds {_some(more)}, which the model does not have")
        pieces = [self._read(name, record[name]) for name in self.shapes]
        return torch.cat(pieces).to(like)

    def _read(self, name: str, array: Array) -> Vector:
        shape, size = self.shapes[name], math.prod(self.shapes[name]) * self.dtype.itemsize
        said = tuple(array.shape), str(array.dtype)
        if said != (shape, str(self.dtype)) or len(array.data) > size + _HEADER:
            raise RefusedError(
                f"{name} is {quoted(said[1])} {shortened(str(list(said[0])), 80)} of "
                f"{len(array.data):,} bytes, not {str(self.dtype)!r} {list(shape)}"
            )
        try:
            found = array.numpy()
        except Exception as error:  # bytes from the network may fail in any way
            why = shortened(f"{type(error).__name__}: {error}", 200)
            raise RefusedError(f"{name} cannot be read: {why}") from error
        if found.shape != shape or found.dtype != self.dtype:
            raise RefusedError(f"{name} is not what it says: {found.dtype} {list(found.shape)}")
        return torch.from_numpy(np.array(found, order="C").reshape(-1))


def fixed(model: nn.Module) -> str:
    """Return a digest of what training does not change: buffers and frozen parameters.

    It does not travel, so the server and each client must have the same.
    """
    held = [*model.named_buffers()]
    held += [(name, p.detach()) for name, p in model.named_parameters() if not p.requires_grad]
    return digest(*(part for name, value in held for part in (name, value)), length=16)


def _some(names: list[str]) -> str:
    listed = ", ".join(quoted(name) for name in names[:_NAMED])
    more = len(names) - _NAMED
    return f"{listed} and {more} more" if more > 0 else listed
