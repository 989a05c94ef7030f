"""The certificate: its identity, the bound where it is proved, and what it does not hide."""

import math
import warnings
from copy import deepcopy
from itertools import product

import pytest
import torch
from smooth_networks import network, normal
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedrobust.errors import ConcavityWarning
from fedrobust.evaluation import Certificate, certificate, smoothness_bound, worst_shift
from fedrobust.perturb import pgd
from fedrobust.perturb.wasserstein import THOROUGH

X, Y = normal(40, 2), torch.arange(40) % 3


def mean_loss(model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return cross_entropy(model(x), Y).item()


def test_worst_case_loss_is_gamma_rho_plus_surrogate() -> None:
    for gamma in (0.5, 2.0, 30.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConcavityWarning)
            found = certificate(network(2.0), X, Y, gamma=gamma)
        assert found.worst_case_loss == pytest.approx(gamma * found.rho + found.surrogate)
        assert found.bound(found.rho) >= found.worst_case_loss - 1e-12
        assert found.surrogate >= found.clean_loss
        assert found.rho > 0


def shifts(model: nn.Module, rho: float) -> list[Tensor]:
    """Random, uneven, uniform and adversarial shifts of average squared length ``rho``."""
    found = []
    for seed in range(5):
        step = normal(40, 2, seed=seed)
        found.append(step)
        found.append(step * normal(40, 1, seed=seed + 9).exp() ** 2)
        found.append(normal(1, 2, seed=seed).expand(40, 2))
    for eps in (0.05, 0.3):
        moved = pgd(model, X, Y, eps=eps, step_size=eps / 8, steps=40, norm="l2", box=False)
        found.append(moved - X)
        few = (torch.arange(40) % 4 == 0).double()[:, None] * (moved - X)
        found.append(few)
    # Along the loss gradient of each example, in proportion to it: the best for small shifts.
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(model(x), Y, reduction="sum"), x)
    found.append(slope)
    return [step * (rho / step.square().sum(dim=1).mean()).sqrt() for step in found]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.6, 1.5])
def test_no_shift_beats_the_bound_where_it_is_proved(share: float) -> None:
    for seed, scale in product(range(4), (0.7, 1.5)):
        model = network(scale, seed)
        bound = smoothness_bound(model, (2,))
        assert bound is not None
        found = certificate(model, X, Y, gamma=share * bound)
        assert found.certified
        for rho in (1e-4, 1e-2, 0.1, 1.0, 25.0):
            for step in shifts(model, rho):
                assert mean_loss(model, X + step) <= found.bound(rho) + 1e-12, rho


def test_the_bound_is_tight_at_the_worst_shift() -> None:
    model = network()
    bound = smoothness_bound(model, (2,))
    assert bound is not None
    found = certificate(model, X, Y, gamma=bound)
    assert found.gap is not None
    assert found.gap < 1e-12
    assert found.bound(found.rho) == pytest.approx(found.worst_case_loss, abs=1e-12)


def test_a_loose_ascent_is_paid_for_by_the_gap() -> None:
    """One short step leaves a residual; with its gap the bound is above the exact surrogate."""
    model = network(1.5)
    bound = smoothness_bound(model, (2,))
    assert bound is not None
    gamma = 0.6 * bound
    exact = certificate(model, X, Y, gamma=gamma, steps=400)
    loose = certificate(model, X, Y, gamma=gamma, steps=1, rule="constant")
    assert exact.gap is not None
    assert loose.gap is not None
    assert loose.surrogate < exact.surrogate
    assert loose.gap > exact.gap
    assert loose.bound(0.0) >= exact.surrogate


def test_the_word_certified_is_earned() -> None:
    model = network()
    bound = smoothness_bound(model, (2,))
    assert bound is not None
    assert certificate(model, X, Y, gamma=0.51 * bound).certified
    assert not certificate(model, X, Y, gamma=0.49 * bound).certified
    assert not certificate(
        nn.Sequential(nn.Linear(2, 3), nn.ReLU()).double(), X, Y, gamma=99.0
    ).certified


def test_a_constant_classifier_has_no_rho_and_shows_in_its_answers() -> None:
    model = network()
    for parameter in model[-1].parameters():
        parameter.data.zero_()
    model[-1].bias.data[1] = 3.0
    found = certificate(model, X, Y, gamma=2.0)
    assert found.rho == 0
    assert found.answers == (0.0, 1.0, 0.0)
    assert found.accuracy == found.worst_case_accuracy == pytest.approx(13 / 40)


