"""Attackers that are not in every round, and several of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ring import LEARNED, Watching, experiment, learned, seeded, task_of, watched

from fedrobust import run
from fedrobust.attacks.learned import Learned, Training
from fedrobust.attacks.learned.attacker_state import AttackerState
from fedrobust.attacks.learned.encoding import Basis
from fedrobust.attacks.learned.environment import FederationEnv
from fedrobust.attacks.learned.planning import Plan, cross_entropy, gradient_ascent, value_of
from fedrobust.attacks.learned.task import task_for
from fedrobust.clients.gradients import gradient_engine
from fedrobust.federation.participation import Sample
from fedrobust.federation.round import run_round
from fedrobust.federation.threat import View
from fedrobust.runs.prepare import prepare

pytestmark = pytest.mark.slow

SEVERAL = {"batch_size": 16, "batches": 2, "optimizer": {"name": "sgd", "lr": 0.3}}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"participation": {"name": "sample", "clients": 2}, "seed": 1}, "never selected"),
        ({}, "took part in 3 rounds, and acts after round 0, after it has observed 20 more"),
        ({"client": SEVERAL}, "took part in 3 rounds"),
    ],
)
def test_an_attacker_that_never_attacked_is_told_of(changes: dict[str, Any], reason: str) -> None:
    attack = LEARNED | {"observe": 20}
    result = run(experiment(attack=attack, rounds=3, **changes))
    assert any(reason in text for text in result.summary["attack"]["troubles"])
    told = [f"the attack: {text}" for text in result.summary["attack"]["troubles"]]
    assert [text for text in result.summary["troubles"] if text in told] == told
    assert result.state.round == 3


def test_an_attacker_that_is_seldom_there_learns_from_what_it_has() -> None:
    """Three of ten a round: no two rounds in a row, perhaps, and no gradient of use."""
    changes = {"participation": {"name": "sample", "clients": 3}, "rounds": 40}
    result = run(experiment(attack=LEARNED | {"observe": 2}, **changes))
    report = result.summary["attack"]
    assert report["acts"]
    assert report["observed_rounds"] == 2
    # Its simulation leaves it out as often: far more rounds a step than the three of hold.
    assert report["simulated_rounds"] > 1.5 * (60 * 3)


def test_the_policy_is_shown_in_the_run_what_it_was_shown_in_training() -> None:
    """θ now, the broadcast before if it got that, θ when it was trained, the rounds it missed."""
    ready = prepare(experiment(participation={"name": "sample", "clients": 5}, **learned()))
    watching = Watching()
    training = Training(steps=20, learning_starts=5, check_every=0, hidden=(4,))
    attack = Learned(
        observe=0, inversion=None, encoding=watching, training=training, horizon=4, hold=1
    )
    federation = replace(ready.federation, attack=attack)
    state = federation.start(ready.start)
    (bad,) = federation.malicious
    trained, last, waits = None, 0, []
    for _ in range(40):
        parameters, history = state.parameters, state.history
        watching.sights.clear()
        state, log = run_round(state, federation, ready.streams)
        if bad not in log.participants:
            continue
        sight = watching.sights[-1]
        trained = parameters if trained is None else trained
        assert torch.equal(sight.start, trained)
        assert torch.equal(sight.parameters, parameters)
        received = history and last == log.round - 1
        assert torch.equal(sight.previous, history[-1] if received else parameters)
        assert sight.waited == log.round - last - 1
        waits.append(sight.waited)
        last = log.round
    assert len(waits) > 8
    assert len(set(waits)) > 2


def test_a_direction_takes_no_step_that_the_attacker_did_not_receive() -> None:
    """In the simulation too: after rounds without it, the last step is not known."""
    seen = watched(40)
    watching = Watching()
    watching.inner = Basis(directions=("last-step",))
    task = task_of(seen, watching, horizon=60, hold=1)
    federation = replace(task.federation, participation=Sample(3))
    env = FederationEnv(replace(task, federation=federation))
    env.reset(seed=0)
    rows: list[torch.Tensor] = []
    craft = env._puppet.craft

    def spied(state: None, view: View, rng: torch.Generator) -> Any:
        sent = craft(state, view, rng)
        rows.append(sent[0])
        return sent

    env._puppet.craft = spied  # type: ignore[method-assign]
    missed, zero, still = [], [], []
    while not env.over:
        sight = watching.sights[-1]
        missed.append(sight.waited > 0)
        still.append(torch.equal(sight.previous, sight.parameters))
        env.step(np.ones(1, dtype=np.float32))
        zero.append(not rows[-1].any())
    assert zero == still == missed
    assert len(set(missed)) == 2


def test_an_episode_begins_in_a_round_that_the_attacker_is_in() -> None:
    """As its acting does, after as many rounds without it; the others are there by chance."""
    task = task_of(watched(40), horizon=60, hold=1)
    federation = replace(task.federation, participation=Sample(2))
    env = FederationEnv(replace(task, federation=federation, waited=5))
    others, waits, craft = [], list[int](), env._puppet.craft

    def spied(*given: Any) -> Any:
        waits.append(env._puppet.waited)
        return craft(*given)

    env._puppet.craft = spied  # type: ignore[method-assign]
    for seed in range(40):
        observation, info = env.reset(seed=seed)
        assert info["round"] == task.start.round
        assert observation[-1] == pytest.approx(np.log1p(5))
        chosen = federation.participation.choose(
            10, env._streams.generator("participation", task.start.round + 1)
        )
        assert 9 in chosen
        others += [client for client in chosen if client != 9]
        env.step(np.zeros(3, dtype=np.float32))
        assert waits == [5]
        waits.clear()
    assert len(set(others)) == 9


def test_a_plan_goes_by_the_round_whether_or_not_the_attacker_is_there() -> None:
    """In the search as in the run, where rounds are missed and an action ends later than is due."""
    seen = watched(40)
    task = task_of(seen, horizon=24, hold=2)
    scarce = replace(task, federation=replace(task.federation, participation=Sample(4)))
    env = FederationEnv(scarce)
    actions = np.linspace(-1, 1, 12 * 3, dtype=np.float32).reshape(12, 3)
    due, play = [], env.play

    def spied(action: torch.Tensor) -> None:
        due.append((env.elapsed // 2, action.numpy().copy()))
        play(action)

    env.play = spied  # type: ignore[method-assign]
    value_of(env, actions, 3)
    assert len(due) < 10
    assert all(np.array_equal(action, actions[step]) for step, action in due)
    assert due[-1][0] > len(due)

    training = {"algorithm": "cross-entropy", "steps": 8}
    sampled = {"participation": {"name": "sample", "clients": 5}, "rounds": 30}
    ready = prepare(experiment(**learned(observe=0, inversion=None, training=training), **sampled))
    state, steps = ready.federation.start(ready.start), []
    for _ in range(30):
        before = state.attack.get("action")
        state, log = run_round(state, ready.federation, ready.streams)
        known = AttackerState.of(state.attack)
        if known.action is not None and known.held == 1 and log.malicious:
            step = min((log.round - known.trained) // 3, 3)
            assert torch.equal(known.action, known.plan[step])  # type: ignore[index]
            steps.append((step, before))
    assert {step for step, _ in steps} >= {0, 3}


def test_plans_are_searched_where_the_attacker_is_not_always_there() -> None:
    """By both searches."""
    seen = watched(40)
    task = task_of(seen, horizon=8, hold=2)
    scarce = replace(task, federation=replace(task.federation, participation=Sample(2)))
    for plan in (
        cross_entropy(scarce, segments=2, population=4, elite=2, iterations=2),
        gradient_ascent(scarce, segments=2, iterations=2, steps=30),
    ):
        assert isinstance(plan, Plan)
        assert np.isfinite(plan.actions).all()
        assert np.isfinite(plan.value)


def group(clients: list[int], sizes: list[int]) -> tuple[View, list[torch.Tensor]]:
    """What colluders see who hold so many examples each."""
    seen = watched(5, malicious=len(clients), participation={"name": "all"})
    local = seen.prepared.federation.local
    parts = [local.data.take(local.clients[c][:n]) for c, n in zip(clients, sizes, strict=True)]
    own = seen.view.own[:1].expand(len(clients), -1)
    view = replace(seen.view, rows=len(clients), own=own, data=lambda: tuple(parts))
    return view, [part.x for part in parts]


def test_each_colluder_holds_its_own_examples_in_the_simulation() -> None:
    view, own = group([0, 1], [200, 20])
    known = AttackerState(met=view.round, most=2, last=view.round - 1)
    sample = view.data()[0].take(torch.arange(10))
    task = task_for(known, Learned(), view, sample, gradient_engine(view.model()), seeded())
    local = task.federation.local
    held = [local.data.take(local.clients[client]).x for client in (8, 9)]
    assert task.federation.malicious == {8, 9}
    assert all(map(torch.equal, held, own))
    assert {len(local.clients[client]) for client in range(8)} == {110}


def test_the_simulation_has_all_attackers_that_were_ever_seen_together() -> None:
    """Three of ten, five a round: what happens to be there when it is trained is no measure."""
    view, own = group([0], [100])
    view = replace(view, round=240, clients=5)
    known = AttackerState(met=220, most=3, rows=360, last=236)
    sample = view.data()[0].take(torch.arange(10))
    task = task_for(known, Learned(), view, sample, gradient_engine(view.model()), seeded())
    local = task.federation.local
    assert task.waited == 3
    assert task.federation.participation == Sample(5)
    assert (len(local.clients), task.federation.malicious) == (10, {7, 8, 9})
    assert torch.equal(local.data.take(local.clients[7]).x, own[0])
    mine = {tuple(x.tolist()) for x in own[0]}
    assert {tuple(x.tolist()) for x in local.data.take(local.clients[9]).x} <= mine

    five = {"name": "sample", "clients": 5}
    ready = prepare(experiment(malicious=3, participation=five, **learned(wait=500)))
    state, together = ready.federation.start(ready.start), list[int]()
    while len(together) < 20 or not 0 < together[-1] < max(together):
        state, log = run_round(state, ready.federation, ready.streams)
        together.append(len(log.malicious))
    known = AttackerState.of(state.attack)
    assert (known.most, known.rows) == (max(together), sum(together))


@pytest.mark.parametrize("colluders", [True, False])
def test_two_attackers_send_two_rows(colluders: bool) -> None:
    """What an action means for each, at its own length; alone, each has a policy of its own."""
    changes = {"malicious": 2, "threat": {"clients": True, "colluders": colluders}}
    training = {"algorithm": "constant", "steps": 60}
    attack = LEARNED | {"inversion": None, "observe": 0, "training": training}
    ready = prepare(experiment(attack=attack, rounds=8, **changes))
    federation, sent = ready.federation, []

    class Watched(Learned):
        def craft(self, state: Any, view: View, rng: torch.Generator) -> Any:
            found = super().craft(state, view, rng)
            sent.append((view.own.clone(), found[0].clone()))
            return found

    keys = {
        name: getattr(federation.attack, name)
        for name in ("inversion", "training", "horizon", "encoding")
    }
    watched_one = Watched(observe=0, hold=3, samples=40, **keys)
    federation = replace(federation, attack=watched_one)
    state = federation.start(ready.start)
    for _ in range(6):
        state, _ = run_round(state, federation, ready.streams)
    assert len(sent) == (6 if colluders else 12)
    own, rows = (torch.cat(parts) for parts in zip(*sent[-1 if colluders else -2 :], strict=True))
    assert rows.shape == own.shape == (2, 28)
    assert (rows - own).norm(dim=1).min() > 0.5 * own.norm(dim=1).min()
    states = [state.attack] if colluders else list(state.attack.values())
    assert [AttackerState.of(one).acts for one in states] == [True] * (1 if colluders else 2)
    if colluders:
        lengths = rows.norm(dim=1) / own.norm(dim=1)
        assert lengths[0] == pytest.approx(float(lengths[1]), rel=0.5)


def test_of_attackers_on_their_own_each_is_heard() -> None:
    """The one that was never selected too, and whoever has troubles."""
    changes = {
        "malicious": 2,
        "threat": {"clients": True, "colluders": False},
        "participation": {"name": "sample", "clients": 3},
    }
    told: list[str] = []
    for seed in range(6):
        found = run(experiment(attack=LEARNED, rounds=2, seed=seed, **changes)).summary
        troubles = found["attack"]["troubles"]
        assert sorted({text.split(":")[0] for text in troubles}) == [
            f"client {client}" for client in found["malicious"]
        ]
        told += troubles
    everything = " ".join(told)
    assert "never selected" in everything
    assert "the run ended before it attacked" in everything
