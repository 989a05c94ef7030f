"""Any number of workers gives the same bits, also where the global generators are drawn from."""

import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedrobust.clients.client import Client
from fedrobust.clients.gradients import Autograd
from fedrobust.clients.local_training import LocalTraining, Store
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.compute.global_draws import Draws, drawless, draws
from fedrobust.compute.parameters import read
from fedrobust.compute.randomness import Streams, positions
from fedrobust.compute.units import computed, seeds, shared_by, slices, workers
from fedrobust.data import Mnist, Split
from fedrobust.errors import DrawWarning
from fedrobust.evaluation import audit, certificate, robust_accuracy
from fedrobust.evaluation.shift import error_under_shift
from fedrobust.models import MnistCnnSmall, build_model
from fedrobust.objectives import Adversarial, WassersteinDRO
from fedrobust.perturb import Pgd

WORKERS = (1, 2, 3, 7)
PGD = Pgd(eps=0.3, step_size=0.1, steps=3, restarts=2)
CHOSEN = [0, 1, 2, 5, 7, 11, 13, 20, 33, 50]


@pytest.fixture(scope="module")
def mnist() -> Split:
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


class Seldom(nn.Module):
    """Draws for bright examples alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(1) if x.mean() > 0.5 else x


def assert_same_by_workers(play: Callable[[], Any]) -> Any:
    """Play with any number of workers, find the same, and return it."""
    found = []
    for count in WORKERS:
        with shared_by(count):
            found.append(play())
    for other in found[1:]:
        assert len(other) == len(found[0])
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b
    return found[0]


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


def three_rounds(task: LocalTraining, poison: Any = None) -> list[Tensor]:
    """The updates of three rounds, and the states that the optimisers keep."""
    start, store, found = read(task.model), Store(), list[Tensor]()
    for round in (1, 2, 3):
        found.append(task.updates(start, store, CHOSEN, Streams(3), round, poison or {}))
    return [*found, *(value for i in CHOSEN for value in store.get(i, {}).values())]


@pytest.mark.parametrize("layers", [(), (nn.Dropout(0.5),), (Noisy(),)], ids=str)
@pytest.mark.parametrize("epochs", [None, 2])
def test_local_training(epochs: int | None, layers: tuple[nn.Module, ...], mnist: Split) -> None:
    changes: dict[str, Any] = {}
    if epochs:
        changes["config"] = Client(batch_size=30, epochs=epochs, optimizer=Sgd(0.1, momentum=0.9))
    rows = assert_same_by_workers(
        lambda: three_rounds(training(network(*layers), mnist, **changes))
    )
    assert all(bool(row.isfinite().all()) for row in rows)
    assert (rows[0] - rows[1]).abs().max() > 0
    if layers:
        plain = three_rounds(training(network(), mnist, **changes))
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


def test_what_a_users_own_parts_draw(mnist: Split) -> None:
    poison = dict.fromkeys([2, 7, 50], Shuffle())
    before = positions()
    rows = assert_same_by_workers(
        lambda: three_rounds(training(network(), mnist, objective=Jittered()), poison)
    )
    assert positions() == before
    honest = three_rounds(training(network(), mnist, objective=Jittered()))
    assert [torch.equal(a, b) for a, b in zip(rows[1], honest[1], strict=True)] == [
        client not in poison for client in CHOSEN
    ]


@pytest.mark.parametrize("layers", [(), (Noisy(),)], ids=str)
def test_evaluations(layers: tuple[nn.Module, ...], mnist: Split) -> None:
    model, some = network(*layers), torch.arange(150)
    x, y = mnist.images(some), mnist.y[some]
    claim = Pgd(eps=0.02, step_size=0.01, steps=2)

    def play() -> list[Any]:
        proved = certificate(model, x, y, gamma=2.0, steps=3, batch_size=40)
        shifted = error_under_shift(model, x[:50], y[:50], levels=(0.1,), steps=3, batch_size=20)
        judged = audit(model, x[:16], y[:16], eps=0.02, claim=claim, batch_size=5)
        return [
            robust_accuracy(model, x, y, attack=PGD, batch_size=40),
            *astuple(proved),
            *astuple(shifted[0]),
            *[(taken.name, taken.fell) for taken in judged.taken],
        ]

    assert_same_by_workers(play)


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


def test_noise_does_not_depend_on_how_examples_are_batched() -> None:
    """Every restart keeps x + noise where it errs, so the outcome shows the noise."""

    class Threshold(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = 40 * (x.flatten(1).sum(dim=1, keepdim=True) - 8)
            return torch.cat([total, -total], dim=1)

    x, y = torch.full((200, 1, 4, 4), 0.5), torch.arange(200) % 2
    x += 0.02 * (y == 0)[:, None, None, None]
    x -= 0.02 * (y == 1)[:, None, None, None]
    attack = Pgd(eps=0.3, step_size=1e-9, steps=1, restarts=2)
    found = {
        robust_accuracy(Threshold(), x, y, attack=attack, batch_size=size)
        for size in (1, 7, 63, 64, 65, 200, 1000)
    }
    assert len(found) == 1
    assert 0.1 < found.pop() < 0.9


@pytest.mark.parametrize("count", [1, 3])
def test_the_first_failing_unit_is_told_and_no_later_one_begins(count: int) -> None:
    begun, model = list[int](), nn.Linear(1, 1)

    def work(model: nn.Module, unit: int) -> int:
        begun.append(unit)
        if unit == 3:
            time.sleep(0.1)
        if unit in (3, 4):
            raise ValueError(f"unit {unit}")
        time.sleep(0.01)
        return unit

    told = list[int]()
    with shared_by(count), pytest.raises(ValueError, match="unit 3"):
        computed(model, range(200), work, done=lambda i, unit: told.append(unit))
    assert told == [0, 1, 2]
    assert len(begun) < 100


def test_workers_have_copies_one_thread_and_no_workers_of_their_own() -> None:
    model, seen = nn.Linear(3, 2), list[Any]()
    barrier = threading.Barrier(2)

    def work(copy: nn.Module, unit: int) -> int:
        barrier.wait(10)
        seen.append((id(copy), workers(), torch.get_num_threads(), torch.is_grad_enabled()))
        assert isinstance(copy, nn.Linear)
        assert torch.equal(copy.weight, model.weight)
        assert not copy.weight.requires_grad
        return unit

    torch.set_num_threads(2)
    assert computed(model, range(6), work) == list(range(6))
    assert torch.get_num_threads() == workers() == 2
    assert len({found[0] for found in seen}) == 2
    assert id(model) not in {found[0] for found in seen}
    assert {found[1:] for found in seen} == {(1, 1, True)}
    assert model.weight.requires_grad


def test_a_module_that_cannot_be_copied_has_one_worker() -> None:
    model = nn.Linear(3, 2)
    model.__dict__["computed"] = model.weight * 2
    with shared_by(3):
        assert computed(model, range(4), lambda copy, unit: copy is model) == [True] * 4


def test_a_unit_draws_the_same_whatever_came_before() -> None:
    x, parts = torch.zeros(40, 1, 2, 2), slices(40, 10)
    every = computed(
        Noisy(), parts, lambda copy, part: copy(x[part]), seed=seeds(0), draws="perhaps"
    )
    later = computed(
        Noisy(), parts[2:], lambda copy, part: copy(x[part]), seed=seeds(0), draws="perhaps"
    )
    assert torch.equal(torch.stack(every[2:]), torch.stack(later))
    assert not torch.equal(every[0], every[1])


@pytest.mark.parametrize("known", ["perhaps", "not in a trial"])
def test_a_draw_that_comes_late_is_told(known: Draws) -> None:
    model = nn.Sequential(Seldom(), nn.Flatten(), nn.Linear(4, 2))
    x = torch.zeros(40, 1, 2, 2)
    x[30:] = 1
    assert draws(model, x) == "not in a trial"
    work: Callable[[nn.Module, slice], Tensor] = lambda copy, part: copy(x[part])  # noqa: E731
    for count in (1, 2):
        with shared_by(count), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            computed(model, slices(40, 10), work, seed=seeds(0), draws=known)
        assert [type(w.message) for w in caught] == [DrawWarning] * (count - 1)


@pytest.mark.parametrize("known", ["perhaps", "not in a trial"])
def test_the_first_unit_is_computed_alone_unless_a_trial_drew_nothing(known: Draws) -> None:
    """Two units wait for each other, which they can only side by side."""
    barrier = threading.Barrier(2)

    def work(model: nn.Module, unit: int) -> bool:
        try:
            barrier.wait(0.5)
        except threading.BrokenBarrierError:
            return False
        return True

    with shared_by(2):
        met = computed(nn.Linear(1, 1), range(2), work, draws=known)
    assert met == [known == "not in a trial"] * 2


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


def test_which_models_are_known_not_to_draw() -> None:
    assert drawless(network())
    hooked = network()
    hooked.register_forward_hook(lambda *_: None)
    for model in (hooked, network(nn.Dropout()), network(Noisy()), network(nn.RReLU())):
        assert not drawless(model)
    x = torch.rand(3, 1, 28, 28)
    found = [draws(model.eval(), x) for model in (network(), hooked, network(Noisy()))]
    assert found == ["never", "not in a trial", "perhaps"]


def test_units_of_clients_are_neighbours_that_fit(mnist: Split) -> None:
    task = training(network(), mnist)  # 32 of 64 examples are perturbed
    assert task.units(CHOSEN, 1) == [[0, 1, 2], [5, 7, 11], [13, 20, 33], [50]]
    whole = training(network(), mnist, batch=10)
    assert whole.units(CHOSEN, 1) == [[client] for client in CHOSEN]
    none = training(network(), mnist, objective=Adversarial(ratio=0.0, attack=PGD))
    assert none.units(CHOSEN[:3], 1) == [[0], [1], [2]]  # then all examples count
