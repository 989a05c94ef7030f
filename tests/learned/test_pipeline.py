"""The attack as a part of a run: observe, learn, act, be killed and go on, and say what it did."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ring import CONFIG, LEARNED, experiment, known_after, learned, seeded, task_of, watched
from typer.testing import CliRunner

from fedrobust.attacks.learned import Learned, Training
from fedrobust.attacks.learned.encoding import Basis, Compact
from fedrobust.attacks.learned.files import load_policy
from fedrobust.attacks.learned.knowledge import Knowledge, material
from fedrobust.attacks.learned.learning import learn_policy
from fedrobust.attacks.learned.planning import EPISODES
from fedrobust.attacks.learned.policy import Policy
from fedrobust.cli import app
from fedrobust.errors import ConfigError, RecordError
from fedrobust.federation import run_round
from fedrobust.prepare import prepare
from fedrobust.training import run


def test_it_observes_honestly_then_learns_then_acts() -> None:
    """For as many rounds as it was told to; in the first there is no step to see yet."""
    honest = prepare(experiment())
    honest_federation = replace(honest.federation, attack=None, malicious=frozenset())
    ours = prepare(experiment(**learned()))
    a, b = honest_federation.start(honest.start), ours.federation.start(ours.start)
    for number in range(1, 7):
        a, _ = run_round(a, honest_federation, honest.streams)
        b, _ = run_round(b, ours.federation, ours.streams)
        known = Knowledge.of(b.attack)
        same = torch.equal(a.parameters, b.parameters)
        assert same == (number <= 3)
        assert (known.policy is not None) == (number > 3)
        assert known.observed == min(number, 4)
    report = known.report()
    assert report["reconstructed"] == 3 * 16
    assert sum(report["labels"]) == 48
    assert len(report["matching"]) == 3
    assert all(after < before for before, after in report["matching"])
    assert len(report["distances"]) == 2
    assert report["simulated_rounds"] == 60 * 3 + 2 * 12
    assert len(report["returns"]) == 15
    assert report["seconds"] > 0
    assert report["acts"]
    assert not report["troubles"]


@pytest.mark.parametrize("known_clients", [0, 2])
@pytest.mark.parametrize(
    ("data", "own", "pooled"),
    [("own", True, False), ("learned", False, True), ("both", True, True)],
)
def test_simulated_clients_draw_from_what_was_asked(
    data: Any, own: bool, pooled: bool, known_clients: int
) -> None:
    seen = watched(2, threat={"clients": True, "data": known_clients})
    others = seen.view.others()
    assert len(others) == known_clients
    known = Knowledge(x=torch.zeros(20, 2), y=torch.zeros(20, dtype=torch.long))
    has = material(known, data, seen.view)
    assert len(has.data) == 280 + 260 * known_clients
    assert torch.equal(has.data.take(has.mine).x, seen.own.x)
    for index, split in zip(has.known, others, strict=True):
        assert torch.equal(has.data.take(index).x, split.x)
    drawn = set(has.theirs.tolist())
    assert drawn.isdisjoint(has.mine.tolist()) != own
    assert drawn.issuperset(torch.cat([*has.known, torch.arange(0)]).long().tolist())
    assert (has.data.take(has.theirs).x == 0).all(dim=1).sum() == 20 * pooled


def test_clients_whose_data_are_known_hold_them_in_the_simulation() -> None:
    seen = watched(40, threat={"clients": True, "rule": True, "data": 3})
    assert seen.prepared.federation.malicious.isdisjoint(seen.prepared.federation.known)
    local = task_of(seen).federation.local
    held = [local.data.take(part).x for part in local.clients]
    train = seen.prepared.federation.local
    for position, client in enumerate(seen.prepared.federation.known):
        assert torch.equal(held[position], train.data.take(train.clients[client]).x)
    assert torch.equal(held[-1], seen.own.x)
    assert len(held) == 10


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
    (trouble,) = [t for t in result.summary["troubles"] if t.startswith("the attack")]
    assert "no policy was trained" in trouble
    assert reason in trouble
    assert result.summary["attack"]["acts"] is False
    assert result.state.round == 6


def test_an_attacker_that_is_seldom_there_learns_from_what_it_has() -> None:
    """Three of ten a round: no two rounds in a row, perhaps, and no gradient of use."""
    changes = {"participation": {"name": "sample", "clients": 3}, "rounds": 40}
    result = run(experiment(attack=LEARNED | {"observe": 2}, **changes))
    report = result.summary["attack"]
    assert report["acts"]
    assert report["observed_rounds"] == 3
    # Its simulation leaves it out as often: far more rounds a step than the three of hold.
    assert report["simulated_rounds"] > 1.5 * (60 * 3)


def test_the_best_constant_action_is_an_algorithm_too() -> None:
    known, _ = known_after(
        3, **learned(observe=0, inversion=None, training={"algorithm": "constant"})
    )
    assert known.policy is not None
    policy = Policy.of(known.policy)
    seen = [policy(torch.full((15,), value).numpy()) for value in (0.0, 1.0)]
    assert torch.equal(*seen)
    assert known.rounds == (57 + EPISODES**2) * 12
    assert len(known.checks) == 1


@pytest.mark.parametrize("algorithm", ["cross-entropy", "gradient"])
def test_a_plan_is_followed_to_its_end_and_then_held(algorithm: str) -> None:
    knowing = learned(observe=0, inversion=None, training={"algorithm": algorithm, "steps": 8})
    known, _ = known_after(2, **knowing)
    assert known.policy is None
    assert known.plan is not None
    assert len(known.plan) == 4
    assert known.report()["acts"]
    for rounds, taken in ((3, 1), (4, 2), (11, 4), (20, 7)):
        known, state = known_after(rounds, **knowing)
        assert known.plan is not None
        assert known.taken == taken
        assert torch.equal(known.action, known.plan[min(taken, 4) - 1])
        assert state.round == rounds


def test_a_plan_is_no_policy_to_keep() -> None:
    with pytest.raises(ConfigError, match="not a policy to keep"):
        learn_policy(experiment(**learned(training={"algorithm": "gradient"})))


def test_it_trains_again_when_told_to() -> None:
    once, _ = known_after(16, **learned(inversion=None))
    often, _ = known_after(16, **learned(inversion=None, relearn=4))
    assert often.rounds >= 3 * once.rounds
    assert often.trained > once.trained
    assert once.start is not None
    assert often.start is not None
    assert not torch.equal(often.start, once.start)


@pytest.mark.parametrize("colluders", [True, False])
def test_two_attackers_send_two_rows(colluders: bool) -> None:
    changes = {"malicious": 2, "threat": {"clients": True, "colluders": colluders}}
    result = run(experiment(attack=LEARNED | {"inversion": None}, rounds=8, **changes))
    assert result.summary["attack"]["acts"]
    states = [result.state.attack] if colluders else list(result.state.attack.values())
    assert len(states) == (1 if colluders else 2)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL while it observes and while it acts; a policy read back decides as it did."""
    config = CONFIG | learned() | {"rounds": 14}
    config["evaluation"] = CONFIG["evaluation"] | {"every": 2}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = [sys.executable, "-m", "fedrobust", "run", str(path)]
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    for least in (1, 3):
        process = subprocess.Popen([*command, "--out", str(cut), "--resume"])
        deadline = time.monotonic() + 120
        metrics = cut / "metrics.jsonl"
        while not metrics.exists() or len(metrics.read_text().splitlines()) < least:
            assert time.monotonic() < deadline
            if process.poll() is not None:
                break
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "--out", str(cut), "--resume"], check=True, capture_output=True)

    def record(out: Path) -> list[dict[str, Any]]:
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]

    assert record(cut) == record(whole)
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_policy_is_learned_once_and_used_often(tmp_path: Path) -> None:
    """attack learn writes what a run with attack.policy plays, from its first round on."""
    path, policy = tmp_path / "config.yaml", tmp_path / "policy.safetensors"
    path.write_text(json.dumps(CONFIG | learned()))
    command = ["attack", "learn", str(path), "--out", str(policy)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "simulated rounds" in done.output
    loaded, about = load_policy(policy)
    known, _ = known_after(5, **learned())
    for name, tensor in (known.policy or {}).items():
        assert torch.equal(loaded.tensors()[name], tensor)
    assert about["parameters"] == 28
    assert about["report"]["observed_rounds"] == 4

    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "exists" in again.output

    used, _ = known_after(2, **learned(policy=str(policy)))
    assert used.policy is not None
    assert used.observed == 0
    assert used.rounds == 0
    for change, reason in (
        ({"encoding": {"name": "compact"}}, "was trained with the encoding"),
        ({"encoding": {"name": "basis", "budget": 2.0}}, "was trained with the encoding"),
    ):
        refused, _ = known_after(3, **learned(policy=str(policy), **change))
        assert refused.policy is None
        assert reason in refused.troubles[0]
        assert refused.observed == 0
    digits = {
        "data": {"name": "digits", "validation": 200},
        "model": {"name": "digits-cnn"},
        "objective": {"name": "erm"},
    }
    refused, _ = known_after(1, **(learned(policy=str(policy)) | digits))
    assert "28 parameters" in refused.troubles[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attack": {"name": "sign-flip"}}, "needs attack: {name: learned}"),
        ({"rounds": 2}, "set rounds higher"),
        ({"objective": {"name": "erm"}}, "needs a finite gamma"),
        ({"attack": LEARNED | {"hold": 50}}, "longer than horizon"),
        ({"attack": LEARNED | {"policy": "/nowhere"}}, "there is no file"),
        ({"attack": LEARNED | {"trainning": {}}}, "trainning"),
        ({"threat": {"clients": False}}, "the number of clients"),
    ],
)
def test_what_cannot_be_learned_once_is_refused(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(CONFIG | {"attack": LEARNED | {"inversion": None}} | change))
    out = tmp_path / "policy.safetensors"
    done = CliRunner().invoke(app, ["attack", "learn", str(path), "--out", str(out)])
    assert done.exit_code == 2, done.output
    assert reason in done.output
    assert not out.exists()


