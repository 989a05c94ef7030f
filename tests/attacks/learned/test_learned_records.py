"""What outlives the attack: killed runs, policies in files, configs and pages."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ring import CONFIG, LEARNED, THREE, described, experiment, known_after, learned
from typer.testing import CliRunner

from fedrobust import run
from fedrobust.attacks.learned import Learned, Training
from fedrobust.attacks.learned.attacker_state import AttackerState
from fedrobust.attacks.learned.encoding import Basis, Compact
from fedrobust.attacks.learned.policy import Policy
from fedrobust.attacks.learned.policy_files import load_policy, save_policy
from fedrobust.cli import app
from fedrobust.config.component import to_config
from fedrobust.errors import ConfigError, RecordError
from fedrobust.experiment import load
from fedrobust.federation.round import run_round
from fedrobust.runs.learn_policy import learn_policy
from fedrobust.runs.older_configs import completed
from fedrobust.runs.prepare import prepare


def test_a_plan_is_no_policy_to_keep() -> None:
    with pytest.raises(ConfigError, match="not a policy to keep"):
        learn_policy(experiment(**learned(training={"algorithm": "gradient"})))


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL while it observes and while it acts; a policy read back decides as it did."""
    short = learned(training={"algorithm": "constant", "steps": 9})
    config = CONFIG | short | {"rounds": 14}
    config["evaluation"] = CONFIG["evaluation"] | {"every": 2}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = [sys.executable, "-m", "fedrobust", "run", "--no-report", str(path)]
    run(load(path), whole)
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
    run(load(path), cut, resume=True)

    def record(out: Path) -> list[dict[str, Any]]:
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in lines]

    assert record(cut) == record(whole)
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.long
def test_a_policy_is_learned_once_and_used_often(tmp_path: Path) -> None:
    """attack learn writes what a run with attack.policy plays, from its first round on."""
    path, policy = tmp_path / "config.yaml", tmp_path / "policy.safetensors"
    path.write_text(json.dumps(CONFIG | learned(encoding=THREE)))
    command = ["attack", "learn", str(path), "--out", str(policy)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "simulated rounds" in done.output
    loaded, about = load_policy(policy)
    known, _ = known_after(5, **learned(encoding=THREE))
    for name, tensor in (known.policy or {}).items():
        assert torch.equal(loaded.tensors()[name], tensor)
    assert about["parameters"] == 28
    assert about["report"]["observed_rounds"] == 3

    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "exists" in again.output

    used, _ = known_after(2, **learned(encoding=THREE, policy=str(policy)))
    assert used.policy is not None
    assert used.observed == 0
    assert used.rounds == 0
    assert used.troubles == []
    for change, reason in (
        ({"encoding": {"name": "compact"}}, "was trained with encoding = "),
        ({"encoding": {"name": "basis", "budget": 2.0}}, "was trained with encoding = "),
        ({"reward": "loss"}, "was trained with reward = robustness, and this attack has loss"),
        ({"ascent": {"steps": 4, "rule": "decaying"}}, "was trained with ascent = "),
        ({"gamma": 1.0}, "was trained with gamma = 2.0, and this attack has 1.0"),
    ):
        known = {"encoding": THREE, "policy": str(policy)} | change
        refused, _ = known_after(3, **learned(**known))
        assert refused.policy is None
        assert reason in refused.troubles[0]
        assert refused.observed == 0
    warned, _ = known_after(
        2, **learned(encoding=THREE, policy=str(policy)), aggregator={"name": "median"}
    )
    assert warned.policy is not None
    assert "another rule than the server's" in warned.troubles[0]
    # A rule whose answer changes from round to round tells nothing of who it is.
    clipping = {"aggregator": {"name": "centered-clipping", "radius": 1.0}}
    path.write_text(json.dumps(CONFIG | learned(encoding=THREE) | clipping))
    clipped = tmp_path / "clipped.safetensors"
    assert (
        CliRunner().invoke(app, ["attack", "learn", str(path), "--out", str(clipped)]).exit_code
        == 0
    )
    assert load_policy(clipped)[1]["rule"] is None
    used, _ = known_after(3, **learned(encoding=THREE, policy=str(clipped)), **clipping)
    assert used.troubles == []
    digits = {
        "data": {"name": "digits", "validation": 200},
        "model": {"name": "digits-cnn"},
        "objective": {"name": "erm"},
    }
    refused, _ = known_after(1, **(learned(encoding=THREE, policy=str(policy)) | digits))
    assert "28 parameters" in refused.troubles[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attack": {"name": "sign-flip"}}, "needs attack: {name: learned}"),
        ({"rounds": 2}, "the run ended before it attacked"),
        ({"objective": {"name": "erm"}}, "needs a finite gamma"),
        ({"attack": LEARNED | {"hold": 50}}, "longer than horizon"),
        ({"attack": LEARNED | {"policy": "/nowhere"}}, "/nowhere is no file;"),
        ({"attack": LEARNED | {"policy": "/tmp"}}, "/tmp is no file, but a folder"),
        ({"attack": LEARNED | {"inversion": None, "data": "learned"}}, "needs an inversion"),
        (
            {"attack": LEARNED | {"training": {"steps": 300}}},
            "steps = 300 end before the first update, after learning_starts = 500",
        ),
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
    from fedrobust.config.component import from_config, to_config

    attack = Learned(
        observe=2, training=Training(algorithm="sac"), encoding=Compact(scale="zeta"), relearn=5
    )
    assert from_config(Learned, to_config(attack)) == attack
    assert to_config(attack)["encoding"] == {
        "name": "compact",
        "scale": "zeta",
        "budget": 10.0,
        "sees": "change",
        "layer": "output",
    }
    assert isinstance(Learned().encoding, Basis)


@pytest.mark.long
@pytest.mark.usefixtures("quick_pages")
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
    training = {"algorithm": "constant", "steps": 9}
    attack = LEARNED | {"reward": "loss", "inversion": {"iterations": 10}, "training": training}
    out = tmp_path / "run"
    result = run(experiment(attack=attack, **digits), out)
    report = result.summary["attack"]
    compared = report["comparison"]
    assert compared["examples"] == 24
    assert compared["floor"] > 0
    assert compared["own"] == pytest.approx(compared["floor"], rel=0.5)
    federation = prepare(experiment(attack=attack, **digits)).federation
    benign = sorted(set(range(len(federation.local.clients))) - federation.malicious)
    held = torch.cat([federation.local.clients[client] for client in benign])
    truth = federation.local.data.take(held)
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


def test_a_policy_from_a_file_waits_too(tmp_path: Path) -> None:
    attack = Learned(hold=3, horizon=12)  # three axes
    policy = Policy.constant(torch.tensor([0.0, -1.0, 0.0]).numpy(), 15)
    path = tmp_path / "p.safetensors"
    save_policy(policy, path, described(attack))
    known, _ = known_after(3, **learned(encoding=THREE, policy=str(path), wait=3))
    assert known.policy is None
    assert known.met == 3
    known, _ = known_after(4, **learned(encoding=THREE, policy=str(path), wait=3))
    assert known.policy is not None
    report = known.report()
    assert (report["source"], report["value"], report["acts_from"]) == (str(path), 0.25, 4)
    known, _ = known_after(2, **learned(encoding=THREE, policy=str(path), hold=4))
    assert known.policy is None
    assert "hold" in known.troubles[0]


def test_a_file_that_holds_no_policy_is_refused_at_once(tmp_path: Path) -> None:
    """Before the first round; one that is spoilt later costs the attack, and not the run."""
    path = tmp_path / "policy.safetensors"
    path.write_text("nothing")
    config = learned(policy=str(path), wait=2)
    with pytest.raises(ConfigError, match="cannot be read as a policy"):
        run(experiment(rounds=4, **config), tmp_path / "run")
    assert not (tmp_path / "run" / "rounds.jsonl").exists()

    attack = Learned(hold=3, horizon=12)  # three axes
    path.unlink()
    policy = Policy.constant(np.zeros(3, dtype=np.float32), 15)
    save_policy(policy, path, described(attack))
    ready = prepare(experiment(**config))
    state = ready.federation.start(ready.start)
    path.write_text("nothing")
    for _ in range(4):
        state, _ = run_round(state, ready.federation, ready.streams)
    (trouble,) = AttackerState.of(state.attack).troubles
    assert "cannot be read as a policy" in trouble
    assert "honest updates were sent" in trouble


def test_a_config_from_before_a_field_means_what_was_done_then() -> None:
    """Policies were checked in one episode before ``check_episodes`` was there."""
    stored = to_config(experiment(**learned()))
    assert completed(stored) == stored
    assert stored["attack"]["training"].pop("check_episodes") == 3
    assert completed(stored)["attack"]["training"]["check_episodes"] == 1
    assert stored["attack"]["encoding"].pop("draws") == "fresh"
    assert completed(stored)["attack"]["encoding"]["draws"] == "fixed"
    full = to_config(experiment(**learned(encoding={"name": "full"})))
    assert completed(full) == full, "another encoding draws nothing"
    wrapped = to_config(experiment(attack={"name": "jittered", "radius": 1.0} | learned()))
    assert wrapped["attack"]["attack"]["training"].pop("start") == "random"
    assert completed(wrapped)["attack"]["attack"]["training"]["start"] == "random"
    del wrapped["execution"]["gradients"], wrapped["execution"]["precision"]
    wrapped["model"] = {"opaque": "somebody's"}
    before = completed(wrapped)
    assert before["execution"]["gradients"] == "autograd"
    assert before["execution"]["precision"] == "float32"
    assert before["model"] == {"opaque": "somebody's"}
