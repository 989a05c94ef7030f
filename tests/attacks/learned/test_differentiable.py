"""Gradients through simulated rounds, against differences of the very same rounds."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ring import normal, task_of, watched
from torch import Tensor

from fedrobust.aggregators import (
    Bulyan,
    CenteredClipping,
    Context,
    GeometricMedian,
    Krum,
    Mean,
    Median,
    MultiKrum,
    TrimmedMean,
)
from fedrobust.attacks.learned import planning
from fedrobust.attacks.learned.differentiable import (
    Differentiable,
    Linearised,
    NotLinearError,
    differentiable,
    shares,
)
from fedrobust.attacks.learned.encoding import Basis, Compact, Full
from fedrobust.attacks.learned.environment import FederationEnv
from fedrobust.attacks.learned.episodes import EPISODES
from fedrobust.attacks.learned.planning import Plan, gradient_ascent, rollout, value_of
from fedrobust.attacks.learned.policy import played
from fedrobust.clients.gradients import gradient_engine
from fedrobust.objectives import ERM, WassersteinDRO
from fedrobust.perturb.wasserstein import Ascent

pytestmark = pytest.mark.long

ASCENT = Ascent(steps=6, rule="decaying")
RULES: dict[str, Any] = {
    "mean": {"name": "mean"},
    "median": {"name": "median"},
    "krum": {"name": "krum", "f": 1},
    "trimmed": {"name": "trimmed-mean", "f": 2},
}


def some_plan(task: Any, size: float = 0.4) -> Tensor:
    return size * normal(2, FederationEnv(task).actions, seed=3)


def check_slope(task: Any, plan: Tensor) -> None:
    """The gradient of the return along a random direction, against a difference of it."""
    env, plan = FederationEnv(task), plan.requires_grad_()
    (slope,) = torch.autograd.grad(rollout(env, plan, seed=5), plan)
    assert slope.norm() > 1e-4
    way = normal(*plan.shape, seed=9)
    with torch.no_grad():
        ahead, behind = (rollout(env, plan + step * way, seed=5).item() for step in (1e-6, -1e-6))
    expected = (ahead - behind) / 2e-6
    assert (slope * way).sum().item() == pytest.approx(expected, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("rule", "encoding"),
    [
        ("mean", Basis(directions=("own", "benign"))),
        ("median", Basis()),
        ("krum", Compact()),
        ("trimmed", Full()),
        ("mean", Compact(scale="zeta")),
    ],
)
def test_it_is_the_derivative_of_what_the_rounds_do(rule: str, encoding: Any) -> None:
    task = differentiable(task_of(watched(40, aggregator=RULES[rule]), encoding))
    # Krum selects short rows only, and a row that is not selected has no part in what happens.
    check_slope(task, some_plan(task, 0.01 if rule == "krum" else 0.4))


def test_a_row_that_is_never_selected_has_no_slope() -> None:
    task = differentiable(task_of(watched(40, aggregator=RULES["krum"])))
    plan = some_plan(task).requires_grad_()
    (slope,) = torch.autograd.grad(rollout(FederationEnv(task), plan, seed=5), plan)
    assert not slope.any()


@pytest.mark.parametrize("reward", ["robustness", "worst-case-loss", "loss"])
def test_every_reward_has_a_gradient(reward: str) -> None:
    task = differentiable(task_of(watched(40), reward=reward))
    check_slope(task, some_plan(task))


def test_the_projection_is_differentiated_too() -> None:
    server = {"projection": {"name": "ball", "radius": 1.0}}
    task = differentiable(task_of(watched(40, server=server)))
    env = FederationEnv(task)
    rollout(env, some_plan(task), seed=5)
    assert env.parameters.norm().item() == pytest.approx(1.0, rel=0.02)
    check_slope(task, some_plan(task))


def test_a_long_episode_costs_no_more_a_round_than_a_short_one() -> None:
    """An ascent's gradients must not walk the graph of the rounds before: that is quadratic."""
    seconds = {}
    for horizon in (5, 20, 5, 20):  # the first two pay for what is done once
        task = differentiable(task_of(watched(40), horizon=horizon, hold=horizon))
        plan = some_plan(task).requires_grad_()
        began = time.process_time()
        rollout(FederationEnv(task), plan, seed=5).backward()
        seconds[horizon] = (time.process_time() - began) / horizon
    assert seconds[20] < 2 * seconds[5]


def test_a_rollout_is_the_episode_that_a_policy_plays() -> None:
    task = task_of(watched(40))
    smooth = differentiable(task)
    plan = some_plan(task)
    seen = rollout(FederationEnv(smooth), plan, seed=5).item()
    steps = plan.repeat_interleave(2, dim=0).float().numpy()
    env = FederationEnv(task)
    told = played(env, Plan(steps, 0.0).actor(env), seed=5)
    assert seen == pytest.approx(told, rel=1e-3, abs=1e-4)