def test_the_config_of_a_learned_attack_comes_back_whole(tmp_path: Path) -> None:
    from fedrobust.component import from_config, to_config

    attack = Learned(
        observe=2, training=Training(algorithm="sac"), encoding=Compact(scale="zeta"), relearn=5
    )
    assert from_config(Learned, to_config(attack)) == attack
    assert to_config(attack)["encoding"] == {"name": "compact", "scale": "zeta", "budget": 10.0}
    assert isinstance(Learned().encoding, Basis)


def test_who_sees_the_benign_rows_can_count_them() -> None:
    known, _ = known_after(3, **learned(observe=0, inversion=None), threat={"benign": True})
    assert known.policy is not None
    assert not known.troubles


def test_the_page_shows_what_was_learned(tmp_path: Path) -> None:
    """On images: what came of the run's own truth, the pictures, and the numbers in words."""
    from fedrobust.report import write_report

    digits = {
        "data": {"name": "digits", "validation": 200},
        "model": {"name": "digits-cnn"},
        "objective": {"name": "erm"},
        "client": {"batch_size": 8, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
        "evaluation": CONFIG["evaluation"] | {"every": 6},
        "rounds": 6,
    }
    attack = LEARNED | {"reward": "loss", "inversion": {"iterations": 10}}
    out = tmp_path / "run"
    result = run(experiment(attack=attack, **digits), out)
    report = result.summary["attack"]
    compared = report["comparison"]
    assert compared["examples"] == 24
    assert compared["floor"] > 0
    assert compared["own"] == pytest.approx(compared["floor"], rel=0.5)
    truth = prepare(experiment(attack=attack, **digits)).federation.local.data
    shares = torch.bincount(truth.y, minlength=10).double() / len(truth)
    assert compared["labels"]["truth"] == pytest.approx(shares.tolist(), abs=0.02)
    counts = report["labels"] + [0] * (10 - len(report["labels"]))
    assert list(compared["labels"]["learned"]) == [n / 24 for n in counts]
    with np.load(out / "attack.npz") as kept:
        ours, nearest, labels = kept["learned"], kept["nearest"], kept["labels"]
    assert ours.shape == nearest.shape == (8, 1, 8, 8)
    assert labels.shape == (8,)
    everything = truth.images(torch.arange(len(truth))).flatten(1)
    for mine, real in zip(ours, nearest, strict=True):
        distances = (everything - torch.from_numpy(mine).flatten()).norm(dim=1)
        assert np.linalg.norm(mine - real) == pytest.approx(float(distances.min()), rel=1e-4)
    shares = [
        float(
            (everything - torch.from_numpy(mine).flatten()).norm(dim=1).min() / np.linalg.norm(real)
        )
        for mine, real in zip(ours, nearest, strict=True)
    ]
    assert min(shares) <= compared["nearest"] * 1.5
    assert compared["nearest"] > 0.1
    page = write_report([out])
    text = page.read_text()
    assert "The learned attack" in text
    assert "reconstructed\n  24 examples" in text
    assert text.count("nearest real picture") == 8
    assert (page.parent / "learned.png").exists()
    (out / "attack.npz").write_bytes(b"cut")
    with pytest.raises(RecordError, match=r"attack.npz is broken"):
        write_report([out])


class Watching:
    """A user's own encoding, which keeps what it was shown."""

    name = "watching"

    def __init__(self) -> None:
        self.sights: list[Any] = []
        self.inner = Basis()

    def seen(self, layout: Any) -> int:
        return self.inner.seen(layout)

    def actions(self, layout: Any) -> int:
        return self.inner.actions(layout)

    def observe(self, sight: Any) -> Any:
        self.sights.append(sight)
        return self.inner.observe(sight)

    def rows(self, action: torch.Tensor, view: Any, means: Any) -> torch.Tensor:
        return self.inner.rows(action, view, means)


def test_the_policy_is_shown_in_the_run_what_it_was_shown_in_training() -> None:
    """θ now, the broadcast before, θ when it was trained, the rounds since it last was there."""
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
        assert torch.equal(sight.previous, history[-1] if history else parameters)
        assert sight.waited == (log.round - last - 1 if last else 0)
        waits.append(sight.waited)
        last = log.round
    assert len(waits) > 8
    assert len(set(waits)) > 2


def test_in_the_simulation_the_attacker_holds_what_it_holds() -> None:
    """Benign clients draw from what was learned; it trains on its own examples, as it does."""
    from fedrobust.attacks.learned.calculus import calculus
    from fedrobust.attacks.learned.pipeline import task_for

    seen = watched(5)
    known = Knowledge(met=5, x=torch.zeros(20, 2), y=torch.zeros(20, dtype=torch.long))
    sample = seen.own.take(torch.arange(10))
    tools = calculus(seen.view.model())
    task = task_for(known, Learned(data="learned"), seen.view, sample, tools, seeded())
    clients, data = task.federation.local.clients, task.federation.local.data
    assert len(clients) == 10
    assert task.federation.malicious == {9}
    assert {len(held) for held in clients} == {260}
    assert not any(data.take(held).x.any() for held in clients[:9])
    assert torch.equal(data.take(clients[9]).x, seen.own.x)


def test_an_action_is_held_as_long_as_in_training() -> None:
    """The policy is asked every third round, and its action is played on what each round brings."""
    ready = prepare(experiment(**learned()))
    watching = Watching()
    training = Training(algorithm="constant")
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


@pytest.mark.parametrize(("malicious", "share"), [(1, 0.3), (2, 0.5), (5, 0.42), (1, 0.96)])
def test_the_population_is_what_the_presence_says(malicious: int, share: float) -> None:
    """By playing: how often one of the malicious is among ten of that many."""
    from fedrobust.attacks.learned.pipeline import population

    total = population(10, malicious, share)
    if share > 0.95:
        assert total == 10
        return
    draw = seeded()
    hits = [
        bool((torch.randperm(total, generator=draw)[:10] < malicious).any()) for _ in range(4000)
    ]
    assert sum(hits) / 4000 == pytest.approx(share, abs=0.05)


def test_a_rule_that_refuses_what_is_left_makes_no_step() -> None:
    """Krum with one row of five not finite: the simulated server goes on, as the real one does."""
    from fedrobust.aggregators import Context, Krum
    from fedrobust.attacks.learned.simulation import Overheard
    from fedrobust.server import aggregate

    rows = torch.randn(5, 4, generator=seeded())
    rows[2, 0] = torch.nan
    outcome = aggregate(Overheard(Krum(f=1)), rows, Context())
    assert outcome.vector is None
    assert "Krum" in str(outcome.reason)


def test_a_model_that_has_blown_up_is_left_alone() -> None:
    from fedrobust.attacks.learned.pipeline import learn

    seen = watched(3)
    view = replace(seen.view, parameters=torch.full_like(seen.view.parameters, torch.nan))
    known, attack = Knowledge(met=3), Learned(inversion=None, training=Training(steps=5))
    assert learn(known, attack, view, seeded()) is None
    assert "blown up" in known.troubles[0]


def test_an_infinite_price_moves_nothing_for_any_network() -> None:
    from fedrobust.attacks.learned.calculus import Autograd
    from fedrobust.perturb.wasserstein import Ascent

    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    x = torch.randn(4, 2, generator=seeded())
    theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    moved = Autograd(model, 8).moved(theta, x, torch.zeros(4).long(), float("inf"), Ascent())
    assert torch.equal(moved, x)


def test_a_policy_from_a_file_waits_too(tmp_path: Path) -> None:
    from fedrobust.attacks.learned.files import save_policy
    from fedrobust.component import to_config

    attack = Learned(hold=3, horizon=12)
    policy = Policy.constant(torch.tensor([0.0, -1.0, 0.0]).numpy(), 15)
    path = tmp_path / "p.safetensors"
    save_policy(policy, path, {"attack": to_config(attack), "parameters": 28})
    known, _ = known_after(3, **learned(policy=str(path), wait=3))
    assert known.policy is None
    assert known.met == 3
    known, _ = known_after(4, **learned(policy=str(path), wait=3))
    assert known.policy is not None
    known, _ = known_after(2, **learned(policy=str(path), hold=4))
    assert known.policy is None
    assert "hold" in known.troubles[0]


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
