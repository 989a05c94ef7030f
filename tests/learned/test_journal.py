"""A killed training goes on to the same policy, and plays no simulated round twice."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ring import CONFIG, TRAINING, experiment, learned, task_of, watched
from typer.testing import CliRunner

from fedrobust.attacks.learned import Training, environment
from fedrobust.attacks.learned.environment import Task
from fedrobust.attacks.learned.files import load_policy
from fedrobust.attacks.learned.journal import Journal, journal, journals_in
from fedrobust.attacks.learned.planning import best_constant
from fedrobust.attacks.learned.policy import train
from fedrobust.cli import app
from fedrobust.component import from_config
from fedrobust.participation import Sample
from fedrobust.training import run

LONG = TRAINING | {"steps": 400, "check_every": 200, "start": "constant"}


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(watched())


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds that environments have really simulated."""
    rounds: list[int] = []
    real = environment.run_round

    def counted(state: Any, *args: Any, **options: Any) -> Any:
        rounds.append(state.round)
        return real(state, *args, **options)

    monkeypatch.setattr(environment, "run_round", counted)
    return rounds


def trained(task: Task, path: Path, **changes: Any) -> tuple[Any, ...]:
    """All that a search and a training come to, with a journal; times apart."""
    training = from_config(Training, TRAINING | {"steps": 40, "environments": 2} | changes)
    kept = Journal(path)
    task = replace(task, journal=kept)
    plan = best_constant(task, steps=30, episodes=1)
    found = train(task, training, 0, plan.actions[0])
    kept.close()
    tensors = {name: tensor.tolist() for name, tensor in found.policy.tensors().items()}
    return plan.value, plan.rounds, tensors, found.returns, found.checks, found.rounds


@pytest.mark.parametrize("present", [10, 3])
def test_wherever_it_is_cut_off_a_training_goes_on_to_the_same_bits(
    present: int, task: Task, tmp_path: Path, played: list[int]
) -> None:
    """Within lines, within episodes of either environment; the attacker there at times only."""
    federation = replace(task.federation, participation=Sample(present))
    task, path = replace(task, federation=federation), tmp_path / "journal"
    whole = trained(task, path)
    content = path.read_bytes()
    assert len(played) == whole[1] + whole[5], "what is reported is what was simulated"
    size = len(content)
    for cut in (1, size // 20, size * 3 // 4 + 5, size):
        path.write_bytes(content[:cut])
        played.clear()
        assert trained(task, path) == whole
        assert path.read_bytes() == content
        kept = content[:cut].count(b"\n")
        left = sum(json.loads(line)["rounds"] for line in content.splitlines()[kept:])
        # Of the episodes of three environments that were under way, the beginnings too.
        assert left <= len(played) <= left + 3 * task.horizon
    assert played == [], "a whole journal answers everything"


def test_what_was_asked_otherwise_is_not_answered(
    task: Task, tmp_path: Path, played: list[int]
) -> None:
    """Another training in the place of a journal's: what it comes to is its own."""
    path, other = tmp_path / "journal", tmp_path / "other"
    trained(task, path)
    before = path.read_bytes()
    wanted = trained(task, other, noise=0.5)
    played.clear()
    assert trained(task, path, noise=0.5) == wanted
    assert path.read_bytes() == other.read_bytes() != before
    assert played, "the search was recalled, the training was not"
    assert len(played) < wanted[1] + wanted[5]


def test_a_journal_has_an_end(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is played again."""
    whole = trained(task, tmp_path / "whole")
    monkeypatch.setattr("fedrobust.attacks.learned.journal.MOST", 5000)
    for _ in range(2):
        assert trained(task, tmp_path / "short") == whole
        assert 4000 < (tmp_path / "short").stat().st_size <= 5000


def test_a_journal_is_that_of_one_training(tmp_path: Path) -> None:
    theta = torch.arange(4.0)
    with journal(3, 5, theta) as none:
        assert none is None, "outside a run directory there is none"
    with journals_in(tmp_path):
        for args in ((3, 5, theta), (4, 5, theta), (3, 6, theta), (3, 5, theta + 1e-6)):
            with journal(*args) as kept:
                assert kept is not None
    assert len(list(tmp_path.glob("learning-*.jsonl"))) == 4


def test_runs_leave_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there while the attacker trains, and goes with the next checkpoint."""
    seen: list[int] = []
    real = environment.FederationEnv.reset

    def spied(self: Any, **options: Any) -> Any:
        seen.append(len(list(tmp_path.glob("run/learning-*.jsonl"))))
        return real(self, **options)

    monkeypatch.setattr(environment.FederationEnv, "reset", spied)
    changes = learned(inversion=None) | {"rounds": 6}
    run(experiment(**changes), tmp_path / "run")
    assert set(seen) == {1}
    assert not list(tmp_path.glob("run/learning-*"))


def killed_in_training(command: list[str], folder: Path) -> int:
    """SIGKILL once the journal has fifty answers; how many it then has."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    lines = 0
    while lines < 50:
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be killed"
        lines = sum(p.read_bytes().count(b"\n") for p in folder.glob("learning-*.jsonl"))
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return sum(p.read_bytes().count(b"\n") for p in folder.glob("learning-*.jsonl"))


def test_a_run_that_is_killed_while_the_attacker_trains(tmp_path: Path, played: list[int]) -> None:
    """SIGKILL, twice; the same model, and the rest of the rounds alone are simulated."""
    changes = learned(inversion=None, training=LONG) | {"rounds": 9}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(CONFIG | changes))
    whole = run(experiment(**changes), tmp_path / "whole")
    rounds = len(played)
    cut = tmp_path / "cut"
    command = [sys.executable, "-m", "fedrobust", "run", str(path), "--out", str(cut), "--resume"]
    first = killed_in_training(command, cut)
    assert 50 <= first < 400
    assert killed_in_training(command, cut) >= first
    played.clear()
    resumed = run(experiment(**changes), cut, resume=True)
    assert torch.equal(resumed.state.parameters, whole.state.parameters)
    assert len(played) < rounds - 50
    spent = [result.summary["attack"]["simulated_rounds"] for result in (whole, resumed)]
    assert spent[0] == spent[1] == rounds


def test_a_policy_whose_learning_was_killed(tmp_path: Path) -> None:
    """``attack learn --resume`` writes the policy that it would have written."""
    path, out = tmp_path / "config.yaml", tmp_path / "policy.safetensors"
    path.write_text(json.dumps(CONFIG | learned(training=LONG)))
    folder = tmp_path / "policy.safetensors.run"
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

    done = CliRunner().invoke(app, [*learn, str(out), "--resume"])
    assert done.exit_code == 0, done.output
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