def test_the_calculus_is_the_one_without_a_graph() -> None:
    seen = watched(20)
    model = seen.view.model().double()
    theta, x = seen.view.parameters.double(), seen.own.x[:40].double()
    y = seen.own.y[:40]
    ours, plain = Differentiable(model), gradient_engine(seen.view.model())
    assert torch.allclose(
        ours.moved(theta, x, y, 2.0, ASCENT), plain.moved(theta, x, y, 2.0, ASCENT).double()
    )
    assert torch.allclose(ours.gradients(theta, x, y, 4), plain.gradients(theta, x, y, 4))
    assert torch.allclose(ours.losses(theta, x, y), plain.losses(theta, x, y))
    assert torch.equal(ours.moved(theta, x, y, float("inf"), ASCENT), x)
    boxed, inside = replace(ASCENT, box=True, size=3.0), x.clamp(0, 1)
    found = ours.moved(theta, inside, y, 0.2, boxed)
    assert found.max() == 1
    expected = plain.moved(theta.float(), inside.float(), y, 0.2, boxed)
    assert torch.allclose(found.float(), expected, atol=1e-4)


@pytest.mark.parametrize(
    "rule", [Mean(), Median(), TrimmedMean(f=2), Krum(f=2), MultiKrum(f=2), Bulyan(f=1)], ids=str
)
def test_shares_say_what_a_rule_takes_of_each_row(rule: Any) -> None:
    rows = normal(9, 5, seed=2)
    w = shares(rule, rows)
    assert torch.allclose((w * rows).sum(dim=0), rule(rows), atol=1e-6)
    assert torch.allclose(w.sum(dim=0), torch.ones(5, dtype=torch.float64), atol=1e-6)
    x = rows.clone().requires_grad_()
    (found,) = torch.autograd.grad(Linearised(rule).aggregate(x, Context()).vector[3], x)
    assert torch.allclose(found[:, 3], w[:, 3])
    assert not found[:, [0, 1, 2, 4]].any()


@pytest.mark.parametrize("apart", [3e-8, 1e-9])
def test_values_that_nearly_tie_are_told_apart(apart: float) -> None:
    """Of the thousands of coordinates in an episode some always do; equal ones have no gradient."""
    rows = normal(9, 5, seed=2)
    order = rows[:, 3].argsort()
    middle, next_up = int(order[4]), int(order[5])
    rows[next_up, 3] = rows[middle, 3] + apart
    w = shares(Median(), rows)
    assert w[middle, 3] == pytest.approx(1, abs=1e-4)
    assert w[next_up, 3] == pytest.approx(0, abs=1e-4)
    rows[next_up, 3] = rows[middle, 3]
    with pytest.raises(NotLinearError, match="rows are equal"):
        shares(Median(), rows)


@pytest.mark.parametrize("rule", [GeometricMedian(), CenteredClipping(radius=0.5)], ids=str)
def test_a_rule_that_mixes_coordinates_is_refused(rule: Any) -> None:
    with pytest.raises(NotLinearError, match="mixes the coordinates"):
        shares(rule, normal(9, 5, seed=2))


def test_a_search_along_gradients_climbs_and_loses_nothing(monkeypatch: Any) -> None:
    task = task_of(watched(300), Compact(), horizon=12, hold=3)
    env = FederationEnv(task)
    fresh = range(1000, 1000 + EPISODES)

    def judged(action: float) -> float:
        actions = np.full((4, 1), action, dtype=np.float32)
        return float(np.mean([value_of(env, actions, seed) for seed in fresh]))

    plan = gradient_ascent(task, segments=1, iterations=8, steps=9 * 5 * 4)
    assert plan.value == pytest.approx(judged(plan.actions[0, 0]))
    assert plan.value >= max(map(judged, LEVELS)) - 0.01
    assert plan.actions.shape == (4, 1)
    assert plan.rounds == (8 + (9 * 2 + 4 * 5 + 3 * EPISODES) + (EPISODES + 1) * EPISODES) * 12
    assert len(plan.course) == 8
    far = gradient_ascent(task, segments=1, iterations=2, rate=5.0, steps=20)
    assert np.abs(far.actions).max() <= 1
    zero = Plan(np.zeros((1, 1), dtype=np.float32), 0.0)
    monkeypatch.setattr(planning, "best_constant", lambda task, steps, seed: zero)
    climbed = gradient_ascent(task, segments=1, iterations=6)
    assert climbed.value > judged(0.0) + 0.02


LEVELS = torch.linspace(-1, 1, 9).tolist()


def test_what_has_no_gradient_is_refused() -> None:
    seen = watched(20, objective={"name": "erm"})
    task = task_of(seen, reward="loss")
    assert differentiable(task)
    with pytest.raises(ValueError, match="cross-entropy"):
        differentiable(replace(task, harm=lambda theta: 0.0))
    tools = Differentiable(seen.view.model().double())
    for known in (ERM, WassersteinDRO):  # a subclass may move its inputs in another way
        own = type("Own", (known,), {})
        given = own(gamma=1.0) if known is WassersteinDRO else own()
        with pytest.raises(ValueError, match="need the objective ERM or DRO"):
            tools.perturbed(torch.zeros(28), normal(4, 2), torch.zeros(4).long(), given, 1)
    with pytest.raises(ValueError, match="constant or decaying"):
        tools.moved(
            seen.view.parameters.double(),
            seen.own.x[:4].double(),
            seen.own.y[:4],
            2.0,
            Ascent(rule="backtracking"),
        )
