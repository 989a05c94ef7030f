"""What a client draws depends neither on the other clients nor on how the work is cut."""

from typing import Any

import pytest
import torch
from torch import nn

from fedrobust import Streams
from fedrobust.clients.client import Client
from fedrobust.clients.gradients import gradient_engine
from fedrobust.clients.optimizers import Sgd
from fedrobust.compute.parameters import read
from fedrobust.federation.state import Federation
from fedrobust.objectives import Adversarial
from fedrobust.perturb import Apgd, Fab, Pgd, Square

ATTACKS: list[Any] = [
    Pgd(eps=0.1, step_size=0.05, steps=3, restarts=2),
    Apgd(eps=0.1, steps=5),
    Square(eps=0.1, queries=10),
    Fab(eps=0.5, steps=3, restarts=2),
]


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_other_clients_of_a_unit_change_nothing(attack: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    parts = [
        (torch.rand(8, 1, 4, 4, generator=draw), torch.randint(3, (8,), generator=draw))
        for _ in range(4)
    ]
    ready = Federation.of(
        network(),
        parts,
        objective=Adversarial(ratio=1.0, attack=attack),
        client=Client(batches=1, batch_size=4, optimizer=Sgd(lr=0.1)),
    )
    theta = ready.start().parameters
    whole = ready.local.updates(theta, {}, [0, 1, 2, 3], Streams(0), 1)
    assert whole.norm(dim=1).min() > 0.01
    for others in ([2, 3], [3]):
        found = ready.local.updates(theta, {}, others, Streams(0), 1)[-1]
        assert torch.allclose(found, whole[3], atol=1e-6)


@pytest.mark.parametrize("restarts", [1, 20])
def test_the_attackers_points_are_those_of_all_restarts(restarts: int) -> None:
    model = network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(40, 1, 4, 4, generator=draw), torch.randint(3, (40,), generator=draw)
    attack = Pgd(eps=0.5, step_size=0.02, steps=2, restarts=restarts)
    engine, theta = gradient_engine(model), read(model)
    found = engine.perturbed(theta, x, y, Adversarial(ratio=1.0, attack=attack), 1)
    wanted = attack(model, x, y, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(found, wanted, atol=1e-6)
