"""SIGKILL while an attacker trains, and what else keeps a policy from being written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ring import (
    CONFIG,
    TRAINING,
    experiment,
    learned,
)
from typer.testing import CliRunner

from fedrobust import run
from fedrobust.attacks.learned.policy_files import load_policy
from fedrobust.cli import app
from fedrobust.errors import RecordError

pytestmark = pytest.mark.long

OWN = {"name": "basis", "directions": ["own"]}
"""One axis: of more, the search for the best constant action plays many episodes."""
LONG = TRAINING | {"steps": 240, "check_every": 120, "start": "constant"}
EVOLVED = {"algorithm": "evolution", "steps": 160, "evolution": {"population": 4}}


def killed_in_training(command: list[str], folder: Path, least: int = 50) -> int:
    """SIGKILL once the journal has so many answers; how many it then has."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    lines = 0
    while lines < least:
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be killed"
        lines = sum(p.read_bytes().count(b"\n") for p in folder.glob("learning-*.jsonl"))
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return sum(p.read_bytes().count(b"\n") for p in folder.glob("learning-*.jsonl"))


def test_a_run_that_is_killed_while_the_attacker_trains(tmp_path: Path, played: list[int]) -> None:
    """SIGKILL, twice; the same model, and the rest of the rounds alone are simulated."""
    changes = learned(inversion=None, training=LONG, encoding=OWN) | {"rounds": 9}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(CONFIG | changes))
    whole = run(experiment(**changes), tmp_path / "whole")
    rounds = len(played)
    cut = tmp_path / "cut"
    command = [
        sys.executable,
        "-m",
        "fedrobust",
        "run",
        "--no-report",
        str(path),
        "--out",
        str(cut),
        "--resume",
    ]
    first = killed_in_training(command, cut)
    second = killed_in_training(command, cut, first + 50)
    assert first < second < 240
    played.clear()
    resumed = run(experiment(**changes), cut, resume=True)
    assert torch.equal(resumed.state.parameters, whole.state.parameters)
    assert 0 < len(played) <= rounds - 3 * 50  # three rounds are an answer
    spent = [result.summary["attack"]["simulated_rounds"] for result in (whole, resumed)]
    assert spent[0] == spent[1] == rounds


def test_an_evolution_that_is_killed(tmp_path: Path, played: list[int]) -> None:
    """SIGKILL, in its own search and not in that for its start; the same policy."""
    changes = learned(observe=0, inversion=None, training=EVOLVED, encoding=OWN) | {"rounds": 2}
    path, cut = tmp_path / "config.yaml", tmp_path / "cut"
    path.write_text(json.dumps(CONFIG | changes))
    command = [sys.executable, "-m", "fedrobust", "run", "--no-report", str(path)]
    answers = killed_in_training([*command, "--out", str(cut)], cut, 120)
    assert 120 <= answers < 200
    whole = run(experiment(**changes), tmp_path / "whole")
    rounds = len(played)
    played.clear()
    resumed = run(experiment(**changes), cut, resume=True)
    assert 0 < len(played) < rounds - 200
    kept = [result.state.attack["policy"] for result in (whole, resumed)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    reports = [dict(result.summary["attack"]) for result in (whole, resumed)]
    assert all(report.pop("seconds") > 0 for report in reports)
    assert reports[0] == reports[1]
    assert len(reports[0]["returns"]) >= 5


def no_space(*_: Any) -> None:
    raise RecordError("cannot write: No space left on device")


def test_a_policy_whose_learning_was_killed(
    tmp_path: Path, played: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``attack learn --resume`` writes the policy that it would have written."""
    path, out = tmp_path / "config.yaml", tmp_path / "policy.safetensors"
    path.write_text(json.dumps(CONFIG | learned(training=LONG, encoding=OWN) | {"rounds": 4}))
    folder = tmp_path / "policy.safetensors.learning"
    learn = ["attack", "learn", str(path), "--out"]
    killed_in_training([sys.executable, "-m", "fedrobust", *learn, str(out)], folder)
    assert not out.exists()

    for more, reason in (
        ([], "continue it with --resume"),
        (["--resume", "-s", "attack.hold=4"], "another config"),
    ):
        refused = CliRunner().invoke(app, [*learn, str(out), *more])
        assert refused.exit_code == 2
        assert reason in refused.output
        assert list(folder.glob("learning-*.jsonl")), "and nothing is lost"

    # What it has come to is not lost where it cannot be written.
    with monkeypatch.context() as full:
        full.setattr("fedrobust.runs.learn_policy.save_policy", no_space)
        failed = CliRunner().invoke(app, [*learn, str(out), "--resume"])
    assert failed.exit_code == 2
    assert "No space left" in failed.output
    played.clear()
    done = CliRunner().invoke(app, [*learn, str(out), "--resume"])
    assert done.exit_code == 0, done.output
    assert played == []
    assert not folder.exists()
    whole = tmp_path / "whole.safetensors"
    assert CliRunner().invoke(app, [*learn, str(whole)]).exit_code == 0
    ours, wanted = load_policy(out), load_policy(whole)
    for name, tensor in wanted[0].tensors().items():
        assert torch.equal(ours[0].tensors()[name], tensor)
    for _, about in (ours, wanted):
        del about["report"]["seconds"]
    assert ours[1] == wanted[1]


def test_what_came_to_no_policy_leaves_nothing(tmp_path: Path) -> None:
    path, out = tmp_path / "config.yaml", tmp_path / "policy.safetensors"
    path.write_text(json.dumps(CONFIG | learned() | {"rounds": 2}))
    for _ in range(2):
        done = CliRunner().invoke(app, ["attack", "learn", str(path), "--out", str(out)])
        assert done.exit_code == 2
        assert "the run ended before it attacked" in done.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml"]
