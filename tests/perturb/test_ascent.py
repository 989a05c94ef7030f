"""T_γ where its closed form is known, and what the ascent says of itself where it is not."""

import math
import warnings
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from fedrobust.compute.frozen import AsItIs
from fedrobust.config.component import component, from_config
from fedrobust.data import Split
from fedrobust.errors import ConcavityWarning, ConfigError
from fedrobust.objectives import ERM, AnyObjective, Relative, WassersteinDRO
from fedrobust.perturb.wasserstein import Ascent, Transport, losses, wasserstein_ascent

Rule = Literal["constant", "decaying", "backtracking"]
RULES: tuple[Rule, ...] = ("constant", "decaying", "backtracking")
every_rule = pytest.mark.parametrize("rule", RULES)


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


X = normal(6, 3)
Y = torch.zeros(6, dtype=torch.long)


def linear(outputs: Tensor, y: Tensor) -> Tensor:
    return outputs @ torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)


def quadratic(curve: float) -> object:
    return lambda outputs, y: curve / 2 * outputs.square().sum(dim=1)


def ascend(loss: object, gamma: float, steps: int, rule: Rule = "constant") -> Transport:
    return wasserstein_ascent(
        nn.Identity(),
        X,
        Y,
        gamma=gamma,
        steps=steps,
        rule=rule,
        loss=loss,  # type: ignore[arg-type]
    )


@every_rule
@pytest.mark.parametrize("gamma", [1e-3, 0.7, 2.0, 1e6])
def test_a_linear_loss_moves_by_its_slope_over_two_gamma(rule: Rule, gamma: float) -> None:
    slope = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    found = ascend(linear, gamma, 1, rule)
    torch.testing.assert_close(found.x, X + slope / (2 * gamma), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.cost, (slope.norm() / (2 * gamma)).square().expand(6))
    assert found.residual.max() < 1e-8 * slope.norm()


@every_rule
@pytest.mark.parametrize("share", [-1.5, -0.3, 0.1, 0.5, 1.0])
def test_a_quadratic_loss_scales_its_input(rule: Rule, share: float) -> None:
    """λ = share · γ: x₀ · 2γ / (2γ − λ)."""
    gamma = 0.7
    if share == -1.5 and rule == "decaying":
        pytest.skip("1/√t takes long here")
    found = ascend(quadratic(share * gamma), gamma, 400, rule)
    torch.testing.assert_close(found.x, X * 2 / (2 - share), rtol=1e-6, atol=1e-7)
    assert found.residual.max() < 1e-6


@pytest.mark.slow
def test_near_two_gamma_the_residual_says_how_far_one_is() -> None:
    """At λ = 1.98 γ a step takes away 1 % of the error: 15 steps are not enough, 3,000 are."""
    few, many = (ascend(quadratic(1.98), 1.0, steps) for steps in (15, 3000))
    exact = X * 2 / 0.02
    for found in (few, many):
        # For a quadratic the error is the residual over 2γ − λ.
        error = (found.x - exact).norm(dim=1)
        torch.testing.assert_close(found.residual / 0.02, error, rtol=1e-6, atol=1e-9)
    assert few.residual.min() > 1e-2
    assert many.residual.max() < 1e-9
    torch.testing.assert_close(few.curvature, torch.full((6,), 1.98, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0, 1e4])
def test_the_curvature_is_seen_in_any_unit_of_the_data(unit: float, dtype: torch.dtype) -> None:
    """The loss of x is 0.9 γ ‖x / unit‖²: so is that of data in other units, with γ / unit²."""
    x, gamma = (unit * X).to(dtype), 1.0 / unit**2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConcavityWarning)
        loss = quadratic(1.8 * gamma)
        model = nn.Identity().to(dtype)
        found = wasserstein_ascent(model, x, Y, gamma=gamma, steps=20, box=False, loss=loss)  # type: ignore[arg-type]
    curved = (found.curvature * unit**2).double()
    torch.testing.assert_close(curved, torch.full((6,), 1.8).double(), rtol=1e-3, atol=0)


def test_a_step_of_the_wrm_code_would_diverge_where_ours_does_not() -> None:
    gamma = 50.0
    x = X.clone()
    for t in range(1, 16):
        _, gradient = losses(AsItIs(nn.Identity()), x, Y, quadratic(1.0))  # type: ignore[arg-type]
        x = x + 1 / math.sqrt(t) * (gradient - 2 * gamma * (x - X))
    assert x.norm() > 1e20
    assert ascend(quadratic(1.0), gamma, 15).residual.max() < 1e-9


