"""Inner maximisations on the fast form of a network end where they end on the model itself."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedrobust.compute.frozen import AsItIs, FrozenNetwork
from fedrobust.data import Mnist, Split
from fedrobust.models import EluCnn, MnistCnn, MnistCnnSmall
from fedrobust.perturb import Ascent, Pgd

MODULES = [sys.modules[f"fedrobust.perturb.{name}"] for name in ("pgd", "wasserstein")]
NETWORKS = [MnistCnnSmall(), MnistCnn(), EluCnn(width=16)]


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], tuple[Any, Any]]:
    """Gives what a function returns on the fast forms, and on the models as they are."""

    def run(function: Callable[[], Any]) -> tuple[Any, Any]:
        found = []
        for form in (FrozenNetwork, lambda model, x: AsItIs(model)):
            for module in MODULES:
                monkeypatch.setattr(module, "fastest", form)
            found.append(function())
        return found[0], found[1]

    return run


def examples(b: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    return torch.rand(b, 1, 28, 28, generator=g, dtype=dtype), torch.arange(b) % 10


def built(spec: Any, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = spec.build((1, 28, 28), 10).to(dtype)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@pytest.mark.parametrize("spec", NETWORKS)
@pytest.mark.parametrize(
    "attack",
    [
        Pgd(eps=0.3, step_size=0.05, steps=8),
        Pgd(eps=0.3, step_size=0.1, steps=4, random_start=False, box=False),
        Pgd(eps=1.5, norm="l2", step_size=0.3, steps=8),
        Pgd(eps=0.1, step_size=0.05, steps=3, restarts=3),
    ],
)
def test_pgd_ends_at_the_same_points(both: Any, spec: Any, attack: Pgd) -> None:
    model, (x, y) = built(spec), examples()

    def points() -> Tensor:
        g = torch.Generator().manual_seed(3)
        return attack.maximize(model, x, y, lambda: attack.draw(x, g), batch=3)

    torch.testing.assert_close(*both(points), rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("spec", NETWORKS)
@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("rule", ["constant", "decaying", "backtracking"])
def test_the_ascent_ends_at_the_same_points(both: Any, spec: Any, rule: Any, box: bool) -> None:
    model, (x, y) = built(spec), examples()
    ascent = Ascent(steps=5, rule=rule, box=box)
    near = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(*both(lambda: ascent.move(model, x, y, 0.4, batch=3)), **near)
    found, plain = both(lambda: ascent.solve(model, x, y, 0.4, batch=3))
    for name in ("x", "loss", "cost", "residual"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name), **near)
    # This is a quotient, and the last steps are short.
    torch.testing.assert_close(found.curvature, plain.curvature, rtol=1e-5, atol=1e-8)
    for one, other in zip(*both(lambda: ascent.judge(model, plain.x, x, y, 0.4)), strict=True):
        torch.testing.assert_close(one, other, **near)


@pytest.mark.slow
def test_a_model_that_has_blown_up_gives_points_like_before(both: Any) -> None:
    x, y = examples(dtype=torch.float32)
    for spec in NETWORKS:
        for value in (torch.nan, torch.inf, 3e38):
            model = built(spec, torch.float32)
            with torch.no_grad():
                model[0].weight[0, 0, 1, 1] = value  # type: ignore[index]
            for attack in (
                Pgd(eps=0.3, step_size=0.1, steps=2),
                Pgd(eps=1.0, norm="l2", step_size=0.3, steps=2),
            ):
                noise = attack.draw(x, torch.Generator().manual_seed(0))
                found, plain = both(
                    lambda a=attack, m=model, n=noise: a.maximize(m, x, y, lambda: n)
                )
                assert torch.equal(found.isfinite(), plain.isfinite())
                torch.testing.assert_close(found, plain, equal_nan=True)
            found, plain = both(partial(Ascent(steps=3).move, model, x, y, 0.4))
            assert torch.equal(found.isfinite(), plain.isfinite())


def trained(train: Split) -> nn.Module:
    """The small network after 60 batches of MNIST."""
    model = built(MnistCnnSmall(), torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    for index in torch.arange(60 * 64).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(train.images(index)), train.y[index]).backward()
        optimizer.step()
    return model


@pytest.mark.slow
def test_on_mnist_hardly_a_pixel_differs(both: Any) -> None:
    data = Mnist().load()
    model, index = trained(data.train), torch.arange(128)
    x, y = data.test.images(index), data.test.y[index]
    attack = Pgd(eps=0.3, step_size=0.01, steps=40)
    noise = attack.draw(x, torch.Generator().manual_seed(0))
    found, plain = both(lambda: attack.maximize(model, x, y, lambda: noise, batch=100))
    assert (model(plain).argmax(dim=1) != y).double().mean() > 0.9
    assert torch.equal(model(found).argmax(dim=1), model(plain).argmax(dim=1))
    assert ((found - plain).abs() < 1e-6).double().mean() > 0.995
