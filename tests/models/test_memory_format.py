"""Networks that do not take the layout with channels last are trained all the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedrobust import run
from fedrobust.compute.memory_format import channels_last
from fedrobust.experiment import Experiment


class Viewing(nn.Module):
    """It flattens by ``view``, which refuses a layout with channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.convolution(x))
        logits: Tensor = self.linear(hidden.view(hidden.size(0), -1))
        return logits


class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv3d(1, 2, 3), nn.Linear(2 * 2 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        cubes = x.reshape(len(x), 1, 4, 4, 4)
        logits: Tensor = self.linear(torch.relu(self.convolution(cubes)).flatten(1))
        return logits


@pytest.mark.parametrize("network", [Viewing, Volumes])
def test_it_is_trained(network: Callable[[], nn.Module], tiny: Callable[..., Experiment]) -> None:
    found: Any = run(tiny(model=network(), rounds=2))
    assert found.summary.rounds == 2


def test_weights_go_last_where_the_network_takes_it() -> None:
    viewing, plain = Viewing(), nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    channels_last(plain, torch.rand(2, 2, 8, 8))
    channels_last(viewing, torch.rand(2, 1, 8, 8))
    last = torch.channels_last
    assert next(plain.parameters()).is_contiguous(memory_format=last)
    assert viewing.convolution.weight.is_contiguous()
