"""The evolution strategy finds policies that no constant action equals, fairly and repeatably."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ring import experiment, known_after, learned, task_of, watched

from fedrobust.attacks.learned import Learned, Training, evolution, planning
from fedrobust.attacks.learned.encoding import Basis, Full
from fedrobust.attacks.learned.environment import FederationEnv
from fedrobust.attacks.learned.episodes import EPISODES, final_episodes, fresh_episodes
from fedrobust.attacks.learned.evolution import evolve, generations
from fedrobust.attacks.learned.policy import Policy, acting, played
from fedrobust.attacks.learned.training import Evolution
from fedrobust.errors import ConfigError
from fedrobust.progress import UNWATCHED

STEPS = 12

Reward = Callable[["Toy", Any], float]


class Toy(gymnasium.Env[Any, Any]):
    """Twelve steps; it shows a sign drawn anew each step, the step's number, and noise."""

    actions = 1
    reward: Reward

    def __init__(self, task: Any) -> None:
        self.task, self.rounds = task, 0
        self.observation_space = gymnasium.spaces.Box(-1000, 1000, (3,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    @property
    def elapsed(self) -> int:
        return self.at

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self.seed, self.draw, self.at = seed or 0, np.random.default_rng(seed), 0
        return self._look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        reward = float(type(self).reward(self, float(np.clip(action, -1, 1)[0])))
        self.at, self.rounds = self.at + 1, self.rounds + 1
        return self._look(), reward, False, self.at >= STEPS, {}

    def _look(self) -> Any:
        self.sign = float(self.draw.choice([-1, 1]))
        return np.array([self.sign, 100 + self.at, self.draw.normal()], dtype=np.float32)


TOY = SimpleNamespace(horizon=STEPS, hold=1, progress=UNWATCHED)


def toy(reward: Reward, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The toy with this reward, in the place of the simulated federation."""
    made = type("Made", (Toy,), {"reward": reward})
    monkeypatch.setattr(evolution, "FederationEnv", made)
    monkeypatch.setattr(planning, "FederationEnv", made)
    return made


def mean(env: Any, policy: Policy, seeds: range) -> float:
    return float(np.mean([played(env, acting(policy), seed) for seed in seeds]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "hidden"), [("constant", 0), ("random", 0), ("constant", 3), ("random", 3)]
)
def test_it_finds_what_no_constant_action_equals(
    start: Any, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copying the sign is worth 12, and every constant action 0 on average."""
    made = toy(lambda env, action: env.sign * action, monkeypatch)
    settings = Evolution(hidden=hidden, episodes=2, deviation=0.3)
    training = Training(algorithm="evolution", start=start, steps=5000, evolution=settings)
    found = evolve(TOY, training, seed=1)  # type: ignore[arg-type]
    fresh = range(50, 80)
    assert mean(made(TOY), found.policy, fresh) > 0.9 * STEPS
    best = planning.best_constant(TOY, steps=2000, seed=1)  # type: ignore[arg-type]
    constant = Policy.constant(best.actions[0], 3)
    assert abs(mean(made(TOY), constant, fresh)) < 0.3 * STEPS
    assert len(found.policy.layers) == (2 if hidden else 1)
    assert found.checks[0][1] < 0.5 * STEPS < max(value for _, value in found.checks)


def test_it_is_never_worse_than_the_constant_action_where_it_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What pays in the episodes of the search costs in the others: it stays with its start."""

    def misleading(env: Toy, action: float) -> float:
        judging = env.seed in range(1000, 8000)
        return (1 if judging else 5 * env.sign) * action

    made = toy(misleading, monkeypatch)
    training = Training(algorithm="evolution", steps=4000)
    found = evolve(TOY, training, seed=0)  # type: ignore[arg-type]
    start = planning.best_constant(TOY, steps=1000, seed=5000)  # type: ignore[arg-type]
    assert start.actions.tolist() == [[1.0]]
    judged = [value for _, value in found.checks]
    assert judged[0] == pytest.approx(STEPS)
    assert judged[0] > max(judged[1:])
    for seen in ((1, 100, 0), (-1, 111, 2)):
        assert found.policy(np.array(seen, dtype=np.float32)).tolist() == pytest.approx([1.0])
    assert mean(made(TOY), found.policy, final_episodes(0)) == pytest.approx(judged[0])


def test_all_candidates_of_a_generation_play_the_same_episodes_and_the_next_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[bytes, int, int | None]] = []

    def spied(env: Any, actor: Any, seed: int, most: int | None = None) -> float:
        name = np.asarray(actor(np.ones(3, dtype=np.float32))).tobytes()
        asked.append((name, seed, most))
        return played(env, actor, seed, most)

    toy(lambda env, action: env.sign * action, monkeypatch)
    monkeypatch.setattr(evolution, "played", spied)
    settings = Evolution(population=5, episodes=2, stages=2)
    steps = STEPS + 5 * 2 * (6 * 2 + 12 * 1)
    training = Training(algorithm="evolution", start="random", steps=steps, evolution=settings)
    found = evolve(TOY, training, seed=7)  # type: ignore[arg-type]
    _, *search = asked  # the first looks at what the start sees
    judged = search[-3 * EPISODES :]
    lengths = [6, 6, 12]
    assert len(search) == 3 * 5 * 2 + len(judged)
    used: set[int] = set()
    for generation, length in enumerate(lengths):
        part = search[10 * generation : 10 * (generation + 1)]
        seeds = [seed for _, seed, _ in part]
        assert seeds == seeds[:2] * 5
        assert len({name for name, _, _ in part}) == 5
        assert {most for _, _, most in part} == {length}
        assert not used & set(seeds)
        used |= set(seeds)
    assert [seed for _, seed, _ in judged] == [*final_episodes(7)] * 3
    assert not used & {*final_episodes(7), *fresh_episodes(7)}
    assert len(found.returns) == 3


@pytest.mark.parametrize(
    ("budget", "stages", "lengths"),
    [
        (500, 1, [10] * 5),
        (599, 1, [10] * 5),
        (800, 2, [5] * 8 + [10] * 4),
        (810, 3, [2] * 13 + [5] * 5 + [10] * 3),
        (40, 1, [10]),
    ],
)
def test_stages_share_the_budget(budget: int, stages: int, lengths: list[int]) -> None:
    assert list(generations(budget, 10, 10, stages)) == lengths


@pytest.mark.slow
def test_its_search_keeps_within_its_budget_on_the_ring_and_is_repeated() -> None:
    """Simulated rounds: the search for the start, the search, and three policies to judge."""
    task = task_of(watched(40), Basis(directions=("own",)), horizon=8, hold=2)
    told: list[tuple[int, int]] = []
    noted = replace(task, progress=replace(UNWATCHED, trained=lambda *at: told.append(at)))
    training = Training(algorithm="evolution", steps=200)
    found = evolve(noted, training, seed=2)
    spent = found.rounds / 2 - 4 * (3 * EPISODES + 3)  # that for the start judges in one episode
    assert 0.75 * 200 <= spent <= 200
    assert told[-1][0] >= 0.75 * told[-1][1]
    again = evolve(task, training, seed=2)
    for name, tensor in found.policy.tensors().items():
        assert torch.equal(tensor, again.policy.tensors()[name])
    env = FederationEnv(task)
    value = max(value for _, value in found.checks)
    assert mean(env, found.policy, final_episodes(2)) == pytest.approx(value)


def test_what_is_seen_is_scaled_by_what_the_start_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    toy(lambda env, action: env.sign * action, monkeypatch)
    training = Training(algorithm="evolution", start="random", steps=2000)
    found = evolve(TOY, training, seed=3)  # type: ignore[arg-type]
    assert 100 < float(found.policy.mean[1]) < 100 + STEPS
    assert 2 < float(found.policy.deviation[1]) < 5


@pytest.mark.slow
def test_a_run_acts_by_what_it_has_evolved() -> None:
    """It is worth what it does in episodes that neither searched nor judged, and it sees."""
    training = {"algorithm": "evolution", "start": "random", "steps": 60}
    changes = learned(observe=0, inversion=None, training=training)
    known, _ = known_after(3, **changes)
    assert known.policy is not None
    assert known.plan is None
    policy = Policy.of(known.policy)
    assert policy.sizes == (15, 1)
    assert len(known.checks) == 3
    assert known.value is not None
    assert known.value not in [value for _, value in known.checks]
    assert experiment(**changes).attack.training.package == "cmaes"  # type: ignore[union-attr]


def test_what_is_missing_and_what_is_too_large_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(watched(3), Full(), horizon=3)
    large = Evolution(hidden=400)
    with pytest.raises(ValueError, match=r"does not search 23,228 weights, more than 10,000"):
        evolve(task, Training(algorithm="evolution", start="random", evolution=large), seed=0)
    monkeypatch.setattr("fedrobust.attacks.learned.attack.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs gymnasium, ot, cmaes: pip install"):
        Learned(training=Training(algorithm="evolution")).init()
    with pytest.raises(ConfigError, match="population: should be greater than or equal to 4"):
        Evolution(population=2)
