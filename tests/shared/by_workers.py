"""The same with any number of workers, on real MNIST, also with a model that draws."""

import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedrobust.compute.units import shared_by
from fedrobust.data import Mnist, Split
from fedrobust.models import MnistCnnSmall, build_model
from fedrobust.perturb import Pgd

WORKERS = (1, 2, 7)
PGD = Pgd(eps=0.3, step_size=0.1, steps=2, restarts=2)


def some_mnist() -> Split:
    """Examples for 51 clients with 70 each."""
    if "FEDROBUST_DATA" not in os.environ:
        pytest.skip("set FEDROBUST_DATA to a folder with mnist")
    return Mnist().load().train.take(torch.arange(51 * 70))


def network(*more: nn.Module) -> nn.Module:
    """The small network after the layers ``more``."""
    model = build_model(MnistCnnSmall(), (1, 28, 28), 10, torch.Generator().manual_seed(0))
    return nn.Sequential(*more, *model.children()).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class Noisy(nn.Module):
    """Draws from all three global generators, in either mode."""

    def forward(self, x: Tensor) -> Tensor:
        noise = random.random() + np.random.rand() + torch.rand(x.shape)
        return (x + 0.1 * noise).clamp(0, 1)


def assert_same_by_workers(play: Callable[[], Any], workers: tuple[int, ...] = WORKERS) -> Any:
    """Play with any number of workers, find the same, and return it."""
    found = []
    for count in workers:
        with shared_by(count):
            found.append(play())
    for other in found[1:]:
        assert len(other) == len(found[0])
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    return found[0]
