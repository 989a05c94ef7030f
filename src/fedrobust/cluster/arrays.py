"""Tensors on their way through Ray's object store: workers of a machine share their memory."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sent:
    """A tensor as bytes, which Ray's workers read where they lie, without a copy."""

    bytes: np.ndarray[Any, np.dtype[np.uint8]]
    dtype: torch.dtype
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> "Sent":
        """Return ``tensor`` for sending; a tensor on a GPU is copied to the CPU."""
        plain = tensor.detach().cpu().contiguous()
        return cls(plain.view(-1).view(torch.uint8).numpy(), plain.dtype, tuple(plain.shape))

    def tensor(self) -> Tensor:
        """Return the tensor. It must not be written to: other processes see the same memory."""
        if not self.bytes.size:
            return torch.empty(self.shape, dtype=self.dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # NumPy says that it is not writable
            return torch.from_numpy(self.bytes).view(self.dtype).view(self.shape)


def sent(kept: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a client for sending; other values than tensors stay as they are."""
    return {k: Sent.of(v) if isinstance(v, Tensor) else v for k, v in kept.items()}


def received(kept: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return what :func:`sent` made ready, as own tensors on ``device`` that may be written to."""
    return {
        k: v.tensor().to(device, copy=True) if isinstance(v, Sent) else v for k, v in kept.items()
    }
