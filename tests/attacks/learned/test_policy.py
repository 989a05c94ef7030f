"""Policies: what is kept of them is what was trained, and training learns what can be learned."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ring import described, task_of, watched
from safetensors.torch import save_file

from fedrobust.attacks.learned import Learned, Training
from fedrobust.attacks.learned.encoding import Basis, Full
from fedrobust.attacks.learned.environment import FederationEnv, Task
from fedrobust.attacks.learned.planning import (
    cross_entropy,
)
from fedrobust.attacks.learned.policy import Actor, Policy, _learner, _vector, acting, played, train
from fedrobust.attacks.learned.policy_files import load_policy, save_policy
from fedrobust.errors import ConfigError
from fedrobust.progress import Progress

SHORT = Training(steps=120, learning_starts=30, check_every=0, hidden=(16, 8), batch_size=32)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(watched(40), horizon=8, hold=2)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ddpg", "td3", "sac"])
@pytest.mark.parametrize("normalise", [True, False])
def test_what_is_exported_acts_as_what_was_trained(
    algorithm: str, normalise: bool, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the library's own deterministic prediction, behind its own normalisation."""
    from fedrobust.attacks.learned import policy as module

    kept: list[tuple[object, object]] = []
    export: Callable[..., Policy] = module._exported

    def spy(model: object, vector: object) -> Policy:
        kept.append((model, vector))
        return export(model, vector)

    monkeypatch.setattr(module, "_exported", spy)
    training = replace(SHORT, algorithm=algorithm, normalise=normalise)
    found = train(task, training, seed=1).policy
    model, vector = kept[-1]
    env = FederationEnv(task)
    observation, _ = env.reset(seed=9)
    for _ in range(4):
        seen = vector.normalize_obs(observation) if normalise else observation  # type: ignore[attr-defined]
        expected, _ = model.predict(seen, deterministic=True)  # type: ignore[attr-defined]
        np.testing.assert_allclose(found(observation).numpy(), expected, rtol=1e-4, atol=1e-5)
        observation, *_ = env.step(expected)
    assert found.sizes == (15, 3)


@pytest.mark.slow
def test_the_seed_decides_and_the_global_generators_are_left_alone(task: Task) -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()  # type: ignore[index]
    found = [train(task, SHORT, seed).policy.tensors() for seed in (1, 1, 2)]
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    assert torch.equal(torch.random.get_rng_state(), states[2])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not torch.equal(found[0]["0.weight"], found[2]["0.weight"])


@pytest.mark.slow
def test_a_training_tells_what_it_does_and_what_it_cost(task: Task) -> None:
    steps: list[tuple[int, int]] = []
    watched = replace(task, progress=Progress(trained=lambda *at: steps.append(at)))
    found = train(watched, replace(SHORT, check_every=40, environments=2), seed=0)
    assert steps[-1] == (120, 120)
    assert len(steps) == 60
    assert len(found.returns) == 30
    assert found.seconds > 0
    # Two environments of 60 steps of 2 rounds each, and ten episodes of 8 rounds a check.
    assert [step for step, _ in found.checks] == [40, 80, 120]
    assert found.rounds == 120 * 2 + len(found.checks) * 10 * 8


@pytest.mark.parametrize(
    ("every", "environments", "gradient_steps", "turns", "steps"),
    [(4, 1, 2, 4, 2), (4, 8, 2, 1, 4), (4, 2, 2, 2, 2), (4, 3, 2, 4, 6), (4, 8, -1, 1, -1)],
)
def test_networks_learn_as_often_for_any_number_of_environments(
    task: Task, every: int, environments: int, gradient_steps: int, turns: int, steps: int
) -> None:
    """The library counts turns, in each of which every environment plays a step."""
    training = replace(
        SHORT, train_every=every, environments=environments, gradient_steps=gradient_steps
    )
    envs = [FederationEnv(task) for _ in range(environments)]
    learner = _learner(training, _vector(envs, training), envs[0], seed=0)
    assert (learner.train_freq.frequency, learner.gradient_steps) == (turns, steps)
    if gradient_steps > 0:
        assert steps / (turns * environments) == gradient_steps / every


@pytest.mark.slow
def test_the_best_policy_that_was_checked_is_kept(task: Task) -> None:
    found = train(task, replace(SHORT, steps=200, check_every=20, check_episodes=2), seed=3)
    env = FederationEnv(task)
    value = np.mean([played(env, acting(found.policy), seed) for seed in (0, 1)])
    assert value == pytest.approx(max(score for _, score in found.checks))
    assert len({score for _, score in found.checks}) > 1


