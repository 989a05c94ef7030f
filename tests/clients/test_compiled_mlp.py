"""The compiled network against autograd in float64."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from fedrobust.clients.compiled_mlp import CompiledMlp
from fedrobust.clients.gradients import Autograd, Compiled, gradient_engine
from fedrobust.compute.parameters import read
from fedrobust.objectives import WassersteinDRO
from fedrobust.perturb.wasserstein import Ascent, cross_entropy


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def network(*sizes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ELU()]
    return nn.Sequential(*layers[:-1]).double()


SIZES = [(2, 4, 2, 2), (3, 5), (7, 1, 6, 4), (2, 30, 30, 3)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("rule", ["constant", "decaying"])
def test_it_computes_what_autograd_computes(sizes: tuple[int, ...], rule: str) -> None:
    model = network(*sizes)
    small, theta = CompiledMlp.of(model), read(model)
    assert small is not None
    assert small.sizes == sizes
    # Large inputs drive units far into both sides of ELU.
    x = 3 * normal(40, sizes[0])
    y = torch.arange(40) % sizes[-1]
    ascent = Ascent(steps=7, size=0.8, rule=rule)  # type: ignore[arg-type]
    naive = Autograd(model, 100)
    kept = x.clone()
    moved = small.moved(theta, x, y, 1.5, ascent)
    torch.testing.assert_close(moved, naive.moved(theta, x, y, 1.5, ascent), rtol=1e-10, atol=1e-12)
    assert not torch.equal(moved, x)
    torch.testing.assert_close(x, kept, rtol=0, atol=0)
    for clients in (1, 4, 40):
        torch.testing.assert_close(
            small.gradients(theta, x, y, clients),
            naive.gradients(theta, x, y, clients),
            rtol=1e-10,
            atol=1e-12,
        )
    with torch.no_grad():
        losses = cross_entropy(model(x), y)
    torch.testing.assert_close(small.losses(theta, x, y), losses, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gradient_matching_is_that_of_autograd(sizes: tuple[int, ...]) -> None:
    """With soft targets of any sum, and in a batch that does not fill the last lanes."""
    model = network(*sizes)
    small, theta, along = CompiledMlp.of(model), read(model), normal(len(read(model)), seed=5)
    assert small is not None
    x = (3 * normal(37, sizes[0])).requires_grad_()
    q = (1.3 * torch.softmax(normal(37, sizes[-1], seed=3), dim=1)).requires_grad_()
    loss = -(q * torch.log_softmax(model(x), dim=1)).sum(dim=1).mean()
    parts = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    gradient = torch.cat([part.reshape(-1) for part in parts])
    slopes = torch.autograd.grad(gradient @ along, (x, q))
    near = {"rtol": 1e-10, "atol": 1e-14}
    torch.testing.assert_close(small.soft_gradient(theta, x, q), gradient.detach(), **near)
    for found, expected in zip(small.pulled(theta, along, x, q), slopes, strict=True):
        torch.testing.assert_close(found, expected, **near)


def test_an_infinite_price_forbids_every_move_and_huge_logits_stay_finite() -> None:
    model = network(2, 4, 2)
    small, x = CompiledMlp.of(model), normal(5, 2)
    assert small is not None
    y = torch.zeros(5, dtype=torch.long)
    still = small.moved(read(model), x, y, math.inf, Ascent(steps=3))
    torch.testing.assert_close(still, x, rtol=0, atol=0)
    theta = 1e6 * read(model)
    model[0].weight.data *= 1e6
    assert torch.isfinite(small.losses(theta, 1e3 * x, y)).all()
    assert torch.isfinite(small.gradients(theta, 1e3 * x, y, 1)).all()


class Own(nn.Linear):
    """A layer that does something else than its base class, for all one knows."""


class Doubled(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def replaced() -> nn.Module:
    """A network whose layer computes something else, by an attribute of its own."""
    model = network(2, 4, 2)
    model[0].forward = lambda x: 2 * nn.Linear.forward(model[0], x)  # type: ignore[method-assign,arg-type]
    return model


def shared() -> nn.Module:
    """Two layers of one weight, which the flat vector of the parameters holds once."""
    model = network(2, 2, 2, 2)
    model[2].weight = model[0].weight
    return model


def bias_first() -> nn.Module:
    """A network whose flat vector begins with a bias."""
    model = network(2, 4, 2)
    weight = model[0].weight
    del model[0].weight
    model[0].weight = weight
    return model


def reshaped() -> nn.Module:
    """A network whose layer no longer has the shape that it was made with."""
    model = network(2, 4, 2)
    model[0].weight = nn.Parameter(normal(4, 3))
    return model


def frozen() -> nn.Module:
    model = network(2, 4, 2)
    model[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(2, 2),
        nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(2, 4), nn.ELU(alpha=0.5), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(2, 4, bias=False), nn.ELU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(2, 4), nn.ELU()),
        nn.Sequential(Own(2, 4), nn.ELU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(200, 200), nn.ELU(), nn.Linear(200, 2)),
        nn.Sequential(nn.Flatten(), nn.ELU(), nn.Linear(4, 2)),
        frozen(),
        Doubled(nn.Linear(2, 4), nn.ELU(), nn.Linear(4, 2)),
        replaced(),
        shared(),
        bias_first(),
    ],
)
def test_other_networks_are_left_to_autograd(model: nn.Module) -> None:
    assert CompiledMlp.of(model) is None
    assert isinstance(gradient_engine(model), Autograd)


def test_hooks_on_all_modules_and_layers_that_do_not_fit_are_left_to_autograd() -> None:
    hook = nn.modules.module.register_module_forward_hook(lambda module, given, out: None)
    assert CompiledMlp.of(network(2, 4, 2)) is None
    hook.remove()
    assert CompiledMlp.of(network(2, 4, 2)) is not None
    found = CompiledMlp.of(reshaped())
    assert found is not None
    assert found.sizes == (3, 4, 2)
    torn = network(2, 4, 2)
    torn[2].weight = nn.Parameter(normal(2, 5))
    assert CompiledMlp.of(torn) is None


def test_examples_without_equal_shares_are_refused() -> None:
    model = network(2, 4, 2)
    small = CompiledMlp.of(model)
    assert small is not None
    with pytest.raises(ValueError, match="29 examples have no 3 equal shares"):
        small.gradients(read(model), normal(29, 2), torch.zeros(29, dtype=torch.long), 3)


class Still(Ascent):
    """A user's own ascent."""

    def move(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor, gamma: float
    ) -> torch.Tensor:
        return x + 1


