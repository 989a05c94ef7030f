"""A network with BatchNorm for the 8 × 8 digits, as a user's own config names it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class NormedCnn:
    """Convolutions 16 and 8 with BatchNorm, or ``flat``: layers of 32 with BatchNorm1d.

    It comes with statistics of its own if it is ``measured``, as a trained network does.
    """

    measured: bool = False
    flat: bool = False

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return the network."""
        if self.flat:
            size = int(torch.Size(shape).numel())
            body = [nn.Flatten(), nn.Linear(size, 32), nn.BatchNorm1d(32), nn.ReLU()]
            model = nn.Sequential(*body, nn.Linear(32, classes))
        else:
            body = [
                *(nn.Conv2d(shape[0], 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
                *(nn.Conv2d(16, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            ]
            model = nn.Sequential(*body, nn.Flatten(), nn.Linear(32, classes))
        if self.measured:
            with torch.no_grad():
                for _ in range(5):
                    model.train()(torch.rand(64, *shape))
        return model.eval()


FEW = {
    "every": 1,
    "samples": 40,
    "attack": {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 1},
}
"""An evaluation on a few examples, in every round."""
LOCAL: dict[str, Any] = {
    "model": NormedCnn(),
    "batch_norm": "local",
    "aggregator": {"name": "trimmed-mean", "f": 2},
    "evaluation": FEW,
    "threat": {"clients": True},
}
"""A federation of digits in which BatchNorm stays with each client."""
