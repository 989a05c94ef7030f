"""The reward by the error: whole mistakes, the loss's direction, and no unit but its own."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ring import Seen, experiment, known_after, learned, task_of, watched

from fedrobust.attacks.learned import Learned, Training
from fedrobust.attacks.learned.differentiable import Differentiable, differentiable
from fedrobust.attacks.learned.environment import FederationEnv
from fedrobust.attacks.learned.planning import value_of
from fedrobust.attacks.learned.simulation import Harm
from fedrobust.clients.gradients import Autograd, GradientEngine
from fedrobust.data import Split
from fedrobust.errors import ConfigError


@pytest.fixture(scope="module")
def seen() -> Seen:
    return watched(200)


def harm_of(seen: Seen, kind: str = "error") -> Harm:
    task = task_of(seen, reward=kind)
    assert isinstance(task.harm, Harm)
    return task.harm


def test_the_error_is_the_share_of_mistakes_with_every_engine(seen: Seen) -> None:
    harm, view = harm_of(seen), seen.view
    model = view.model()
    with torch.no_grad():
        wrong = model(harm.sample.x).argmax(dim=1) != harm.sample.y
    assert 0 < wrong.sum() < len(wrong)
    general: GradientEngine = Autograd(view.model(), batch=7)
    smooth: GradientEngine = Differentiable(deepcopy(view.model()))
    for engine in (harm.engine, general, smooth):
        assert torch.equal(engine.mistakes(view.parameters, harm.sample.x, harm.sample.y), wrong)
        again = replace(harm, engine=engine)
        assert again(view.parameters) == pytest.approx(float(wrong.double().mean()), abs=0)
        assert again(torch.full_like(view.parameters, torch.nan)) == 1.0
    lost = replace(view, parameters=torch.full_like(view.parameters, torch.nan))
    with pytest.raises(ValueError, match="blown up"):
        task_of(replace(seen, view=lost), reward="error")


def test_it_grows_in_the_direction_of_the_loss(seen: Seen) -> None:
    theta = seen.view.parameters
    found = harm_of(seen).gradient(theta)
    assert found.norm() > 1e-3
    assert torch.equal(found, harm_of(seen, "loss").gradient(theta))
    assert not torch.allclose(found, harm_of(seen, "worst-case-loss").gradient(theta))


def test_an_episode_returns_the_final_error_minus_the_first(seen: Seen) -> None:
    """In points of the error itself: a model without mistakes has no other unit."""
    task = task_of(seen, sample=seen.own, reward="error", horizon=24, hold=3)
    env = FederationEnv(task)
    _, first = env.reset(seed=3)
    total, over = 0.0, False
    while not over:
        _, reward, _, over, last = env.step(np.array([0, 0, 1], dtype=np.float32))
        total += reward
    assert last["harm"] > first["harm"]
    assert total == pytest.approx(last["harm"] - first["harm"])
    right = seen.view.model()(seen.own.x).argmax(dim=1) == seen.own.y
    easy = Split(seen.own.x[right], seen.own.y[right])
    flawless = task_of(seen, reward="error", sample=easy, horizon=24, hold=3)
    uphill = np.array([[0, 0, 1]], dtype=np.float32)
    assert flawless.harm(seen.view.parameters) == 0
    assert 0 < value_of(FederationEnv(flawless), uphill, 3) <= 1


@pytest.mark.slow
def test_a_run_attacks_by_the_error_without_a_price() -> None:
    """Under ERM there is no γ, which the error does not need."""
    training = {"algorithm": "constant", "steps": 20}
    changes: dict[str, Any] = learned(observe=0, inversion=None, reward="error", training=training)
    known, _ = known_after(2, **changes, objective={"name": "erm"})
    assert known.acts
    assert known.troubles == []
    assert known.value is not None
    assert -1 <= known.value <= 1


def test_no_gradient_is_followed_where_there_is_none(seen: Seen) -> None:
    with pytest.raises(ConfigError, match="reward: error has no gradient"):
        Learned(reward="error", training=Training(algorithm="gradient"))
    with pytest.raises(ValueError, match="the error has no gradient"):
        differentiable(task_of(seen, reward="error"))
    with pytest.raises(ConfigError, match="has no gradient"):
        experiment(**learned(reward="error", training={"algorithm": "gradient", "steps": 8}))
