"""Accuracy and robust accuracy against counting by hand."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedrobust.compute.units import shared_by
from fedrobust.errors import ConfigError, PointWarning
from fedrobust.evaluation import accuracy, robust_accuracy, score
from fedrobust.perturb import Pgd


class Threshold(nn.Module):
    """Class 1 where the one pixel is above a half: robust exactly beyond ε of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        z = (x.flatten(1)[:, :1] - 0.5) * self.weight
        return torch.cat([-z, z], dim=1)


X = torch.linspace(0.05, 0.95, 19).view(-1, 1, 1, 1)
Y = (X.flatten() > 0.5).long()
ATTACK = Pgd(eps=0.2, step_size=0.1, steps=4)


class Leaps:
    """Moves every point by a half, whatever its ball says."""

    norm = "linf"

    def __init__(self, eps: object) -> None:
        self.eps = eps

    def draw(self, x: Tensor, generator: torch.Generator) -> None:
        return None

    def maximize(self, model: nn.Module, x: Tensor, y: Tensor, draw: object, batch: int) -> Tensor:
        return (x + torch.where(x > 0.5, -0.5, 0.5)).clamp(0, 1)


class Own(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.source = Threshold(), np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x + float(self.source.normal(0, 0.3)))


def test_the_number_of_workers_changes_nothing_for_a_model_with_its_own_generator() -> None:
    for attack in (ATTACK, Leaps(0.1)):
        found = set()
        for count in (1, 2, 4):
            with shared_by(count), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.add(robust_accuracy(Own(), X, Y, attack=attack, batch_size=3))
        assert len(found) == 1, attack


@pytest.mark.parametrize("eps", [0.1, np.float64(0.1), np.float32(0.1), torch.tensor(0.1)])
def test_a_radius_of_any_kind_of_number_is_kept_to(eps: object) -> None:
    with pytest.warns(PointWarning, match="gave 19 points for 19 examples that are no"):
        assert robust_accuracy(Threshold(), X, Y, attack=Leaps(eps)) == accuracy(Threshold(), X, Y)


def test_a_radius_of_another_norm_is_not_asked() -> None:
    attack = Leaps({"l1": 3})
    attack.norm = "l1"
    assert robust_accuracy(Threshold(), X, Y, attack=attack) < accuracy(Threshold(), X, Y)


def test_a_radius_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="eps of the attack Leaps must be one number"):
        robust_accuracy(Threshold(), X, Y, attack=Leaps([0.1, 0.2]))


def test_robust_are_those_farther_than_eps_from_the_boundary() -> None:
    y = Y.clone()
    y[0] = 1  # misclassified clean, and so not robust, whatever an attack makes of it
    g = torch.Generator().manual_seed(0)
    scores = score(Threshold(), X, y, attack=ATTACK, generator=g, batch_size=4)
    far = (X.flatten() - 0.5).abs() > 0.2 + 1e-6
    expected = far & (y == Y)
    clear = (X.flatten() - 0.5).abs().sub(0.2).abs() > 1e-4  # off the boundary itself
    assert torch.equal(scores.robust[clear], expected[clear])
    wrong = (X.flatten() - 0.5).abs() < 1e-6
    assert torch.equal(scores.correct[~wrong], (y == Y)[~wrong])
    assert not (scores.robust & ~scores.correct).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("at", "eps"), [(0.0, 0.05), (1e3, 0.01), (1e5, 0.1), (-1e5, 0.1)])
def test_points_far_from_the_origin_are_not_refused_for_their_rounding(
    at: float, eps: float, norm: Any
) -> None:
    """Robust are those farther than ε, in float32 where x + ε itself is rounded."""
    x = at + torch.rand(200, 4, generator=torch.Generator().manual_seed(0))
    middle = float(x.double().sum(dim=1).median())
    y = (x.double().sum(dim=1) > middle).long()
    model = nn.Linear(4, 2).double()
    with torch.no_grad():
        model.weight[:] = torch.tensor([-1.0, 1.0])[:, None]
        model.bias[:] = torch.tensor([middle, -middle])
    reach = eps * (4 if norm == "linf" else 2)
    exact = float(((x.double().sum(dim=1) - middle).abs() > reach).double().mean())
    attack = Pgd(eps=eps, norm=norm, step_size=eps / 2, steps=8, box=False)
    assert robust_accuracy(Wide(model), x, y, attack=attack) == pytest.approx(exact, abs=0.03)


class Wide(nn.Module):
    """Computes in float64 whatever it is given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x.double()) * self.scale.double()).float()


def test_shares() -> None:
    assert accuracy(Threshold(), X[X.flatten() > 0.55], Y[X.flatten() > 0.55]) == 1.0
    assert accuracy(Threshold(), X[:8], 1 - Y[:8]) == 0.0
    # The first eight lie at 0.05, 0.10, ..., 0.40, and 0.30 is the last beyond ε of the boundary.
    eight = Pgd(eps=0.18, step_size=0.1, steps=4)
    assert robust_accuracy(Threshold(), X[:8], Y[:8], attack=eight) == 6 / 8


def test_never_rises_with_more_restarts() -> None:
    g = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Tanh(), nn.Linear(20, 3))
    x = torch.rand(80, 1, 6, 6, generator=g)
    y = model(x).argmax(1)
    robust = []
    for restarts in (1, 3, 9):
        attack = Pgd(eps=0.3, step_size=0.02, steps=1, restarts=restarts)
        source = torch.Generator().manual_seed(1)
        robust.append(score(model, x, y, attack=attack, generator=source, batch_size=32).robust)
    assert not (robust[1] & ~robust[0]).any()
    assert not (robust[2] & ~robust[1]).any()
    assert robust[2].sum() < robust[0].sum()


def test_noise_belongs_to_the_example_whatever_is_skipped() -> None:
    """An example's fate is the same whether its neighbours were misclassified or not."""
    model, attack = Threshold(), Pgd(eps=0.2, step_size=0.01, steps=1)
    fates = []
    for y in (Y, torch.where(torch.arange(19) < 9, 1 - Y, Y)):
        g = torch.Generator().manual_seed(4)
        fates.append(score(model, X, y, attack=attack, generator=g, batch_size=100).robust[9:])
    assert torch.equal(fates[0], fates[1])


def test_a_model_that_answers_nan_is_right_about_nothing() -> None:
    model = Threshold()
    model.weight.data.fill_(torch.nan)
    zeros = torch.zeros(19, dtype=torch.long)
    assert accuracy(model, X, zeros) == 0.0
    assert robust_accuracy(model, X, zeros, attack=ATTACK) == 0.0


def test_modes_are_put_back() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(1, 2))
    model.train()
    model[0].eval()
    first = accuracy(model, X, Y)
    assert first == accuracy(model, X, Y)
    assert (model.training, model[0].training, model[1].training) == (True, False, True)


def test_data_that_are_no_pixels_are_not_clipped_in_silence() -> None:
    with pytest.raises(ValueError, match=r"lie in .* not in \[0, 1\].*box: false"):
        robust_accuracy(Threshold(), X * 9, Y, attack=ATTACK)
    free = Pgd(eps=0.2, step_size=0.1, steps=4, box=False)
    assert robust_accuracy(Threshold(), X * 9, (X.flatten() * 9 > 0.5).long(), attack=free) > 0.8


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:3], "19 .* 3"),
        (X[:0], Y[:0], "no ex"),
        (X * torch.nan, Y, "NaN"),
    ],
)
def test_bad_input(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        robust_accuracy(Threshold(), x, y, attack=ATTACK)
    with pytest.raises(ValueError, match=message):
        accuracy(Threshold(), x, y)
