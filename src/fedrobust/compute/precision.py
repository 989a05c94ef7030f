"""The arithmetic of the clients' training where it is not full float32."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["float32", "bfloat16", "tf32"]


@contextmanager
def reduced(device: str, precision: Precision) -> Iterator[None]:
    """Inside this context, ``device`` computes products and convolutions in ``precision``.

    bfloat16 is PyTorch's autocast. Its cache is off: it would keep the weights from before a step.
    tf32 is a setting of the whole process, which is restored. It rounds the factors of a product on
    a GPU to 10 bits and sums in float32.
    """
    if precision == "tf32":
        before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
            torch.backends.cudnn.allow_tf32 = cudnn
        return
    low = precision == "bfloat16"
    with torch.autocast(device, torch.bfloat16, enabled=low, cache_enabled=False):
        yield


def arithmetic(device: str) -> tuple[object, ...]:
    """Return the settings of this process on which the rounding of an operation depends."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return (
        _setting(torch.get_float32_matmul_precision),
        _setting(lambda: cudnn.allow_tf32),
        getattr(matmul, "fp32_precision", None),
        getattr(getattr(cudnn, "conv", None), "fp32_precision", None),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
    )


def _setting(ask: Callable[[], object]) -> object:
    """Return a setting; None where PyTorch's newer settings are in use, and it has no answer."""
    try:
        return ask()
    except RuntimeError:
        return None
