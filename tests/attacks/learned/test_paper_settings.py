"""What the settings of the paper's attack do: epochs, the rest of the run, θ as the state."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ring import LEARNED, TRAINING, described, experiment, known_after, learned, task_of, watched
from torch import nn

from fedrobust import run
from fedrobust.attacks.learned import Learned, Training
from fedrobust.attacks.learned.attacker_state import AttackerState
from fedrobust.attacks.learned.encoding import Compact, Full
from fedrobust.attacks.learned.environment import FederationEnv
from fedrobust.attacks.learned.policy import Policy, acting, played, train
from fedrobust.attacks.learned.policy_files import save_policy
from fedrobust.attacks.learned.settings import Epochs
from fedrobust.attacks.learned.stage_one import _most
from fedrobust.clients.client import Client
from fedrobust.config.component import from_config, to_config
from fedrobust.data import Split
from fedrobust.errors import ConfigError, RecordError
from fedrobust.federation.round import run_round
from fedrobust.federation.threat import View
from fedrobust.runs.prepare import prepare

EXPERIMENTS = Path(__file__).parents[3] / "experiments" / "drfl"
RAW = Full(scale="zeta", sees="parameters")


@pytest.mark.slow
def test_an_epoch_is_the_rounds_that_use_each_example_once() -> None:
    assert Epochs(3).rounds(5000, 32) == 3 * 157
    assert Epochs(5).rounds(5500, 64) == 5 * 86
    assert Epochs(2).rounds(260, 260) == 2
    quick = {"inversion": {"iterations": 1}, "threshold": 0.0, "encoding": "full"}
    cheap = {"training": {"algorithm": "constant", "steps": 1}, "horizon": 1, "hold": 1}
    for over, rounds in ((False, 17), (True, 18)):  # 260 examples in batches of 16
        known, _ = known_after(rounds, **learned(observe={"epochs": 1}, **quick, **cheap))
        assert known.over == over
        assert known.observed == 17


@pytest.mark.parametrize(
    ("examples", "used", "rounds"),
    [(5000, 32, 471), (64, 64, 3), (64, 192, 1), (64, 256, 1), (96, 64, 6), (10, 1000, 1)],
)
def test_epochs_are_passes_over_the_attackers_own_examples(
    examples: int, used: int, rounds: int
) -> None:
    """Three epochs, where a round is a part of one, one, or several."""
    assert Epochs(3).rounds(examples, used) == rounds


@pytest.mark.parametrize(
    ("client", "rounds"),
    [
        ({"batch_size": 32, "batches": 1}, 12),
        ({"batch_size": 32, "epochs": 1}, 6),
        ({"batch_size": 32, "epochs": 3}, 2),
        ({"batch_size": 32, "batches": 8}, 2),
        ({"batch_size": 100, "batches": 2}, 3),
        ({"batch_size": 30, "batches": 3}, 6),
        ({"batch_size": 60, "batches": 3}, 4),
    ],
)
def test_what_clients_do_in_a_round_says_how_long_epochs_are(
    client: dict[str, Any], rounds: int
) -> None:
    model, held = nn.Linear(2, 2), Split(torch.randn(64, 2), torch.zeros(64, dtype=torch.long))
    view = View.of(
        torch.zeros(1, 6), model=model, data=[held], client=Client(**client), classes=2, clients=5
    )
    assert _most(Learned(observe=Epochs(6)), view) == rounds


def test_the_threshold_ends_stage_one_before_the_epochs_do() -> None:
    quick = {"inversion": {"iterations": 1}, "threshold": 100.0, "encoding": "full"}
    cheap = {"training": {"algorithm": "constant", "steps": 1}, "horizon": 1, "hold": 1}
    known, _ = known_after(3, **learned(observe={"epochs": 3}, **quick, **cheap))
    assert known.over
    assert len(known.distances) == 1


def test_the_rest_of_the_run_is_an_episode_that_ends() -> None:
    """The attacker acts from round 41 on: 9 rounds are left of 49. A fixed horizon is cut off."""
    seen = watched(41)
    assert seen.view.rounds == 30, "the run's own number, which the spy has passed"
    seen.view = replace(seen.view, rounds=49)
    for horizon, length, ends in (("rest", 9, True), (6, 6, False)):
        task = task_of(seen, horizon=horizon, hold=3)
        assert (task.horizon, task.ends) == (length, ends)
        env = FederationEnv(task)
        env.reset(seed=0)
        steps = [env.step(np.zeros(3, dtype=np.float32))[2:4] for _ in range(length // 3)]
        assert steps[:-1] == [(False, False)] * (length // 3 - 1)
        assert steps[-1] == (ends, not ends)
    seen.view = replace(seen.view, rounds=None)
    with pytest.raises(ValueError, match="horizon: rest needs the number of rounds"):
        task_of(seen, horizon="rest", hold=3)


def test_nothing_is_worth_anything_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the replay memory: an end counts, a cut does not. Updates are as many as steps."""
    from fedrobust.attacks.learned import policy as module

    kept: list[Any] = []
    export = module._exported
    monkeypatch.setattr(module, "_exported", lambda m, v: [kept.append(m), export(m, v)][1])
    seen = watched(20)
    training = Training(
        algorithm="ddpg",
        start="random",
        steps=20,
        learning_starts=5,
        hidden=(4,),
        batch_size=10,
        train_every="episode",
        gradient_steps=-1,
        check_every=0,
        normalise=False,
    )
    for horizon in ("rest", 11):  # eleven rounds are left of thirty
        task = task_of(seen, RAW, horizon=horizon, hold=1)
        found = train(task, training, seed=0)
        model = kept[-1]
        memory = model.replay_buffer
        assert memory.dones[:22, 0].nonzero()[0].tolist() == [10, 21]
        assert memory.timeouts[:22, 0].sum() == (2 if horizon == 11 else 0)
        assert model.num_timesteps == model._n_updates == 22, "whole episodes, one update a step"
        assert model.train_freq.unit.value == "episode"
        assert len(found.returns) == 2


