"""Each unit is computed alone, by one worker; who draws from the global generators waits."""

import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from by_workers import Noisy, network
from torch import Tensor, nn

from fedrobust.compute.global_draws import Draws, drawless, draws
from fedrobust.compute.units import computed, seeds, shared_by, slices, workers
from fedrobust.errors import DrawWarning


class Seldom(nn.Module):
    """Draws for bright examples alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(1) if x.mean() > 0.5 else x


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


class Counting(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.source = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return x + float(self.source.normal())


def test_a_model_with_a_generator_of_its_own_computes_all_units_itself() -> None:
    """Copies would each begin where it stands, and the result would depend on their number."""
    x, found = torch.rand(40, 4), []
    for count in (1, 2, 4):
        model = nn.Sequential(Counting(), nn.Linear(4, 2))
        model.load_state_dict({"1.weight": torch.ones(2, 4), "1.bias": torch.zeros(2)})
        assert draws(model, x) == "from its own"
        parts: Callable[[nn.Module, slice], Tensor] = lambda one, part: one(x[part])  # noqa: E731
        with shared_by(count):
            units = slices(40, 5)
            found.append(
                torch.cat(computed(model, units, parts, seed=seeds(0), draws="from its own"))
            )
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_which_models_are_known_not_to_draw() -> None:
    assert drawless(network())
    hooked = network()
    hooked.register_forward_hook(lambda *_: None)
    for model in (hooked, network(nn.Dropout()), network(Noisy()), network(nn.RReLU())):
        assert not drawless(model)
    x = torch.rand(3, 1, 28, 28)
    found = [draws(model.eval(), x) for model in (network(), hooked, network(Noisy()))]
    assert found == ["never", "not in a trial", "perhaps"]
