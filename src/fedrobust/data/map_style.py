"""Examples from what PyTorch users have: tensors, arrays, or a map-style ``Dataset``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedrobust.config.arguments import told
from fedrobust.config.text import shortened
from fedrobust.data import checks
from fedrobust.data.split import Split
from fedrobust.errors import DataError


def split_of(source: Any, name: str) -> Split:
    """Return the examples of ``source``: a pair (x, y) of tensors or arrays, or a data set.

    A data set has ``len(source)`` and ``source[i]``, which gives (x, y): one example as a tensor,
    an array or a picture, and its label as a number. Its transforms are applied once, here, so a
    transform that draws does so once. ``name`` is what messages call it.

    Raises: ``DataError`` that names the example that does not fit.
    """
    if isinstance(source, Split):
        x = checks.inputs(f"x of {name}", source.x)
        return Split(x, checks.labels(f"y of {name}", source.y, len(x)), source.user)
    if isinstance(source, tuple | list) and len(source) == 2 and _whole(source[0]):
        x = checks.inputs(f"x of {name}", source[0])
        return Split(x, checks.labels(f"y of {name}", source[1], len(x)))
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise DataError(
            f"{name} must be a pair (x, y) of tensors, or a data set with a length whose items are "
            f"(x, y); got {told(source)}"
        )
    if not len(source):
        raise DataError(f"{name} has no examples")
    pairs = [_example(source, i, name) for i in range(len(source))]
    shape, kind = pairs[0][0].shape, pairs[0][0].dtype
    for i, (x, _) in enumerate(pairs):
        if x.shape != shape or x.dtype != kind:
            raise DataError(
                f"{name}: example 0 is {list(shape)} ({kind}), and example {i} is {list(x.shape)} "
                f"({x.dtype}): all must be alike; resize them in the data set's transform"
            )
    x = checks.inputs(f"x of {name}", torch.stack([x for x, _ in pairs]), items=True)
    return Split(x, checks.labels(f"y of {name}", torch.tensor([y for _, y in pairs]), len(x)))


def _whole(value: object) -> bool:
    """Whether ``value`` holds many examples, and is not the first example of a list of two."""
    return isinstance(value, Tensor | np.ndarray) and value.ndim >= 2


def _example(source: Any, i: int, name: str) -> tuple[Tensor, int]:
    """Return one example and its label. Raises: ``DataError``."""
    try:
        item = source[i]
    except Exception as error:  # a user's data set may fail in any way
        reason = shortened(f"{type(error).__name__}: {error}", 300)
        raise DataError(f"{name}: example {i} could not be read: {reason}") from error
    if not isinstance(item, Sequence) or len(item) != 2:
        raise DataError(f"{name}: example {i} must be (x, y); it is {told(item)}")
    x, y = item
    one = isinstance(y, Tensor) and y.numel() == 1
    one = one or (isinstance(y, np.ndarray | np.generic) and y.size == 1)
    label = y.item() if one else y
    if type(label) is not int:
        raise DataError(f"{name}: the label of example {i} must be a whole number; it is {told(y)}")
    if isinstance(x, Tensor | np.ndarray):
        return checks.plain(f"{name}: example {i}", x), label
    if hasattr(x, "__array_interface__"):  # a picture: [h, w] or [h, w, c] bytes
        pixels = checks.plain(f"{name}: example {i}", np.array(x))
        return (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)), label
    raise DataError(f"{name}: example {i} must be a tensor, an array or a picture; it is {told(x)}")
