"""Checks of function arguments. Each one names the argument and says what would be right.

Components check their own fields. These checks are for values that are passed in a call.
"""

import math
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from fedrobust.config.text import shortened
from fedrobust.typing import Images, Labels

_ROUNDING = 1e-5
"""How far float32 pixels may leave [0, 1] after they were normalised and scaled back."""


def module(value: object, name: str = "model") -> None:
    """Check that ``value`` is a network. Raises: ``ValueError``."""
    if isinstance(value, type) or not isinstance(value, nn.Module):
        raise ValueError(f"{name} must be a torch.nn.Module; got {told(value)}")


def whole(name: str, value: object, least: int = 1) -> None:
    """Check that ``value`` is a whole number of at least ``least``. Raises: ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number from {least} on; got {told(value)}")


def real(name: str, value: object, *, above: float | None = None, infinite: bool = False) -> None:
    """Check that ``value`` is a number, not NaN, and above ``above``. Raises: ``ValueError``."""
    if not is_real(value) or (math.isinf(value) and not infinite):  # type: ignore[arg-type]
        raise ValueError(f"{name} must be a number; got {told(value)}")
    if above is not None and not value > above:  # type: ignore[operator]
        raise ValueError(f"{name} must be above {above:g}; got {told(value)}")


def is_real(value: object) -> bool:
    """Whether ``value`` is a number that a float can hold, and not NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:  # a whole number of hundreds of digits
        return False


def choice(name: str, value: object, among: Any) -> None:
    """Check that ``value`` is a text of a ``Literal`` or a sequence. Raises: ``ValueError``."""
    known: Sequence[object] = among if isinstance(among, list | tuple) else get_args(among)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} can be {' or '.join(map(str, known))}; got {told(value)}")


def generator(value: object, name: str = "generator") -> None:
    """Check that ``value`` is a random number generator. Raises: ``ValueError``."""
    if not isinstance(value, torch.Generator):
        raise ValueError(
            f"{name} must be a torch.Generator, such as torch.Generator().manual_seed(0); "
            f"got {told(value)}"
        )


def tensor(value: object, name: str) -> Tensor:
    """Return ``value`` if it is a dense tensor with values. Raises: ``ValueError``."""
    if not isinstance(value, Tensor):
        hint = ": torch.from_numpy makes one of an array" if hasattr(value, "__array__") else ""
        raise ValueError(f"{name} must be a tensor; got {told(value)}{hint}")
    if why := unfit(value):
        raise ValueError(f"{name} must be a dense tensor of plain numbers; this one is {why}")
    return value


def unfit(value: Tensor) -> str:
    """Return why a tensor is not a dense tensor of plain numbers; empty where it is one."""
    if value.is_nested:
        return "nested"
    if value.layout != torch.strided:
        return "sparse"
    if value.is_meta:
        return "on the meta device, which holds no values"
    if value.is_quantized:
        return "quantized"
    return "complex" if value.is_complex() else ""


def images(value: object, name: str = "x", *, least: int = 1) -> Images:
    """Return ``value`` [b, ...], detached. It must be floating point and finite, b >= ``least``.

    Raises: ``ValueError`` for anything else.
    """
    x = tensor(value, name)
    if x.dim() < 2:
        raise ValueError(f"{name} must be a batch of examples [b, ...]; got shape {list(x.shape)}")
    if not x.is_floating_point():
        cure = f"{name}.float() / 255 for pixels" if x.dtype == torch.uint8 else f"{name}.float()"
        raise ValueError(f"{name} must be floating point, got {x.dtype}; pass {cure}")
    if len(x) < least:
        raise ValueError("there are no examples")
    if not len(x):
        return x.detach()
    if not x.numel():
        raise ValueError(f"{name} has examples without any value: its shape is {list(x.shape)}")
    if not torch.stack(torch.aminmax(x)).isfinite().all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return x.detach()


def pixels(x: Images) -> Images:
    """Return ``x`` in [0, 1]; values that rounding put outside are clipped.

    Raises: ``ValueError`` where it lies farther outside.
    """
    if not x.numel():
        return x
    low, high = (float(end) for end in torch.aminmax(x))
    slack = max(_ROUNDING, 4 * torch.finfo(x.dtype).eps)
    if low >= 0 and high <= 1:
        return x
    if low >= -slack and high <= 1 + slack:
        return x.clamp(0, 1)
    raise ValueError(
        f"the examples lie in [{low:.9g}, {high:.9g}], not in [0, 1]: scale them (bytes by "
        "1/255), or set box: false for data that are not pixels"
    )


def looks_channels_last(shape: Sequence[int]) -> bool:
    """Whether images of ``shape`` are most likely [N, h, w, c], and not [N, c, h, w] as here.

    Images with more than five channels are rarer than images with their channels last.
    """
    return len(shape) == 4 and shape[3] in (1, 3, 4) and min(shape[1:3]) > 5


def labels(value: object, count: int, classes: int | None = None, name: str = "y") -> Labels:
    """Return ``value`` as int64 [count], from 0 to ``classes`` - 1. Raises: ``ValueError``."""
    y = tensor(value, name)
    if y.is_floating_point() or y.dtype == torch.bool:
        raise ValueError(f"{name} must hold whole numbers, got {y.dtype}; pass {name}.long()")
    if y.dim() != 1:
        raise ValueError(
            f"{name} must hold one label for each example [b]; got shape {list(y.shape)}"
            f"{one_label(y, name)}"
        )
    if len(y) != count:
        raise ValueError(f"{count} examples but {len(y)} labels")
    y = y.detach().long()
    if not count:
        return y
    low, high = int(y.min()), int(y.max())
    if low < 0 or (classes is not None and high >= classes):
        has = "labels start at 0" if classes is None else _classes(classes)
        raise ValueError(f"{name}: labels run from {low} to {high}, but {has}")
    return y


def one_label(y: Tensor, name: str) -> str:
    """Return what to do about labels with too many dimensions; empty where that is unknown."""
    if y.dim() == 2 and y.shape[1] == 1:
        return f"; pass {name}[:, 0]"
    if y.dim() == 2 and len(y) and bool(((y == 0) | (y == 1)).all() & (y.sum(dim=1) == 1).all()):
        return f"; one-hot labels: pass {name}.argmax(1)"
    return ""


def _classes(classes: int) -> str:
    return f"the model has classes 0 to {classes - 1}"


def told(value: object) -> str:
    """Describe ``value`` in a few words: its type, or the value itself where it is short."""
    if isinstance(value, Tensor):
        return f"a tensor {value.dtype}, {list(value.shape) if not value.is_nested else 'nested'}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, bool | int | float | str):
        return shortened(repr(value))
    return f"a value of type {type(value).__name__}"
