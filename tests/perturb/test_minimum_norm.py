"""The nearest mistake, on networks for which it is known."""

from typing import Any

import pytest
import torch
from linear import Halfspaces, distances
from torch import nn

from fedrobust.perturb.minimum_norm import MinimumNorm


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_distance_to_the_nearest_mistake_of_a_linear_network(norm: Any) -> None:
    given = Halfspaces.made(classes=5, examples=40)
    exact = distances(given, norm)
    found = MinimumNorm(norm=norm, steps=200, box=False).search(given.model, given.x, given.y)
    assert (found.distance >= exact * (1 - 1e-9)).all()
    assert ((found.distance / exact).median() - 1).item() < 0.01
    assert ((found.distance / exact).quantile(0.9) - 1).item() < 0.05
    assert (given.model(found.x).argmax(dim=1) != given.y).all()
    offset = (found.x - given.x).flatten(1)
    size = offset.abs().amax(dim=1) if norm == "linf" else offset.norm(dim=1)
    torch.testing.assert_close(size, found.distance)


def test_mistakes_lie_at_distance_0_and_the_unreachable_at_none() -> None:
    model, x, y = Halfspaces.made(classes=5, examples=10)
    found = MinimumNorm(box=False).search(model, x, (y + 1) % 5, batch=4)
    assert not found.distance.any()
    assert torch.equal(found.x, x)

    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1.0, 0.0]).to(x) + 0 * x.flatten(1)[:, :1]

    stuck = MinimumNorm(box=False).search(Constant(), x, torch.zeros(10, dtype=torch.long))
    assert stuck.distance.isinf().all()
    assert torch.isfinite(stuck.x).all()


def test_it_keeps_to_the_box() -> None:
    given = Halfspaces.made(classes=5, examples=20)
    found = MinimumNorm(norm="l2").search(given.model, given.x, given.y)
    assert found.x.min() >= 0
    assert found.x.max() <= 1
    free = MinimumNorm(norm="l2", box=False).search(given.model, given.x, given.y)
    assert (found.distance >= free.distance * 0.98).all()