def test_the_state_is_theta_itself() -> None:
    seen = watched(20)
    env = FederationEnv(task_of(seen, RAW, horizon=4, hold=1))
    observation, _ = env.reset(seed=0)
    assert np.array_equal(observation, seen.view.parameters.numpy())
    observation, *_ = env.step(np.ones(28, dtype=np.float32))
    assert np.array_equal(observation, env.parameters.numpy())
    assert not np.isfinite(env.observation_space.high).any()
    model = seen.view.model()
    hidden = torch.cat([p.detach().flatten() for p in model[2].parameters()])
    output = torch.cat([p.detach().flatten() for p in model[4].parameters()])
    for layer, numbers in (("last-hidden", hidden), ("output", output)):
        compact = Compact(sees="parameters", layer=layer)
        env = FederationEnv(task_of(seen, compact, horizon=4, hold=1))
        observation, _ = env.reset(seed=0)
        assert np.array_equal(observation, numbers.numpy())
    changed = FederationEnv(task_of(seen, Compact(layer="last-hidden"), horizon=4, hold=1))
    assert changed.reset(seed=0)[0].tolist() == [0.0] * (len(hidden) + 1)


@pytest.mark.slow
def test_the_reward_is_as_printed_and_told_in_units_of_the_start() -> None:
    seen = watched(300)
    env = FederationEnv(task_of(seen, RAW, horizon=4, hold=1, reward_unit="absolute"))
    before = -env.task.harm(seen.view.parameters)
    env.reset(seed=0)
    for action in (-1.0, 0.3):
        _, reward, *_ = env.step(np.full(28, action, dtype=np.float32))
        now = -env.task.harm(env.parameters)
        assert reward == pytest.approx(before - now, abs=1e-12)
        assert reward != 0
        before = now
    rho = -env.task.harm(seen.view.parameters)
    assert env.task.told(0.5 * rho) == pytest.approx(0.5)
    usual = task_of(seen, RAW, horizon=4, hold=1)
    assert usual.scale == pytest.approx(1 / rho)
    assert usual.told(0.123) == 0.123


STILL = {"algorithm": "ddpg", "learning_rate": 1e-12, "normalise": False, "check_episodes": 1}


@pytest.mark.slow
@pytest.mark.parametrize("training", [{"algorithm": "constant", "steps": 9}, TRAINING | STILL])
def test_values_in_the_report_have_the_same_unit_whatever_the_reward_has(training: Any) -> None:
    """The policy is the constant one or stays as it begins, so that both runs have the same."""
    one = {"inversion": None, "observe": 0, "training": training}
    start, absolute = (
        known_after(20, **learned(wait=17, reward_unit=unit, **one))[0].report()
        for unit in ("start", "absolute")
    )
    assert start["value"] != 0
    assert absolute["value"] == pytest.approx(start["value"])
    assert absolute["checks"][0][1] == pytest.approx(start["checks"][0][1])
    assert absolute["returns"] == pytest.approx(start["returns"])


