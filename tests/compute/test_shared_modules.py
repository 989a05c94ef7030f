"""A module that a network uses several times counts as often, whatever computes the network."""

from collections.abc import Callable

import pytest
import torch
from smooth_networks import normal
from torch import Tensor, nn

from fedrobust.compute.frozen import FrozenNetwork, fastest
from fedrobust.compute.network import cross_entropy
from fedrobust.evaluation import certificate, robust_accuracy
from fedrobust.perturb import Pgd


def shared_relu() -> nn.Module:
    act = nn.ReLU()
    convolutions = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
    return nn.Sequential(
        convolutions[0],
        act,
        convolutions[1],
        act,
        nn.Flatten(),
        nn.Linear(64, 8),
        act,
        nn.Linear(8, 3),
    )


def shared_elu() -> nn.Module:
    act = nn.ELU()
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), act, nn.Linear(16, 8), act, nn.Linear(8, 3)
    )


def shared_linear() -> nn.Module:
    square = nn.Linear(16, 16)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 16),
        nn.ReLU(),
        square,
        nn.ReLU(),
        square,
        nn.ReLU(),
        nn.Linear(16, 3),
    )


def shared_block() -> nn.Module:
    block = nn.Sequential(nn.Linear(16, 16), nn.ELU())
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), block, block, block, nn.Linear(16, 3))


def shared_pool() -> nn.Module:
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        pool,
        nn.Conv2d(4, 4, 3, padding=1),
        pool,
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def made(network: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return network().eval()


@pytest.mark.parametrize(
    "network", [shared_relu, shared_elu, shared_linear, shared_block, shared_pool]
)
def test_the_fast_form_is_the_network(network: Callable[[], nn.Module]) -> None:
    model = made(network).double()
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(9, 1, 8, 8, generator=draw, dtype=torch.float64)
    y = torch.arange(9) % 3
    fast = fastest(model, x)
    assert isinstance(fast, FrozenNetwork)
    inside = fast.enter(x)
    assert torch.allclose(fast.logits(inside), model(x))
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
    assert torch.allclose(fast.leave(fast.input_gradient(inside, y)), wanted)


class Unshared(nn.Module):
    """The same network, of which nothing is known but its answers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


def test_robust_accuracy_is_that_of_the_network() -> None:
    model = made(shared_relu)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    found, wanted = (
        robust_accuracy(network, x, y, attack=Pgd(eps=0.1, step_size=0.02, steps=10))
        for network in (model, Unshared(model))
    )
    assert found == wanted
    assert found < 1


def test_a_proved_bound_holds_for_a_shared_activation() -> None:
    model = made(shared_elu).double()
    x, y = normal(40, 64), torch.arange(40) % 3
    found = certificate(model, x, y, gamma=500.0)
    assert found.certified
    assert found.bound(0.0) >= found.clean_loss - 1e-12
