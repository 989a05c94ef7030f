"""The attack as a part of a run: observe, learn, act, and say what it did."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ring import (
    LEARNED,
    THREE,
    TRAINING,
    Watching,
    experiment,
    known_after,
    learned,
    seeded,
    task_of,
    watched,
)

from fedrobust import run
from fedrobust.attacks.learned import Learned, Training, stage_two
from fedrobust.attacks.learned.attacker_state import AttackerState
from fedrobust.attacks.learned.encoding import Basis
from fedrobust.attacks.learned.environment import FederationEnv
from fedrobust.attacks.learned.episodes import EPISODES
from fedrobust.attacks.learned.planning import Plan
from fedrobust.attacks.learned.policy import Actor, Policy, acting, played, train
from fedrobust.federation.round import run_round
from fedrobust.runs.prepare import prepare

pytestmark = pytest.mark.slow


def test_it_observes_honestly_then_learns_then_acts() -> None:
    """For as many rounds as it was told to; in the first there is no step to see yet."""
    honest = prepare(experiment())
    honest_federation = replace(honest.federation, attack=None, malicious=frozenset())
    ours = prepare(experiment(**learned()))
    a, b = honest_federation.start(honest.start), ours.federation.start(ours.start)
    for number in range(1, 7):
        a, _ = run_round(a, honest_federation, honest.streams)
        b, _ = run_round(b, ours.federation, ours.streams)
        known = AttackerState.of(b.attack)
        same = torch.equal(a.parameters, b.parameters)
        assert same == (number <= 3)
        assert (known.policy is not None) == (number > 3)
        assert known.observed == min(number, 3)
    report = known.report()
    assert report["reconstructed"] == 3 * 16
    assert sum(report["labels"]) == 48
    assert len(report["matching"]) == 3
    assert all(after < before for before, after in report["matching"])
    assert len(report["distances"]) == 2
    assert report["simulated_rounds"] == 60 * 3 + 2 * 3 * 12 + EPISODES * 12
    assert len(report["returns"]) == 15
    assert report["seconds"] > 0
    assert report["acts"]
    assert not report["troubles"]


def test_training_begins_at_the_best_constant_action_of_its_own_simulation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The search has a quarter of the steps, plays the task that is trained on, and is counted."""
    asked: list[Any] = []

    def spied(task: Any, *, steps: int, seed: int, episodes: int) -> Plan:
        asked.append((task, steps, seed))
        return Plan(np.array([[0.2, -0.4, 0.6]], dtype=np.float32), 0.0, rounds=1000)

    def trained(task: Any, training: Training, seed: int, start: Any) -> Any:
        asked.append((task, start, seed))
        return train(task, training, seed, start)

    monkeypatch.setattr(stage_two, "best_constant", spied)
    monkeypatch.setattr(stage_two, "train", trained)
    training = TRAINING | {"start": "constant"}
    known, _ = known_after(4, **learned(encoding=THREE, inversion=None, training=training))
    (searched, steps, seed), (learned_on, start, again) = asked
    assert searched is learned_on
    assert seed == again + 5000
    assert steps == 60 // 4
    assert start.tolist() == pytest.approx([0.2, -0.4, 0.6])
    assert known.rounds > 1000 + 60 * 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objective": {"name": "erm"}}, "needs a finite gamma"),
        ({"threat": {"clients": 1}}, "leave nobody to simulate"),
        (
            {"threat": {"clients": 4, "rule": True}, "aggregator": {"name": "krum", "f": 2}},
            "refuses the 4 rows",
        ),
    ],
)
def test_what_cannot_be_learned_is_said_and_the_run_goes_on(
    changes: dict[str, Any], reason: str
) -> None:
    attack = LEARNED | {"inversion": None}
    result = run(experiment(attack=attack, rounds=6, **changes))
    honest, trouble = [t for t in result.summary["troubles"] if t.startswith("the attack")]
    assert "honest updates in all 6 rounds" in honest
    assert "no policy was trained" in trouble
    assert reason in trouble
    assert result.summary["attack"]["acts"] is False
    assert result.state.round == 6


class Still(torch.nn.Module):
    """Logits that no parameter changes: every gradient is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The norm against 1."""
        size = x.norm(dim=1, keepdim=True)
        return torch.cat([size - 1, 1 - size], dim=1) + 0 * self.weight.sum()


def test_actions_without_a_range_are_told_of_and_the_run_goes_on() -> None:
    attack = LEARNED | {"inversion": None, "encoding": {"name": "full", "scale": "zeta"}}
    result = run(replace(experiment(attack=attack, rounds=6), model=Still()))
    assert any("all actions mean the same" in text for text in result.summary["troubles"])
    assert result.state.round == 6


def test_the_best_constant_action_is_an_algorithm_too() -> None:
    known, _ = known_after(
        3,
        **learned(
            observe=0,
            inversion=None,
            training={"algorithm": "constant", "steps": 68},
        ),
    )
    assert known.policy is not None
    policy = Policy.of(known.policy)
    seen = [policy(torch.full((15,), value).numpy()) for value in (0.0, 1.0)]
    assert torch.equal(*seen)
    halving = 9 * 1 + 4 * 2
    assert known.rounds == (halving + 3 * EPISODES) * 12
    assert len(known.checks) == 1
    assert known.value == known.checks[0][1]