class Shifted(WassersteinDRO):
    """A user's own inner maximisation."""

    def maximize(self, model: Any, x: Any, y: Any, draw: Any, *, batch: Any = None) -> Any:
        return x + 2


def test_what_a_subclass_does_is_left_to_it() -> None:
    model, x = network(2, 4, 2), normal(6, 2)
    found, theta, y = gradient_engine(model), read(model), torch.arange(6) % 2
    assert isinstance(found, Compiled)
    torch.testing.assert_close(found.moved(theta, x, y, 0.4, Still(steps=3)), x + 1)
    torch.testing.assert_close(found.perturbed(theta, x, y, Shifted(gamma=1.0), 1), x + 2)


def test_a_step_rule_that_is_not_compiled_is_left_to_autograd() -> None:
    model = network(2, 4, 2)
    found, x = gradient_engine(model), normal(6, 2)
    assert isinstance(found, Compiled)
    y = torch.ones(6, dtype=torch.long)
    for ascent in (Ascent(rule="backtracking"), Ascent(tolerance=0.3), Ascent(steps=3)):
        expected = ascent.move(model, x, y, 0.4)
        torch.testing.assert_close(found.moved(read(model), x, y, 0.4, ascent), expected)
    boxed = Ascent(box=True)
    inside = x.sigmoid()
    moved = found.moved(read(model), inside, y, 0.01, boxed)
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_what_has_blown_up_stays_so() -> None:
    """No clamp of the vectorised exponential turns not-a-number into a number."""
    model = network(2, 4, 2)
    small, x = CompiledMlp.of(model), normal(40, 2)
    assert small is not None
    y, ascent, whole = torch.arange(40) % 2, Ascent(steps=3), read(model)
    for broken in (math.nan, math.inf, 1e308):
        theta = whole.clone()
        theta[3] = broken
        moved = small.moved(theta, x, y, 1.0, ascent)
        naive = Autograd(model, 100).moved(theta, x, y, 1.0, ascent)
        assert torch.equal(moved.isfinite(), naive.isfinite()), broken
    theta = 1e3 * whole
    moved, naive = (who.moved(theta, x, y, 1e3, ascent) for who in (small, Autograd(model, 100)))
    torch.testing.assert_close(moved, naive, rtol=1e-9, atol=1e-9)
