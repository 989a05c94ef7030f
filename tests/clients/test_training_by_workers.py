"""Any number of workers trains clients to the same bits, also where the global generators draw."""

import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from by_workers import PGD, Noisy, assert_same_by_workers, network, some_mnist
from torch import Tensor, nn

from fedrobust.clients.client import Client
from fedrobust.clients.gradients import Autograd
from fedrobust.clients.local_training import LocalTraining
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.clients.turn import Store
from fedrobust.compute.parameters import read
from fedrobust.compute.randomness import Streams, positions
from fedrobust.compute.units import shared_by
from fedrobust.data import Split
from fedrobust.errors import DrawWarning
from fedrobust.objectives import Adversarial, WassersteinDRO

CHOSEN = [0, 1, 2, 5, 7, 11, 13, 20, 33, 50]


@pytest.fixture(scope="module")
def mnist() -> Split:
    return some_mnist()


def training(model: nn.Module, data: Split, **changes: Any) -> LocalTraining:
    settings: dict[str, Any] = {
        "model": model,
        "data": data,
        "classes": 10,
        "clients": torch.arange(len(data)).tensor_split(51),
        "objective": Adversarial(ratio=0.5, attack=PGD),
        "config": Client(batch_size=64, batches=1, optimizer=Adam(0.001), keep_optimizer=True),
        "batch": 100,
        "device": torch.device("cpu"),
    }
    return LocalTraining(**settings | changes)


def two_rounds(task: LocalTraining, poison: Any = None) -> list[Tensor]:
    """The updates of two rounds, and the states that the optimisers keep."""
    start, store, found = read(task.model), Store(), list[Tensor]()
    for round in (1, 2):
        found.append(task.updates(start, store, CHOSEN, Streams(3), round, poison or {}))
    return [*found, *(value for i in CHOSEN for value in store.get(i, {}).values())]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("several", "layers"),
    [(False, ()), (True, ()), (False, (nn.Dropout(0.5),)), (True, (Noisy(),))],
    ids=str,
)
def test_local_training(several: bool, layers: tuple[nn.Module, ...], mnist: Split) -> None:
    """``several`` batches of 25 a round, the last of which is smaller."""
    changes: dict[str, Any] = {}
    if several:
        changes["config"] = Client(batch_size=25, epochs=1, optimizer=Sgd(0.1, momentum=0.9))
    rows = assert_same_by_workers(lambda: two_rounds(training(network(*layers), mnist, **changes)))
    assert all(bool(row.isfinite().all()) for row in rows)
    assert (rows[0] - rows[1]).abs().max() > 0
    if layers:
        plain = two_rounds(training(network(), mnist, **changes))
        assert not torch.allclose(rows[1], plain[1])  # what draws was at work


class Jittered:
    """A user's objective, which draws from NumPy's global generator."""

    def perturbed(self, examples: int, round: int) -> int:
        return examples if round > 1 else 0

    def draw(self, x: Tensor, generator: torch.Generator) -> None:
        return None

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, draw: Any, **_: Any) -> Tensor:
        return (x + 0.1 * torch.from_numpy(np.random.rand(*x.shape)).to(x)).clamp(0, 1)


class Shuffle:
    """A user's poison, which draws labels from Python's global generator."""

    def poison(self, x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        return x, torch.tensor([random.randrange(classes) for _ in y])


@pytest.mark.slow
def test_what_a_users_own_parts_draw(mnist: Split) -> None:
    poison = dict.fromkeys([2, 7, 50], Shuffle())
    before = positions()
    rows = assert_same_by_workers(
        lambda: two_rounds(training(network(), mnist, objective=Jittered()), poison)
    )
    assert positions() == before
    honest = two_rounds(training(network(), mnist, objective=Jittered()))
    assert [torch.equal(a, b) for a, b in zip(rows[1], honest[1], strict=True)] == [
        client not in poison for client in CHOSEN
    ]


@pytest.mark.slow
def test_simulated_gradients(mnist: Split) -> None:
    model, some = network(), torch.arange(150)
    x, y, theta = mnist.images(some), mnist.y[some], read(model)
    engine, objective = Autograd(model, 40), WassersteinDRO(2.0)

    def play() -> list[Tensor]:
        moved = engine.perturbed(theta, x, y, objective, 1)
        return [moved, engine.gradients(theta, moved, y, 7), engine.losses(theta, x, y)]

    moved, rows, losses = assert_same_by_workers(play)
    first = moved.tensor_split(7)[0], y.tensor_split(7)[0]
    assert torch.equal(rows[:1], engine.gradients(theta, *first, 1))
    assert losses.shape == (150,)


@pytest.mark.slow
def test_a_draw_that_comes_in_a_later_round_is_told(mnist: Split) -> None:
    class Later(nn.Module):
        draws = False

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand(1) if Later.draws else x

    task = training(network(Later()), mnist)
    start = read(task.model)
    with shared_by(2), warnings.catch_warnings():
        warnings.simplefilter("error")
        first = task.updates(start, {}, CHOSEN, Streams(3), 1)
        assert torch.equal(task.updates(start, {}, CHOSEN, Streams(3), 1), first)
    Later.draws = True
    with shared_by(2), pytest.warns(DrawWarning, match="an earlier round"):
        task.updates(start, {}, CHOSEN, Streams(3), 2)
    rows = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            rows.append(task.updates(start, {}, CHOSEN, Streams(3), 3))
    assert torch.equal(rows[0], rows[1])  # from now on they take turns, with seeds of their own


def test_units_of_clients_are_neighbours_that_fit(mnist: Split) -> None:
    task = training(network(), mnist)  # 32 of 64 examples are perturbed
    assert task.units(CHOSEN, 1) == [[0, 1, 2], [5, 7, 11], [13, 20, 33], [50]]
    whole = training(network(), mnist, batch=10)
    assert whole.units(CHOSEN, 1) == [[client] for client in CHOSEN]
    none = training(network(), mnist, objective=Adversarial(ratio=0.0, attack=PGD))
    assert none.units(CHOSEN[:3], 1) == [[0], [1], [2]]  # then all examples count
