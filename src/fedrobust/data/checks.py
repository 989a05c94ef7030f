"""Checks of a user's own arrays; each message says how to correct a mistake."""

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrobust.config import arguments
from fedrobust.digest import digest
from fedrobust.errors import DataError

Array: TypeAlias = Tensor | NDArray[Any]


def inputs(what: str, x: Array, *, items: bool = False) -> Tensor:
    """Return ``x`` as uint8 pixels [N, c, h, w] or float32 [N, ...].

    ``what`` begins with the name of the array, as in "x of client 3". With ``items``, x was put
    together from the images that a data set gives one by one.

    Raises: ``DataError`` that says what to pass instead.
    """
    name, array = what.partition(" ")[0], isinstance(x, np.ndarray)
    x = plain(what, x)
    shape = list(x.shape)
    if x.ndim < 2:
        raise DataError(
            f"{what} has shape {shape}; images are [N, c, h, w], features [N, features]"
        )
    if x.numel() == 0:
        raise DataError(f"{what} is empty: its shape is {shape}")
    if arguments.looks_channels_last(shape):
        cure = f"np.transpose({name}, (0, 3, 1, 2))" if array else f"{name}.permute(0, 3, 1, 2)"
        if items:
            cure = "each image as [c, h, w], which torchvision's ToTensor makes"
        raise DataError(f"{what} has shape {shape}, channels last; pass {cure}")
    if x.dtype == torch.uint8:
        if x.ndim != 4:
            floats = f"{name}.astype(np.float32)" if array else f"{name}.float()"
            one = "each image as [1, h, w]" if items else f"{name}[:, None]"
            cure = one if x.ndim == 3 else f"features as {floats}"
            raise DataError(
                f"{what} is uint8 of shape {shape}; bytes are pixels [N, c, h, w]: pass {cure}"
            )
        return x.contiguous()
    if not x.is_floating_point():
        raise DataError(f"{what} is {x.dtype}; pass pixels 0..255 as uint8, anything else as float")
    x = x.to(torch.float32).contiguous()
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).flatten(1).any(1).sum())
        raise DataError(f"{what} has NaN or infinite values in {bad} of {len(x)} examples")
    if x.ndim == 4:
        return _pixels(what, x)
    return x


def _pixels(what: str, x: Tensor) -> Tensor:
    """Return ``x`` in [0, 1], clipped where rounding put it outside."""
    try:
        return arguments.pixels(x)
    except ValueError:
        low, high = (float(end) for end in torch.aminmax(x))
    bytes_like = low >= 0 and 1.5 < high <= 255
    cure = (
        "divide by the largest value that a pixel can have; bytes, up to 255, may be uint8"
        if bytes_like
        else "undo the normalisation (divide by 255 for 0..255 pixels); it belongs in the model"
    )
    raise DataError(f"{what} lies in [{low:.9g}, {high:.9g}], but pixels lie in [0, 1]: {cure}")


def shared(train: Tensor, test: Tensor) -> int:
    """Return how many examples of ``test`` have the same inputs as one of ``train``."""
    known = {digest(row, length=32) for row in train}
    return sum(digest(row, length=32) in known for row in test)


def pixels_of_bytes(*splits: Tensor) -> None:
    """Refuse bytes that are no pixels from 0 to 255. Raises: ``DataError``."""
    if all(x.dtype == torch.uint8 for x in splits) and max(int(x.max()) for x in splits) == 1:
        raise DataError(
            "x_train and x_test are uint8 with no value above 1, and bytes are pixels from 0 to "
            "255: pass x * 255 for images in black and white, or x.float()"
        )


def labels(what: str, y: Array, count: int) -> Tensor:
    """Return ``y`` as int64 [count], none negative. Raises: ``DataError``."""
    y = _whole_numbers(what, y, count)
    if int(y.min()) < 0:
        raise DataError(
            f"{what} has the negative label {int(y.min())}; labels are 0 to classes - 1"
        )
    return y


def users(what: str, user: Array, count: int) -> Tensor:
    """Return ``user`` as int64 [count], none negative. Raises: ``DataError``."""
    user = _whole_numbers(what, user, count)
    if int(user.min()) < 0:
        raise DataError(f"{what} has the negative user id {int(user.min())}; ids start at 0")
    return user


def _whole_numbers(what: str, values: Array, count: int) -> Tensor:
    values = plain(what, values)
    shape = list(values.shape)
    if values.ndim != 1:
        hint = arguments.one_label(values, what.partition(" ")[0])
        raise DataError(f"{what} has shape {shape}; it needs one number per example{hint}")
    if len(values) != count:
        raise DataError(f"{what} has {len(values)} entries for {count} examples")
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise DataError(f"{what} is {values.dtype}; it needs whole numbers, such as torch.int64")
    return values.to(torch.int64)


def plain(what: str, value: Array) -> Tensor:
    """Return ``value`` as a dense tensor on the CPU. Raises: ``DataError``."""
    if isinstance(value, Tensor):
        if why := arguments.unfit(value):
            raise DataError(f"{what} must be a dense tensor of plain numbers; this one is {why}")
        return value.detach().cpu()
    if not isinstance(value, np.ndarray):
        raise DataError(f"{what} must be a torch tensor or numpy array; got {type(value).__name__}")
    try:
        return torch.from_numpy(np.require(value, requirements=["C", "W"]))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what} is an array of {value.dtype}, which is not read: {error}"
        ) from error
