"""Any number of workers finds the same figures, also of a model that draws."""

from dataclasses import astuple
from typing import Any

import pytest
import torch
from by_workers import PGD, WORKERS, Noisy, assert_same_by_workers, network, some_mnist
from torch import Tensor, nn

from fedrobust.data import Split
from fedrobust.evaluation import audit, certificate, robust_accuracy
from fedrobust.evaluation.shift import error_under_shift
from fedrobust.perturb import Pgd


@pytest.fixture(scope="module")
def mnist() -> Split:
    return some_mnist()


@pytest.mark.slow
@pytest.mark.parametrize("layers", [(), (Noisy(),)], ids=str)
def test_evaluations(layers: tuple[nn.Module, ...], mnist: Split) -> None:
    model, some = network(*layers), torch.arange(150)
    x, y = mnist.images(some), mnist.y[some]

    def play() -> list[Any]:
        proved = certificate(model, x, y, gamma=2.0, steps=3, batch_size=40)
        return [robust_accuracy(model, x, y, attack=PGD, batch_size=40), *astuple(proved)]

    assert_same_by_workers(play)


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "workers"), [((), WORKERS), ((Noisy(),), (1, 2))], ids=str)
def test_shifts(layers: tuple[nn.Module, ...], workers: tuple[int, ...], mnist: Split) -> None:
    model, some = network(*layers), torch.arange(5)
    x, y = mnist.images(some), mnist.y[some]

    def play() -> list[Any]:
        (found,) = error_under_shift(model, x, y, levels=(0.1,), steps=3, batch_size=3)
        return [*astuple(found)]

    assert_same_by_workers(play, workers)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [(), (Noisy(),)], ids=str)
def test_audits(layers: tuple[nn.Module, ...], mnist: Split) -> None:
    """Three units of examples, shared by one worker and by two."""
    model, some = network(*layers), torch.arange(7)
    x, y = mnist.images(some), mnist.y[some]
    claim = Pgd(eps=0.02, step_size=0.01, steps=2)

    def play() -> list[Any]:
        judged = audit(model, x, y, eps=0.02, claim=claim, batch_size=3)
        assert len(judged.taken) > 3
        return [(taken.name, taken.fell) for taken in judged.taken]

    assert_same_by_workers(play, (1, 2))


@pytest.mark.slow
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
