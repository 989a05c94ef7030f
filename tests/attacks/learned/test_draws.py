"""An action is worked out on examples of its own, so that no network is fitted to the reward's."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ring import Seen, experiment, learned, seeded, task_of, watched
from torch import Tensor

from fedrobust.attacks.learned import Learned
from fedrobust.attacks.learned.attacker_state import AttackerState
from fedrobust.attacks.learned.encoding import Basis
from fedrobust.attacks.learned.environment import FederationEnv
from fedrobust.attacks.learned.task import sampled
from fedrobust.attacks.learned.training import Training
from fedrobust.data import Split
from fedrobust.federation.round import run_round
from fedrobust.runs.prepare import prepare

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen() -> Seen:
    return watched(300)


@pytest.mark.long
def test_each_rounds_action_is_worked_out_on_examples_of_its_own(seen: Seen) -> None:
    """Drawn from the attacker's, the same in the same episode; the reward's stay what they are."""
    own = {tuple(x.tolist()) for x in seen.own.x}

    def shown(draws: Any, seed: int) -> list[Tensor]:
        task, met = task_of(seen, Basis(draws=draws), hold=2), []

        class Asked(Basis):
            def rows(self, action: Tensor, view: Any, means: Any) -> Tensor:
                assert torch.equal(means.harm.sample.x, means.sample.x)
                assert len(means.sample) == len(task.harm.sample)
                met.append(means.sample.x)
                return super().rows(action, view, means)

        env = FederationEnv(replace(task, encoding=Asked(draws=draws)))
        env.reset(seed=seed)
        for _ in range(2):
            env.step(np.array([0.5, -0.5, 0.1], dtype=np.float32))
        assert torch.equal(env.task.harm.sample.x, task.harm.sample.x)
        return met

    fresh = shown("fresh", 5)
    assert len(fresh) == 4
    assert all({tuple(x.tolist()) for x in sample} <= own for sample in fresh)
    # Other examples, and not the same ones in another order.
    sets = [{tuple(x.tolist()) for x in sample} for sample in (*fresh, task_of(seen).harm.sample.x)]
    assert all(a != b for i, a in enumerate(sets) for b in sets[:i])
    assert all(map(torch.equal, fresh, shown("fresh", 5)))
    assert not any(map(torch.equal, fresh, shown("fresh", 6)))
    fixed = shown("fixed", 5)
    assert all(torch.equal(sample, task_of(seen).harm.sample.x) for sample in fixed)


def test_fresh_examples_do_harm_that_others_see(seen: Seen) -> None:
    """Six examples, followed for sixty rounds: a network that fits them fools the reward alone."""
    data = seen.prepared.federation.local.data
    everyone = Split(data.x[:2000], data.y[:2000])
    left: dict[str, list[float]] = {"fresh": [], "fixed": []}
    for draws, found in left.items():
        for seed in range(4):
            few = seen.own.take(torch.randperm(len(seen.own), generator=seeded(seed))[:6])
            basis = Basis(directions=("harm",), draws=draws)  # type: ignore[arg-type]
            task = task_of(seen, basis, sample=few, horizon=60, hold=10)
            env = FederationEnv(task)
            env.reset(seed=1)
            truth = replace(task.harm, sample=everyone)
            before = truth(env.parameters)
            told = sum(env.step(np.ones(1, dtype=np.float32))[1] for _ in range(6))
            assert told > 0.95, "on the reward's own examples ρ̂ is gone"
            found.append(truth(env.parameters) / before)
    assert max(left["fresh"]) < 0.05
    assert np.median(left["fixed"]) > 1, "on everybody else's it has grown"


@pytest.mark.long
@pytest.mark.parametrize(("draws", "different"), [("fresh", 8), ("fixed", 1)])
def test_in_the_run_too_an_action_has_examples_of_its_own(draws: Any, different: int) -> None:
    samples: list[Any] = []

    class Asked(Basis):
        def rows(self, action: Tensor, view: Any, means: Any) -> Tensor:
            samples.append(tuple(means.harm.sample.x.flatten().tolist()))
            return super().rows(action, view, means)

    ready = prepare(experiment(**learned()))
    attack = Learned(
        observe=0,
        inversion=None,
        encoding=Asked(draws=draws),
        training=Training(algorithm="constant", steps=60),
        horizon=3,
        hold=3,
        samples=20,
    )
    federation = replace(ready.federation, attack=attack)
    state = federation.start(ready.start)
    acted = []
    for _ in range(9):
        samples.clear()
        state, _ = run_round(state, federation, ready.streams)
        acted.append(samples[-1] if samples else None)
    assert len(set(acted[1:])) == different
    assert all(len(sample) == 2 * 20 for sample in acted[1:])


@pytest.mark.parametrize(("draws", "most"), [("fresh", 130), ("fixed", 260)])
def test_fresh_examples_have_others_to_come_from(draws: Any, most: int, seen: Seen) -> None:
    """The reward's are at most half of all, or a draw of as many would be the same again."""
    for samples, expected in ((20, 20), (1000, most)):
        attack = Learned(encoding=Basis(draws=draws), samples=samples)
        assert len(sampled(AttackerState(), attack, seen.view, seeded())) == expected
