"""A killed training goes on to the same policy, and plays hardly any simulated round twice."""

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
from ring import (
    CONFIG,
    LEARNED,
    TRAINING,
    Watching,
    experiment,
    known_after,
    learned,
    task_of,
    watched,
)
from typer.testing import CliRunner

from fedrobust.attacks.learned import Training, environment
from fedrobust.attacks.learned.environment import Task
from fedrobust.attacks.learned.files import load_policy
from fedrobust.attacks.learned.journal import Journal, journals_in
from fedrobust.attacks.learned.planning import best_constant
from fedrobust.attacks.learned.policy import train
from fedrobust.cli import app
from fedrobust.component import from_config
from fedrobust.errors import RecordError
from fedrobust.federation import run_round
from fedrobust.participation import Sample
from fedrobust.prepare import prepare
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


def untimed(content: bytes) -> list[dict[str, Any]]:
    """The lines of a journal, but for when they were written."""
    return [json.loads(line) | {"seconds": None} for line in content.splitlines()]


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
        assert untimed(path.read_bytes()) == untimed(content)
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
    assert untimed(path.read_bytes()) == untimed(other.read_bytes()) != untimed(before)
    assert played, "the search was recalled, the training was not"
    assert len(played) < wanted[1] + wanted[5]


def test_a_journal_has_an_end(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is played again."""
    whole = trained(task, tmp_path / "whole")
    monkeypatch.setattr("fedrobust.attacks.learned.journal.MOST", 5000)
    for _ in range(2):
        assert trained(task, tmp_path / "short") == whole
        assert 4000 < (tmp_path / "short").stat().st_size <= 5000


@pytest.mark.parametrize("damage", [b"\0" * 40, b"{}"], ids=["zeros", "no keys"])
def test_a_damaged_line_is_asked_again(damage: bytes, task: Task, tmp_path: Path) -> None:
    """As a loss of power may leave one: not believed, and not the end of the attack either."""
    path = tmp_path / "journal"
    whole = trained(task, path)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    lines[30] = damage + lines[30][len(damage) :] if damage != b"{}" else b"{}\n"
    path.write_bytes(b"".join(lines))
    assert trained(task, path) == whole
    assert untimed(path.read_bytes()) == untimed(content)


def test_a_journal_is_that_of_one_training(tmp_path: Path, played: list[int]) -> None:
    """What differs in a reward, data or a rule alone is not answered by another's journal."""
    changes = [
        {},
        {"attack": {"gamma": 1.0}},
        {"attack": {"reward": "worst-case-loss"}},
        {"attack": {"hold": 4}},
        {"attack": {"training": {"algorithm": "cross-entropy", "steps": 64}}},
        {"seed": 1},
        {"aggregator": {"name": "median"}},
        {"client": CONFIG["client"] | {"batch_size": 8}},
        {"objective": CONFIG["objective"] | {"gamma": 3.0}},
    ]

    def known(change: dict[str, Any]) -> Any:
        short = {"training": {"algorithm": "cross-entropy", "steps": 1}, "horizon": 6}
        more = learned(inversion=None, observe=0, **(short | change.get("attack", {})))
        return known_after(1, **{k: v for k, v in change.items() if k != "attack"} | more)[0]

    for i, change in enumerate(changes):
        wanted, (played_alone, _) = known(change), (len(played), played.clear())
        with journals_in(tmp_path):
            found = known(change)
        assert len(list(tmp_path.glob("learning-1-*.jsonl"))) == i + 1, change
        assert (found.returns, found.value) == (wanted.returns, wanted.value)
        assert len(played) == played_alone
        played.clear()
    with journals_in(tmp_path):
        again = known({})
    assert played == []
    assert again.rounds > 0
    assert again.seconds > 0


def test_what_a_search_over_attacks_tries_is_not_mixed_up(tmp_path: Path) -> None:
    """It tries each from the same generator, in the same round."""
    attack = {
        "name": "optimized",
        "attack": LEARNED | {"inversion": None, "observe": 0, "gamma": 2.0},
        "parameter": "gamma",
        "low": 0.5,
        "high": 4.0,
        "grid": 2,
        "refine": 0,
    }
    ready = prepare(
        experiment(attack=attack, malicious=2, threat=CONFIG["threat"] | {"colluders": True})
    )
    with journals_in(tmp_path):
        run_round(ready.federation.start(ready.start), ready.federation, ready.streams)
    assert len(list(tmp_path.glob("learning-1-*.jsonl"))) == 2


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(RecordError, match=r"cannot write .*journal, which a training needs"):
        Journal(tmp_path / "journal")


class Wide(Watching):
    """A user's own encoding, which observes in float64."""

    def observe(self, sight: Any) -> Any:
        return super().observe(sight).astype("float64")


def test_what_a_users_encoding_sees_is_kept_as_the_learner_sees_it(
    task: Task, tmp_path: Path
) -> None:
    task, path = replace(task, encoding=Wide()), tmp_path / "journal"
    whole = trained(task, path)
    path.write_bytes(path.read_bytes()[:4000])
    assert trained(task, path) == whole


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
    changes = learned(inversion=None, training=LONG) | {"rounds": 9}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(CONFIG | changes))
    whole = run(experiment(**changes), tmp_path / "whole")
    rounds = len(played)
    cut = tmp_path / "cut"
    command = [sys.executable, "-m", "fedrobust", "run", str(path), "--out", str(cut), "--resume"]
    first = killed_in_training(command, cut)
    second = killed_in_training(command, cut, first + 50)
    assert first < second < 400
    played.clear()
    resumed = run(experiment(**changes), cut, resume=True)
    assert torch.equal(resumed.state.parameters, whole.state.parameters)
    assert 0 < len(played) <= rounds - 3 * 50  # three rounds are an answer
    spent = [result.summary["attack"]["simulated_rounds"] for result in (whole, resumed)]
    assert spent[0] == spent[1] == rounds


def no_space(*_: Any) -> None:
    raise RecordError("cannot write: No space left on device")


def test_a_policy_whose_learning_was_killed(
    tmp_path: Path, played: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``attack learn --resume`` writes the policy that it would have written."""
    path, out = tmp_path / "config.yaml", tmp_path / "policy.safetensors"
    path.write_text(json.dumps(CONFIG | learned(training=LONG) | {"rounds": 4}))
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
        full.setattr("fedrobust.attacks.learned.learning.save_policy", no_space)
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
