"""The environment is the federation's own round, with the attacker's row put in."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from ring import Seen, seeded, task_of, watched

from fedrobust.aggregators import Context, Krum, Mean
from fedrobust.attacks.learned.differentiable import Differentiable
from fedrobust.attacks.learned.encoding import Basis, Compact, Full
from fedrobust.attacks.learned.environment import FederationEnv
from fedrobust.attacks.learned.observation import Observation
from fedrobust.attacks.learned.simulation import Harm
from fedrobust.clients.client import Client
from fedrobust.clients.optimizers import Adam, Sgd
from fedrobust.compute.randomness import Streams
from fedrobust.data import Split
from fedrobust.federation.backends import LOCAL
from fedrobust.federation.one_step import OneStep, backend_for
from fedrobust.federation.participation import Sample
from fedrobust.federation.round import run_round
from fedrobust.objectives import ERM, Adversarial
from fedrobust.perturb import Pgd
from fedrobust.perturb.wasserstein import Ascent


@pytest.fixture(scope="module")
def seen() -> Seen:
    return watched(300)


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoding", [Basis(), Full(), Full(scale="zeta"), Compact(), Compact(scale="zeta")], ids=repr
)
def test_gymnasium_finds_nothing_to_complain_of(encoding: Any, seen: Seen) -> None:
    check_env(FederationEnv(task_of(seen, encoding)), skip_render_check=True)


@pytest.mark.slow
def test_a_step_is_the_round_with_the_row_that_the_action_means(seen: Seen) -> None:
    """Played again by hand: honest rows, the row in its place, the server's rule and step."""
    task = task_of(seen, Basis(draws="fixed"), hold=2)
    env = FederationEnv(task)
    env.reset(seed=5)
    streams = env._streams  # the episode's own draws
    state, previous = task.start.clone(), seen.view.history[-1]
    federation = replace(task.federation, attack=None)
    rewards = []
    for action in np.array([[0.5, -0.5, 0.1], [-1.0, 0.0, 1.0]], dtype=np.float32):
        before = task.harm(state.parameters)
        for _ in range(2):
            honest = task.backend.local_updates(federation, state, range(10), streams, {})
            view = replace(seen.view, parameters=state.parameters, own=honest[-1:])
            means = replace(task.means, previous=previous)
            rows = task.encoding.rows(torch.from_numpy(action), view, means)
            rows_all = torch.cat([honest[:-1], rows])
            expected = state.parameters + rows_all.mean(dim=0)
            previous = state.parameters
            state, _ = run_round(state, federation, streams, backend=task.backend, action=rows)
            torch.testing.assert_close(state.parameters, expected)
        rewards.append(task.scale * (task.harm(state.parameters) - before))
        observation, reward, over, cut, info = env.step(action)
        torch.testing.assert_close(env.parameters, state.parameters)
        assert reward == pytest.approx(rewards[-1], rel=1e-4)
        assert not over
        assert not cut
        assert info["round"] == state.round
        assert observation in env.observation_space
        sight = Observation(task.layout, state.parameters, previous, task.start.parameters)
        np.testing.assert_allclose(observation, task.encoding.observe(sight), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_return_is_the_harm_done_over_the_episode(seen: Seen) -> None:
    task = task_of(seen, horizon=13, hold=4)
    env = FederationEnv(task)
    _, first = env.reset(seed=1)
    total, steps, cut = 0.0, 0, False
    while not cut:
        _, reward, _, cut, last = env.step(np.array([0.0, -1.0, 0.0], dtype=np.float32))
        total, steps = total + reward, steps + 1
    assert steps == 4
    assert env.rounds == 13
    assert last["round"] - first["round"] == 13
    assert total == pytest.approx(task.scale * (last["harm"] - first["harm"]))
    assert last["harm"] == pytest.approx(task.harm(env.parameters))
    # In its units, wiping out all robustness that there was is worth 1.
    assert task.scale == pytest.approx(1 / -first["harm"], rel=1e-4)


@pytest.mark.slow
def test_the_seed_decides_and_nothing_leaks_between_episodes(seen: Seen) -> None:
    env, action = FederationEnv(task_of(seen)), np.array([0.3, 0.3, 0.3], dtype=np.float32)

    def episode(seed: int) -> list[float]:
        env.reset(seed=seed)
        return [float(env.step(action)[1]) for _ in range(4)]

    start = seen.view.parameters.clone()
    first, other = episode(1), episode(2)
    assert first != other
    assert episode(1) == first
    assert torch.equal(seen.view.parameters, start)


def test_a_federation_without_an_attacker_is_refused(seen: Seen) -> None:
    """Its episodes begin in a round in which one takes part, and would never begin."""
    task = task_of(seen)
    with pytest.raises(ValueError, match="no malicious client"):
        FederationEnv(replace(task, federation=replace(task.federation, malicious=frozenset())))


def test_an_action_out_of_range_counts_as_the_nearest(seen: Seen) -> None:
    env = FederationEnv(task_of(seen))
    results = []
    for action in ([7.0, -9.0, 1.0], [1.0, -1.0, 1.0]):
        env.reset(seed=0)
        results.append(env.step(np.array(action, dtype=np.float32))[1])
    assert results[0] == results[1]


def test_a_policy_is_asked_only_in_rounds_that_the_attacker_is_in(seen: Seen) -> None:
    """Two of ten a round: it acts about every fifth round, and sees how long it has waited."""
    task = task_of(seen, horizon=60, hold=1)
    task = replace(task, federation=replace(task.federation, participation=Sample(2)))
    env = FederationEnv(task)
    observation, info = env.reset(seed=0)
    waits, steps, cut = [observation[-1]], 0, False
    assert info["round"] == seen.view.round - 1
    while not cut:
        chosen = task.federation.participation.choose(
            10, env._streams.generator("participation", env._state.round + 1)
        )
        assert 9 in chosen
        before = info["round"]
        observation, _, _, cut, info = env.step(np.zeros(3, dtype=np.float32))
        waits.append(observation[-1])
        assert waits[-1] == pytest.approx(np.log1p(info["round"] - before - 1))
        steps += 1
    assert 4 <= steps <= 25
    assert env.rounds == 60
    assert max(waits) > 0


def test_white_box_plays_the_rule_and_black_box_the_mean() -> None:
    """Krum outvotes a row that the mean follows."""
    away = np.array([1.0], dtype=np.float32)
    moved = {}
    for name, threat in (("white", {"clients": True, "rule": True}), ("black", {"clients": True})):
        seen = watched(5, threat=threat, aggregator={"name": "krum", "f": 1})
        task = task_of(seen, Compact(budget=50.0))
        env = FederationEnv(task)
        env.reset(seed=0)
        before = env.parameters
        env.step(-away)
        moved[name] = float((env.parameters - before).norm())
    assert moved["black"] > 5 * moved["white"]


def test_the_compiled_backend_sends_what_local_training_sends(seen: Seen) -> None:
    """On the examples that it drew: −η times the mean gradient at the perturbed points."""
    task = task_of(seen)
    assert isinstance(task.backend, OneStep)
    streams, local = Streams(3), task.federation.local
    rows = task.backend.local_updates(task.federation, task.start, [0, 4, 9], streams, {})
    draw = streams.generator("batches", task.start.round + 1)
    shares = torch.rand((3, 16), generator=draw)
    for row, client, share in zip(rows, [0, 4, 9], shares, strict=True):
        held = local.clients[client]
        index = held[(share * len(held)).long()]
        whole = replace(local, clients=[index])
        honest = whole.updates(task.start.parameters, {}, [0], Streams(0), 1)[0]
        torch.testing.assert_close(row, honest, rtol=1e-4, atol=1e-7)


def test_clients_that_do_more_than_one_plain_step_train_as_they_do(seen: Seen) -> None:
    local = task_of(seen).federation.local
    others: list[dict[str, Any]] = [
        {"config": Client(batches=2, optimizer=Sgd(0.3))},
        {"config": Client(epochs=1, optimizer=Sgd(0.3))},
        {"config": Client(batches=1, optimizer=Sgd(0.3, momentum=0.9))},
        {"config": Client(batches=1, optimizer=Sgd(0.3, weight_decay=0.1))},
        {"config": Client(batches=1, optimizer=Adam(lr=0.3))},
        {"objective": Adversarial(attack=Pgd(eps=0.1, step_size=0.1, steps=1, box=False))},
        {
            "model": torch.nn.Sequential(
                torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
            )
        },
    ]
    for change in others:
        assert backend_for(replace(local, **change)) is LOCAL
    assert isinstance(backend_for(replace(local, objective=ERM())), OneStep)


@pytest.mark.parametrize("reward", ["robustness", "worst-case-loss", "loss"])
def test_the_harms_gradient_is_that_through_exact_maximisers(reward: Any, seen: Seen) -> None:
    """By the envelope theorem, against autograd in float64 through a converged ascent."""
    exact = Ascent(steps=60)
    task = task_of(seen, reward=reward, gamma=6.0, ascent=exact)
    harm = task.harm
    assert isinstance(harm, Harm)
    tools = Differentiable(deepcopy(task.federation.local.model).double())
    sample = Split(harm.sample.x.double(), harm.sample.y)
    theta = task.start.parameters.double().requires_grad_()
    (naive,) = torch.autograd.grad(replace(harm, engine=tools, sample=sample).value(theta), theta)
    found = harm.gradient(task.start.parameters).double()
    assert naive.norm() > 1e-5
    assert (found - naive).norm() < 0.05 * naive.norm()
    assert harm.gradient(torch.full_like(theta, torch.nan).detach()).eq(0).all()


def test_the_harms_are_what_they_say(seen: Seen) -> None:
    task, view = task_of(seen), seen.view
    sample = task.means.sample
    x, y = sample.x, sample.y
    ascent = Ascent(steps=15, rule="decaying")
    model = view.model()
    moved = ascent.move(model, x, y, 2.0)
    with torch.no_grad():
        losses = [torch.nn.functional.cross_entropy(model(points), y) for points in (x, moved)]
    engine = task.means.engine

    def harm(kind: str) -> float:
        return Harm(kind, engine, sample, 2.0, ascent)(view.parameters)

    cost = (moved - x).square().sum(dim=1).mean()
    assert harm("robustness") == pytest.approx(-float(cost), rel=1e-4)
    assert harm("loss") == pytest.approx(float(losses[0]), rel=1e-5)
    assert harm("worst-case-loss") == pytest.approx(float(losses[1]), rel=1e-4)
    assert losses[1] > losses[0]
    with pytest.raises(ValueError, match="needs a finite gamma"):
        task_of(watched(2, objective={"name": "erm"}))
    erm = task_of(watched(2, objective={"name": "erm"}), reward="loss")
    assert erm.harm(view.parameters) == pytest.approx(float(losses[0]), rel=0.3)


def test_rules_are_seen_as_functions_only(seen: Seen) -> None:
    task = task_of(seen)
    rule = task.federation.aggregator
    assert not isinstance(rule, Mean | Krum)
    rows = torch.randn(10, 28)
    torch.testing.assert_close(rule(rows), rows.mean(dim=0))


@pytest.mark.parametrize(("name", "draws"), [("bucketing", True), ("median", False)])
def test_a_rule_that_draws_sees_rows_in_orders_of_their_own(name: str, draws: bool) -> None:
    """As a function it would put the same rows together each time, the attacker's with nobody's."""
    inner = {"name": "median"}
    rule = inner if name == "median" else {"name": name, "s": 3, "rule": inner}
    simulated = task_of(watched(5, aggregator=rule)).federation.aggregator
    rows = torch.randn(10, 28, generator=seeded())
    found = [
        simulated.aggregate(rows, Context(generator=seeded(seed))).vector  # type: ignore[attr-defined]
        for seed in (1, 1, 2, 3)
    ]
    assert torch.equal(found[0], found[1])
    assert (not torch.allclose(found[0], found[2])) == draws
    assert (not torch.allclose(found[2], found[3])) == draws


def test_a_model_that_blows_up_ends_nothing(seen: Seen) -> None:
    """Θ is everywhere here: a step of a million honest ones overflows what follows."""
    knobs: dict[str, Any] = {"horizon": 20, "hold": 1, "reward": "loss"}
    env = FederationEnv(task_of(seen, Compact(budget=1e6), **knobs))
    _, first = env.reset(seed=0)
    total, cut = 0.0, False
    while not cut:
        observation, reward, _, cut, info = env.step(np.array([-1.0], dtype=np.float32))
        assert np.isfinite(reward)
        assert np.isfinite(observation).all()
        total += reward
    assert info["harm"] * env.task.scale == pytest.approx(100)
    assert total == pytest.approx(100 - first["harm"] * env.task.scale)


def test_what_is_not_finite_is_the_worst(seen: Seen) -> None:
    task = task_of(seen)
    lost = torch.full_like(seen.view.parameters, torch.nan)
    for kind, worst in (("robustness", -np.inf), ("loss", np.inf), ("worst-case-loss", np.inf)):
        harm = Harm(kind, task.means.engine, task.means.sample, 2.0, Ascent())
        assert harm(lost) == worst