@pytest.mark.long
def test_it_learns_what_can_be_learned() -> None:
    """(R − R_honest) / (R_best − R_honest) ≥ 0.9, R_best that of the best of 25 constant actions.

    Two numbers decide: how much of its own update, and of the parameters, one of ten sends. Means
    over episodes that neither the training nor the search for the constant action has played; the
    training begins at random weights.
    """
    basis = Basis(directions=("own", "parameters"), budget=10.0)
    task = task_of(watched(300), basis, horizon=20, hold=5)
    env, fresh = FederationEnv(task), range(100, 103)

    def over(episodes: Iterable[int], actor: Actor) -> float:
        return float(np.mean([played(env, actor, seed) for seed in episodes]))

    def constant(action: tuple[float, float], episodes: Iterable[int]) -> float:
        return over(episodes, lambda _: np.array(action, dtype=np.float32))

    grid = np.linspace(-1, 1, 5)
    found = sorted(product(grid, grid), key=lambda action: -constant(action, [0]))
    honest, best = constant((0.1, 0.0), fresh), max(constant(a, fresh) for a in found[:3])
    assert best > honest + 0.5
    training = Training(steps=300, learning_starts=50, check_every=50, check_episodes=5)
    value = over(fresh, acting(train(task, training, seed=0).policy))
    assert (value - honest) / (best - honest) >= 0.9
    planned = cross_entropy(task, segments=2, population=16, elite=4, iterations=3, seed=0)
    assert (planned.value - honest) / (best - honest) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["td3", "sac"])
def test_training_from_an_action_begins_there_and_loses_nothing(algorithm: Any, task: Task) -> None:
    """That action is the first policy to be checked; the actor starts as near as it can learn."""
    action = np.array([0.5, -1.0, 0.0], dtype=np.float32)
    short = replace(SHORT, algorithm=algorithm, check_episodes=2)
    training = replace(short, steps=4, learning_starts=3, learning_rate=1e-12, check_every=100)
    found = train(task, training, seed=0, start=action)
    began = train(task, replace(training, check_every=0), seed=0, start=action)
    env = FederationEnv(task)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        np.testing.assert_allclose(found.policy(observation).numpy(), action, atol=1e-6)
        answer = began.policy(observation).numpy()
        np.testing.assert_allclose(answer, [0.5, -0.6, 0.0], atol=0.05)
    values = [played(env, acting(found.policy), seed) for seed in range(2)]
    assert found.checks[0] == (0, pytest.approx(np.mean(values)))
    assert [step for step, _ in found.checks] == [0, 4]
    more = replace(short, steps=200, check_every=60, environments=2)
    weak = np.array([0.1, 0.1, 0.0], dtype=np.float32)
    longer = train(task, more, seed=0, start=weak)
    assert [step for step, _ in longer.checks] == [0, 60, 120, 180, 200]
    kept = np.mean([played(env, acting(longer.policy), seed) for seed in range(2)])
    assert kept == pytest.approx(max(value for _, value in longer.checks))


@pytest.mark.slow
def test_a_training_writes_nothing(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stable-Baselines3 would make a folder among the temporary files for each."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train(task, SHORT, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_constant_policy_gives_its_action_whatever_it_sees(task: Task) -> None:
    action = np.array([0.3, -1.0, 0.0], dtype=np.float32)
    policy = Policy.constant(action, 15)
    for seed in range(3):
        observation, _ = FederationEnv(task).reset(seed=seed)
        np.testing.assert_allclose(policy(observation).numpy(), action, atol=1e-6)
    assert policy.sizes == (15, 3)


@pytest.mark.slow
def test_a_policy_survives_its_file_and_another_file_is_refused(task: Task, tmp_path: Path) -> None:
    found = train(task, SHORT, seed=0).policy
    path = tmp_path / "deep" / "policy.safetensors"
    save_policy(found, path, described(Learned()))
    loaded, about = load_policy(path)
    assert about == described(Learned())
    observation, _ = FederationEnv(task).reset(seed=0)
    assert torch.equal(loaded(observation), found(observation))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        save_policy(found, path, described(Learned()))
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="about: attack: Field required"):
        save_policy(found, tmp_path / "about nothing", {})
    assert not (tmp_path / "about nothing").exists()
    save_file({"x": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="holds no policy"):
        load_policy(tmp_path / "model.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(before[:100])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "cut.safetensors")
    tensors = found.tensors()
    del tensors["0.bias"]
    with pytest.raises(ConfigError, match="is not a policy"):
        Policy.of(tensors)


def test_the_replay_memory_has_room_for_a_large_state(task: Task) -> None:
    """Every step of the ring; a million parameters seen and moved, what a gigabyte holds."""
    from fedrobust.attacks.learned.policy import _remembered

    env = FederationEnv(task)
    assert _remembered(Training(steps=5000), env) == 5000
    assert _remembered(Training(steps=5000, memory=70), env) == 70
    large = replace(task, encoding=Full())
    env = FederationEnv(large)
    env.actions = 1_000_000
    monster = type("Monster", (), {"seen": lambda self, layout: 1_000_001})()
    env.task = replace(large, encoding=monster)
    assert _remembered(Training(steps=5000), env) == (1 << 30) // (4 * 3_000_005) == 89