def test_a_policy_acts_on_large_observations_as_it_was_trained_to() -> None:
    """Without normalisation nothing was cut off in the training."""
    layers = ((torch.tensor([[0.01]]), torch.zeros(1)),)
    plain = Policy(layers, torch.zeros(1), torch.ones(1))
    scaled = Policy(layers, torch.zeros(1), torch.full((1,), 0.5))
    assert plain(np.array([50.0], dtype=np.float32)).item() == pytest.approx(np.tanh(0.5))
    assert scaled(np.array([50.0], dtype=np.float32)).item() == pytest.approx(np.tanh(0.1))


@pytest.mark.slow
def test_the_last_policy_is_kept_or_the_best_and_patience_ends_a_training() -> None:
    task = task_of(watched(20), RAW, horizon="rest", hold=1)
    training = replace(
        from_config(Training, TRAINING | {"algorithm": "ddpg", "check_episodes": 1}),
        steps=110,
        learning_starts=11,
        train_every="episode",
        gradient_steps=-1,
        check_every=1,
        normalise=False,
    )
    last, best = (train(task, replace(training, keep=keep), seed=1) for keep in ("last", "best"))
    assert last.checks == best.checks
    assert [step for step, _ in last.checks] == [11 * k for k in range(11)]
    values = [score for _, score in last.checks]
    env = FederationEnv(task)
    assert played(env, acting(last.policy), 0) == pytest.approx(values[-1])
    assert played(env, acting(best.policy), 0) == pytest.approx(max(values))
    assert values[-1] != max(values), "the case does not tell the two apart"
    assert last.kept == 110
    assert best.kept == 11 * values.index(max(values))
    first = next(
        k for k in range(2, 11) if max(values[k - 1 : k + 1]) <= max(values[: k - 1])
    )  # two checks in a row without a new best
    patient = train(task, replace(training, patience=2), seed=1)
    assert patient.checks == last.checks[: first + 1]


@pytest.mark.slow
def test_a_run_whose_attack_plans_for_its_rounds_is_not_extended(tmp_path: Path) -> None:
    """Its longer run would have planned for more rounds from its start on."""
    quick = {"algorithm": "constant", "steps": 9}
    for horizon, refused in (("rest", True), (12, False)):
        attack = LEARNED | {"inversion": None, "training": quick, "horizon": horizon}
        out = tmp_path / str(horizon)
        run(experiment(attack=attack, rounds=5), out)
        if refused:
            with pytest.raises(RecordError, match="its attack has planned"):
                run(experiment(attack=attack, rounds=6), out, resume=True)
            run(experiment(attack=attack, rounds=6, malicious=0), tmp_path / "nobody")
        else:
            run(experiment(attack=attack, rounds=6), out, resume=True)


@pytest.mark.parametrize("encoding", [Full(), Compact()])
def test_a_policy_of_an_earlier_version_still_acts(encoding: Any, tmp_path: Path) -> None:
    attack = Learned(encoding=encoding, hold=1)
    about = described(attack)
    for gone in ("sees", "layer"):
        about["attack"]["encoding"].pop(gone, None)
    about["attack"].pop("reward_unit")
    for gone in ("keep", "patience"):
        about["attack"]["training"].pop(gone)
    path = tmp_path / "policy.safetensors"
    layout = task_of(watched(2), encoding).layout
    seen, actions = encoding.seen(layout), encoding.actions(layout)
    save_policy(Policy.constant(np.full(actions, 0.5, dtype=np.float32), seen), path, about)
    used = to_config(replace(attack, policy=str(path)))
    ready = prepare(experiment(attack=used))
    state, _ = run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    assert AttackerState.of(state.attack).acts
    other = to_config(
        replace(attack, policy=str(path), encoding=replace(encoding, sees="parameters"))
    )
    ready = prepare(experiment(attack=other))
    state, _ = run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    (trouble,) = AttackerState.of(state.attack).troubles
    assert "was trained with encoding" in trouble


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"horizon": "all"}, "horizon: should be 'rest'"),
        ({"horizon": 0}, "horizon: should be greater than or equal to 1"),
        ({"observe": {"epochs": 0}}, "observe.epochs: should be greater"),
        ({"training": {"train_every": "step"}}, "train_every: should be 'episode'"),
        ({"training": {"gradient_steps": 0}}, "gradient_steps must be at least 1, or -1"),
        ({"training": {"train_every": "episode", "environments": 2}}, "needs one environment"),
        ({"training": {"patience": 1, "check_every": 0}}, "set check_every too"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Learned(**changes)
