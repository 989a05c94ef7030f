"""A network whose slopes are infinite at black pixels, as one that begins with a gamma curve."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from demo import demo_config
from torch import Tensor, nn

from fedrobust import run
from fedrobust.config.component import from_config
from fedrobust.data import Digits
from fedrobust.evaluation import certificate, robust_accuracy, score
from fedrobust.experiment import Experiment
from fedrobust.models import DigitsCnn
from fedrobust.perturb import Apgd, Ascent, Fab, Pgd, Square, pgd, wasserstein_ascent
from fedrobust.perturb.geometry import allowed


class Gamma(nn.Module):
    """x^(1/2.2), whose slope at 0 is infinite, then a network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = DigitsCnn().build((1, 8, 8), 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x ** (1 / 2.2))


L2 = {"name": "pgd", "eps": 0.5, "norm": "l2", "step_size": 0.1, "steps": 10}


def trained(**changes: Any) -> Any:
    quiet = {"attack": None, "malicious": 0, "aggregator": {"name": "mean"}, "rounds": 20}
    quiet["partition"] = {"name": "iid", "clients": 8}
    evaluation = {"attack": L2, "every": 20, "samples": 100, "test_samples": 20}
    content = demo_config(model=Gamma(), evaluation=evaluation, **quiet, **changes)
    return run(from_config(Experiment, content))


@cache
def network() -> nn.Module:
    return trained(objective={"name": "erm"}).model


@cache
def examples() -> tuple[Tensor, Tensor]:
    test = Digits().load().test
    return test.x[::3], test.y[::3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        Pgd(eps=0.5, norm="l2", step_size=0.1, steps=20, restarts=2),
        Pgd(eps=0.05, step_size=0.01, steps=20),
        Apgd(eps=0.5, norm="l2", steps=20),
        Fab(eps=0.5, norm="l2", steps=20, targets=3),
        Square(eps=0.5, norm="l2", queries=100),
    ],
)
def test_attacks_give_points_of_their_ball(attack: Any) -> None:
    x, y = examples()
    draw: Callable[[], Any] = lambda: attack.draw(x, torch.Generator().manual_seed(0))  # noqa: E731
    moved = attack.maximize(network(), x, y, draw)
    assert moved.isfinite().all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    size = (moved - x).flatten(1)
    length = size.norm(dim=1) if attack.norm == "l2" else size.abs().amax(dim=1)
    assert length.max() <= attack.eps * (1 + 1e-5)


@pytest.mark.slow
def test_robust_accuracy_is_what_the_attack_does_and_not_what_nan_does() -> None:
    """Without the cap PGD in l2 ends in NaN everywhere, or is led by black pixels alone."""
    x, y = examples()
    plain = robust_accuracy(
        network(), x, y, attack=Pgd(eps=0.5, norm="l2", step_size=0.1, steps=40)
    )
    square = robust_accuracy(network(), x, y, attack=Square(eps=0.5, norm="l2", queries=500))
    weak = robust_accuracy(network(), x, y, attack=Pgd(eps=0.02, norm="l2", step_size=0.1, steps=5))
    assert 0 < plain <= square
    assert weak > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        {"name": "adversarial", "ratio": 0.5, "attack": L2},
        {"name": "wasserstein-dro", "gamma": 1.0, "ascent": {"steps": 8}},
        {"name": "wasserstein-dro", "gamma": 1.0, "ascent": {"rule": "backtracking", "steps": 4}},
        {"name": "wasserstein-dro", "gamma": 1.0, "ascent": {"box": True, "steps": 8}},
    ],
)
def test_clients_train_in_every_round(objective: dict[str, Any]) -> None:
    result = trained(objective=objective)
    assert result.summary.troubles == ()
    assert result.metrics[-1]["accuracy"] > 0.6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fedrobust.errors.ConcavityWarning")
def test_the_ascent_leaves_what_has_no_slope_where_it_is() -> None:
    x, y = examples()
    for rule in ("constant", "backtracking"):
        found = wasserstein_ascent(network(), x, y, gamma=5.0, steps=10, rule=rule)
        assert torch.equal(found.x[x == 0], x[x == 0])
        assert all(part.isfinite().all() for part in vars(found).values())
        assert found.cost.mean() > 0
        assert torch.equal(Ascent(10, 1.0, rule).move(network(), x, y, 5.0), found.x)
    found = certificate(network(), x, y, gamma=5.0, steps=10)
    assert 0 < found.rho < 10
    assert found.worst_case_loss > found.clean_loss


class Spoilt(Pgd):
    """PGD of which every third point is none: NaN, outside the ball, outside [0, 1]."""

    def maximize(self, *args: Any, **more: Any) -> Tensor:
        moved = super().maximize(*args, **more)
        moved[::3] = torch.nan
        moved[1::3] += 0.3
        moved[2::3] = -moved[2::3] - 0.1
        return moved


@pytest.mark.slow
def test_points_that_are_none_count_as_not_found_and_are_said() -> None:
    x, y = examples()
    attack = Spoilt(eps=0.05, step_size=0.01, steps=5)
    with pytest.warns(UserWarning, match=r"the attack Spoilt gave \d+ points for 120 examples"):
        found = robust_accuracy(network(), x, y, attack=attack)
    scores = score(
        network(), x, y, attack=attack, generator=torch.Generator().manual_seed(0), batch_size=64
    )
    assert found == scores.accuracy
    assert torch.equal(scores.refused, scores.correct)


def test_the_gradient_itself_is_still_the_papers_where_it_is_finite() -> None:
    """One step of the sign of ∇ cross-entropy, from where pixels are not black."""
    x, y = examples()
    x = x.clamp(0.1, 0.9)
    leaf = x.clone().requires_grad_(True)
    torch.nn.functional.cross_entropy(network()(leaf), y, reduction="sum").backward()
    moved = pgd(network(), x, y, eps=0.05, step_size=0.05, steps=1, random_start=False)
    assert torch.equal(moved, (x + 0.05 * leaf.grad.sign()).clamp(0, 1))


def test_a_point_that_is_not_finite_is_none_also_without_a_ball_and_a_box() -> None:
    x = torch.zeros(3, 2)
    found = torch.tensor([[1e9, -1e9], [torch.nan, 0.0], [torch.inf, 0.0]])
    assert allowed(found, x, None, "linf", box=False).tolist() == [True, False, False]
    assert allowed(found, x, None, "linf", box=True).tolist() == [False, False, False]