def test_a_policy_is_worth_what_it_gets_in_episodes_that_its_training_has_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, resets = [], set()

    def recorded(env: FederationEnv, actor: Actor, seed: int) -> float:
        asked.append((env, seed))
        return played(env, actor, seed)

    class Noting(FederationEnv):
        def reset(self, **keys: Any) -> Any:
            resets.add(keys.get("seed"))
            return super().reset(**keys)

    monkeypatch.setattr("fedrobust.attacks.learned.stage_two.played", recorded)
    monkeypatch.setattr("fedrobust.attacks.learned.policy.FederationEnv", Noting)
    known, _ = known_after(3, **learned(observe=0, inversion=None))
    assert known.policy is not None
    assert len({seed for _, seed in asked}) == len(asked) == EPISODES
    assert resets
    assert not resets & {seed for _, seed in asked}
    kept = acting(Policy.of(known.policy))
    again = [played(env, kept, seed) for env, seed in asked]
    assert known.value == pytest.approx(sum(again) / EPISODES, rel=1e-6)
    assert max(again) > min(again)


@pytest.mark.parametrize("algorithm", ["cross-entropy", "gradient"])
def test_a_plan_is_followed_to_its_end_and_then_held(algorithm: str) -> None:
    knowing = learned(observe=0, inversion=None, training={"algorithm": algorithm, "steps": 8})
    ready = prepare(experiment(**knowing))
    state = ready.federation.start(ready.start)
    for number in range(1, 21):
        state, _ = run_round(state, ready.federation, ready.streams)
        known = AttackerState.of(state.attack)
        assert known.policy is None
        assert known.plan is not None
        assert len(known.plan) == 4
        assert known.trained == 1
        assert known.report()["acts"]
        assert torch.equal(known.action, known.plan[min((number - 1) // 3, 3)])


def test_a_new_plan_is_followed_from_its_start() -> None:
    training = {"algorithm": "cross-entropy", "steps": 8}
    known, _ = known_after(12, **learned(observe=0, inversion=None, training=training, relearn=6))
    assert known.trained == 7
    assert known.plan is not None
    assert torch.equal(known.action, known.plan[1])


def test_a_new_plan_of_one_action_takes_the_place_of_the_old_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a plan that of a policy: what was found last is played."""
    known, attack, task = (
        AttackerState(),
        Learned(),
        task_of(watched(40), Basis(), horizon=8, hold=1),
    )
    k = task.encoding.actions(task.layout)
    for steps in (5, 1, 3):
        plan = Plan(np.full((steps, k), 0.5, dtype=np.float32), 1.0)
        monkeypatch.setattr(stage_two, "search", lambda *_, plan=plan: plan)
        stage_two._planned(known, attack, task, 0)
        assert (known.plan is None) == (steps == 1)
        assert (known.policy is None) == (steps != 1)


@pytest.mark.long
def test_it_trains_again_when_told_to() -> None:
    once, _ = known_after(16, **learned(inversion=None))
    often, _ = known_after(16, **learned(inversion=None, relearn=4))
    assert often.rounds == 4 * once.rounds  # after rounds 4, 8, 12 and 16
    assert often.trained > once.trained
    assert once.start is not None
    assert often.start is not None
    assert not torch.equal(often.start, once.start)


def test_a_training_that_fails_leaves_the_policy_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its examples too; it is tried again as late as the next one would have been, and told of."""
    tried: list[int] = []
    found = stage_two.task_for

    def once(known: Any, attack: Any, view: Any, *rest: Any) -> Any:
        tried.append(view.round)
        if len(tried) > 1:
            raise ValueError("nobody is left")
        return found(known, attack, view, *rest)

    changes = {"inversion": None, "encoding": {"name": "basis", "draws": "fixed"}}
    undisturbed, _ = known_after(13, **learned(**changes))
    monkeypatch.setattr(stage_two, "task_for", once)
    known, _ = known_after(13, **learned(**changes, relearn=4))
    assert tried == [4, 8, 12]
    for ours, theirs in ((known.sample, undisturbed.sample), ([known.start], [undisturbed.start])):
        assert ours
        assert all(map(torch.equal, ours, theirs or []))
    assert known.trained == 4
    assert known.held == undisturbed.held
    assert known.seconds > 0
    assert known.troubles == ["no policy was trained, and it acts as before: nobody is left"]


def test_an_action_is_held_as_long_as_in_training() -> None:
    """The policy is asked every third round, and its action is played on what each round brings."""
    ready = prepare(experiment(**learned()))
    watching = Watching()
    training = Training(algorithm="constant", steps=60)
    attack = Learned(
        observe=0, inversion=None, encoding=watching, training=training, horizon=3, hold=3
    )
    federation = replace(ready.federation, attack=attack)
    state = federation.start(ready.start)
    asked = []
    for number in range(1, 11):
        watching.sights.clear()
        state, _ = run_round(state, federation, ready.streams)
        if number > 1 and watching.sights:
            asked.append(number)
    assert asked == [4, 7, 10]


def test_a_model_that_has_blown_up_is_left_alone() -> None:
    from fedrobust.attacks.learned.stage_two import learn

    seen = watched(3)
    view = replace(seen.view, parameters=torch.full_like(seen.view.parameters, torch.nan))
    known, attack = (
        AttackerState(met=3),
        Learned(inversion=None, training=Training(steps=5, learning_starts=0)),
    )
    assert learn(known, attack, view, seeded()) is None
    assert "blown up" in known.troubles[0]


@pytest.mark.long
def test_a_float64_federation_is_attacked_too() -> None:
    class Double:
        name = "double"

        def build(self, shape: tuple[int, ...], classes: int) -> torch.nn.Module:
            return torch.nn.Sequential(
                torch.nn.Linear(2, 6), torch.nn.Softplus(), torch.nn.Linear(6, 2)
            ).double()

    config = experiment(**learned(observe=1))
    result = run(replace(config, model=Double(), rounds=4))
    assert result.summary["attack"]["acts"]
    assert not result.summary["attack"]["troubles"]
    assert result.summary["attack"]["reconstructed"] == 16