def test_by_class_is_the_certificate_of_each_class() -> None:
    whole = certificate(network(), X, Y, gamma=5.0, steps=THOROUGH.steps)
    alone = certificate(network(), X[Y == 1], Y[Y == 1], gamma=5.0, steps=THOROUGH.steps)
    each = worst_shift(network(), X, Y, gamma=5.0, ascent=THOROUGH).by_class()
    assert sorted(each) == [0, 1, 2]
    assert sum(c.examples for c in each.values()) == 40
    assert each[1].rho == pytest.approx(alone.rho)
    assert each[1].answers == alone.answers

    def mean(field: str) -> float:
        return sum(getattr(c, field) * c.examples for c in each.values()) / 40

    for field in ("rho", "worst_case_loss", "surrogate", "accuracy"):
        assert mean(field) == pytest.approx(getattr(whole, field))


def test_an_infinite_price_is_the_clean_loss() -> None:
    found = certificate(network(), X, Y, gamma=math.inf)
    assert (found.rho, found.residual) == (0, 0)
    assert found.worst_case_loss == found.surrogate == pytest.approx(mean_loss(network(), X))


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Dropout(0.5), *network())
    model.train()
    first: Certificate = certificate(model, X, Y, gamma=5.0)
    assert first.rho == certificate(model, X, Y, gamma=5.0).rho
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("gamma", [0.0, -2.0, math.nan])
def test_a_price_must_be_positive(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must be above 0"):
        certificate(network(), X, Y, gamma=gamma)


def test_labels_outside_the_models_classes_are_refused() -> None:
    with pytest.raises(
        ValueError, match="labels run from 0 to 3, but the model has classes 0 to 2"
    ):
        certificate(network(), X, torch.arange(40) % 4, gamma=1.0)


class Tenfold(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return 10 * super().forward(x)


class Steep(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 50 * super().forward(x)


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 3)).double()
    model[0].register_forward_hook(lambda module, given, result: 100 * result)
    return model


@pytest.mark.parametrize(
    "model",
    [
        Tenfold(nn.Linear(2, 3)).double(),
        nn.Sequential(Tenfold(nn.Linear(2, 3)), nn.ELU()).double(),
        nn.Sequential(Steep(2, 3)).double(),
        hooked(),
    ],
)
def test_layers_that_may_compute_something_else_prove_nothing(model: nn.Module) -> None:
    assert smoothness_bound(model, (2,)) is None
    assert not certificate(model, X, Y, gamma=1e6).certified


def test_a_broken_model_is_not_certified_and_has_no_answers() -> None:
    model = nn.Sequential(nn.Linear(2, 3)).double()
    for value in (torch.inf, torch.nan):
        model[0].bias.data[0] = value
        found = certificate(model, X, Y, gamma=50.0)
        assert not found.certified
    assert sum(found.answers) == 0


def test_the_proof_does_not_rest_on_float32_losses() -> None:
    """Biases of 1e8 leave a float32 logit no digits, and its losses below the true ones."""
    x, y = X.float(), torch.arange(40) % 2
    for seed in range(5):
        model = nn.Sequential(nn.Linear(2, 2))
        model[0].weight.data = 0.5 * normal(2, 2, seed=seed).float()
        model[0].bias.data.fill_(1e8)
        found = certificate(model, x, y, gamma=2.0, steps=5, rule="constant")
        assert found.certified
        with torch.no_grad():
            exact = cross_entropy(deepcopy(model).double()(x.double()), y).item()
        assert found.bound(0.0) >= exact


def test_a_box_bounds_only_what_stays_in_it() -> None:
    model, x = network(), X.sigmoid()
    bound = smoothness_bound(model, (2,))
    assert bound is not None
    boxed = certificate(model, x, Y, gamma=bound, box=True)
    assert boxed.box
    assert not certificate(model, x, Y, gamma=bound).box
    for step in shifts(model, 0.05):
        inside = (x + step).clamp(0, 1)
        rho = (inside - x).square().sum(dim=1).mean().item()
        assert mean_loss(model, inside) <= boxed.bound(rho) + 1e-12


def test_an_infinite_price_still_bounds_the_loss_of_no_shift() -> None:
    found = certificate(network(), X, Y, gamma=math.inf)
    assert found.bound(0.0) == pytest.approx(found.clean_loss)
    assert found.bound(0.1) == math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_weights_that_are_not_finite_prove_nothing(kind: str, value: float) -> None:
    images = kind == "convolution"
    first = nn.Conv2d(1, 3, 2) if images else nn.Linear(2, 3)
    model = nn.Sequential(first, nn.ELU(), nn.Flatten(), nn.Linear(3, 3)).double()
    with torch.no_grad():
        first.weight.view(-1)[0] = value
    x = X.view(-1, 1, 1, 2).expand(-1, -1, 2, -1) if images else X
    assert smoothness_bound(model, tuple(x.shape[1:])) is None
    assert not certificate(model, x, Y, gamma=2.0).certified