@every_rule
def test_too_small_a_gamma_is_said(rule: Rule) -> None:
    with pytest.warns(ConcavityWarning, match=r"curves by up to 3 > 2·gamma on 100.0%"):
        ascend(quadratic(3.0), 1.0, 5, rule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ascend(quadratic(1.9), 1.0, 5, rule)


def test_backtracking_never_falls_where_a_constant_step_overshoots() -> None:
    def wave(outputs: Tensor, y: Tensor) -> Tensor:
        return (20 * outputs).sin().sum(dim=1)

    gamma, start = 1.0, wave(X, Y)
    best = start
    for steps in range(1, 12):
        ascent = Ascent(steps=steps, rule="backtracking")
        found = ascent.solve(nn.Identity(), X, Y, gamma, loss=wave)
        value = found.loss - gamma * found.cost
        assert (value >= best - 1e-12).all()
        best = value
    with pytest.warns(ConcavityWarning):
        wild = wasserstein_ascent(
            nn.Identity(), X, Y, gamma=gamma, steps=11, rule="constant", loss=wave
        )
    assert (wild.loss - gamma * wild.cost < start).any()


@every_rule
def test_the_box_holds_and_its_walls_leave_no_residual(rule: Rule) -> None:
    x = torch.rand(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = wasserstein_ascent(
        nn.Identity(), x, Y, gamma=0.5, steps=50, rule=rule, box=True, loss=linear
    )
    slope = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(found.x, (x + slope).clamp(0, 1))
    assert found.residual.max() < 1e-9


def small_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.ELU(), nn.Linear(8, 4)).double()


@every_rule
def test_examples_do_not_feel_each_other(rule: Rule) -> None:
    model, y = small_network(), torch.arange(6) % 4
    ascent = Ascent(steps=7, rule=rule, tolerance=1e-3)
    whole = ascent.solve(model, X, y, 1.0)
    parts = ascent.solve(model, X, y, 1.0, batch=2)
    alone = [ascent.solve(model, X[i : i + 1], y[i : i + 1], 1.0) for i in range(6)]
    for field in ("x", "loss", "cost", "residual", "curvature"):
        torch.testing.assert_close(getattr(parts, field), getattr(whole, field))
        torch.testing.assert_close(
            torch.cat([getattr(one, field) for one in alone]), getattr(whole, field)
        )


@every_rule
def test_training_moves_to_the_same_points(rule: Rule) -> None:
    model, y = small_network(), torch.arange(6) % 4
    ascent = Ascent(steps=7, rule=rule)
    moved = ascent.move(model, X, y, 1.0, batch=4)
    torch.testing.assert_close(moved, ascent.solve(model, X, y, 1.0).x)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_float32_stays_float32_and_infinity_moves_nothing() -> None:
    found = wasserstein_ascent(small_network().float(), X.float(), Y, gamma=1.0)
    assert found.x.dtype == found.residual.dtype == torch.float32
    still = wasserstein_ascent(small_network(), X, Y, gamma=math.inf)
    assert torch.equal(still.x, X)
    assert still.cost.sum() == 0


BAD = {
    "zero": ({"gamma": 0.0}, "gamma must be above 0"),
    "negative": ({"gamma": -1.0}, "gamma must be above 0"),
    "nan": ({"gamma": math.nan}, "gamma must be above 0"),
    "labels": ({"gamma": 1.0, "y": Y + 4}, "labels run from 4 to 4, but .* 0 to 3"),
    "lengths": ({"gamma": 1.0, "y": Y[:3]}, "6 examples but 3 labels"),
    "inputs": ({"gamma": 1.0, "x": X * math.nan}, "NaN or infinite"),
    "none": ({"gamma": 1.0, "x": X[:0], "y": Y[:0]}, "no examples"),
    "box": ({"gamma": 1.0, "box": True}, r"not in \[0, 1\]"),
    "steps": ({"gamma": 1.0, "steps": 0}, "steps"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_bad_input_is_refused(case: tuple[dict[str, object], str]) -> None:
    settings, message = case
    given = {"x": X, "y": Y} | settings
    x, y = given.pop("x"), given.pop("y")
    with pytest.raises(ValueError, match=message):
        wasserstein_ascent(small_network(), x, y, **given)  # type: ignore[arg-type]


def test_gamma_in_units_of_the_data() -> None:
    train = Split(X.float(), Y)
    made = WassersteinDRO(Relative(0.04)).settled(train)
    assert made.price == pytest.approx(0.04 * X.norm(dim=1).mean().item(), rel=1e-6)
    kind = type("Own", (WassersteinDRO,), {})
    assert type(kind(Relative(0.04)).settled(train)) is kind
    with pytest.raises(ValueError, match="relative to the data"):
        _ = WassersteinDRO(Relative(0.04)).price
    assert WassersteinDRO(math.inf).perturbed(8, 1) == ERM().perturbed(8, 1) == 0
    assert WassersteinDRO(2.0).perturbed(8, 1) == 8


@component
class Task:
    objective: AnyObjective


@pytest.mark.parametrize(
    ("gamma", "message"),
    [
        (0.0, r"^objective.gamma: should be greater than 0; got 0.0$"),
        (-1.0, r"^objective.gamma: should be greater than 0; got -1.0$"),
        (math.nan, r"^objective.gamma: should be greater than 0; got nan$"),
        ("2", r"^objective.gamma: should be a valid number; got '2'$"),
        ({"relative": -1.0}, r"^objective.gamma.relative: should be greater than 0; got -1.0$"),
        ({"share": 1.0}, r"objective.gamma.share: unknown key; allowed here: relative"),
    ],
)
def test_a_wrong_gamma_in_a_config_gets_one_message(gamma: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_config(Task, {"objective": {"name": "wasserstein-dro", "gamma": gamma}})
