"""The bound on the curvature of a network's loss, against what its layers are as matrices."""

import math
from itertools import product

import pytest
import torch
from smooth_networks import convolutional, network, normal
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedrobust.evaluation import smoothness, smoothness_bound
from fedrobust.evaluation.smoothness import _convolution_norm


@pytest.mark.parametrize("model", [network(), network(3.0), convolutional()])
def test_no_gradient_changes_faster_than_the_smoothness_bound(model: nn.Sequential) -> None:
    shape = (2,) if isinstance(model[0], nn.Linear) else (1, 8, 8)
    bound = smoothness_bound(model, shape)
    assert bound is not None
    y = torch.arange(300) % 3

    def slope(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(cross_entropy(model(x), y, reduction="sum"), x)[0].flatten(1)

    for size, step in product((0.1, 1.0, 5.0), (1e-5, 0.1, 2.0)):
        here = size * normal(300, *shape)
        there = here + step * normal(300, *shape, seed=1)
        change = (slope(here) - slope(there)).norm(dim=1)
        assert (change <= bound * (here - there).flatten(1).norm(dim=1)).all()


def test_the_smoothness_bound_follows_its_recursion() -> None:
    model = network()
    norms = [torch.linalg.matrix_norm(m.weight, 2).item() for m in model if hasattr(m, "weight")]
    a, b, c = norms
    inner = b * a**2  # after the second linear layer
    after_elu = (b * a) ** 2 + inner
    logits = c * after_elu
    want = 0.5 * (a * b * c) ** 2 + math.sqrt(2) * logits
    assert smoothness_bound(model, (2,)) == pytest.approx(want)


def test_the_norm_of_a_convolution_is_that_of_its_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = convolutional()[0]
    example = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    flat = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    matrix = (layer(flat) - layer(torch.zeros_like(flat))).flatten(1)
    exact = torch.linalg.matrix_norm(matrix, 2).item()
    assert smoothness._convolution_norm(layer, example) == pytest.approx(exact)
    monkeypatch.setattr(smoothness, "_LARGEST", 8)
    assert exact <= smoothness._convolution_norm(layer, example) <= 10 * exact


def test_few_outputs_of_many_inputs_need_no_matrix_of_the_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Patches of 8 × 8 of an image with 12,288 numbers: 64 × 4 outputs, and the exact norm."""
    model = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.ELU(), nn.Flatten(), nn.Linear(256, 3))
    sides, eye = list[int](), torch.eye
    monkeypatch.setattr(torch, "eye", lambda n, **keys: sides.append(n) or eye(n, **keys))
    found = _convolution_norm(model[0], torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    assert sides == [256]
    # Patches do not overlap, so the norm is that of the weight as a matrix.
    weight = model[0].weight.detach().double().flatten(1)
    assert found == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(2, 3), nn.ReLU()),
        nn.Sequential(nn.Linear(2, 3), nn.ELU(alpha=2.0)),
        nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)),
    ],
)
def test_nothing_is_proved_of_layers_that_are_not_understood(model: nn.Module) -> None:
    assert smoothness_bound(model, (2,)) is None
