"""Linear networks, for which the distance to the nearest mistake is known."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Halfspaces(NamedTuple):
    """A linear network, examples that it gets right, and their labels."""

    model: nn.Module
    x: Tensor
    y: Tensor

    @classmethod
    def made(cls, classes: int, examples: int, shape: tuple[int, ...] = (1, 4, 4)) -> "Halfspaces":
        source = torch.Generator().manual_seed(classes)
        layer = nn.Linear(int(torch.tensor(shape).prod()), classes).double()
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=source))
            layer.bias.zero_()
        model = nn.Sequential(nn.Flatten(), layer)
        x = torch.rand(examples, *shape, generator=source, dtype=torch.float64)
        return cls(model, x, model(x).argmax(dim=1))


def distances(given: Halfspaces, norm: str) -> Tensor:
    """min over t ≠ y of (z_y − z_t) / ‖w_y − w_t‖_q [b]."""
    layer: nn.Linear = given.model[-1]  # type: ignore[index, assignment]
    z = given.model(given.x).detach()
    found = []
    for row, label in zip(z, given.y.tolist(), strict=True):
        gaps = layer.weight[label] - layer.weight.detach()
        size = gaps.norm(p=1 if norm == "linf" else 2, dim=1)
        reach = (row[label] - row) / size
        reach[label] = torch.inf
        found.append(reach.min())
    return torch.stack(found).detach()
