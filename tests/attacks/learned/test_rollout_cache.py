"""A killed training goes on to the same policy, and plays hardly any simulated round twice."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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

from fedrobust import run
from fedrobust.attacks.learned import Training, environment
from fedrobust.attacks.learned.encoding import Basis
from fedrobust.attacks.learned.environment import Task
from fedrobust.attacks.learned.planning import best_constant
from fedrobust.attacks.learned.policy import train
from fedrobust.attacks.learned.rollout_cache import Answer, RolloutCache
from fedrobust.config.component import from_config
from fedrobust.errors import RecordWarning
from fedrobust.federation.participation import Sample
from fedrobust.federation.round import run_round
from fedrobust.progress import ALONE, Host
from fedrobust.runs.prepare import prepare


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(watched(), Basis(directions=("own",)), horizon=6)


def trained(task: Task, path: Path, **changes: Any) -> tuple[Any, ...]:
    """All that a search and a training come to, with a journal; times apart."""
    training = from_config(
        Training, TRAINING | {"steps": 40, "environments": 2, "check_episodes": 1} | changes
    )
    kept = RolloutCache(path)
    task = replace(task, journal=kept)
    plan = best_constant(task, steps=30, episodes=1)
    found = train(task, training, 0, plan.actions[0])
    kept.close()
    tensors = {name: tensor.tolist() for name, tensor in found.policy.tensors().items()}
    return plan.value, plan.rounds, tensors, found.returns, found.checks, found.rounds


def untimed(content: bytes) -> list[dict[str, Any]]:
    """The lines of a journal, but for when they were written."""
    return [json.loads(line) | {"seconds": None} for line in content.splitlines()]


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_journal_has_an_end(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is played again."""
    whole = trained(task, tmp_path / "whole")
    monkeypatch.setattr("fedrobust.attacks.learned.rollout_cache.MOST", 5000)
    for _ in range(2):
        assert trained(task, tmp_path / "short") == whole
        assert 4000 < (tmp_path / "short").stat().st_size <= 5000


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda line: b"\0" * 40 + line[40:],
        lambda line: b"{}\n",
        lambda line: line.replace(b'"harm": ', b'"harm": 1e3, "was": '),  # it can still be read
    ],
    ids=["zeros", "no keys", "another number"],
)
def test_a_damaged_line_is_asked_again(
    damage: Callable[[bytes], bytes], task: Task, tmp_path: Path
) -> None:
    """As a loss of power may leave one: not believed, and not the end of the attack either."""
    path = tmp_path / "journal"
    whole = trained(task, path)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    lines[30] = damage(lines[30])
    path.write_bytes(b"".join(lines))
    assert path.read_bytes() != content
    assert trained(task, path) == whole
    assert untimed(path.read_bytes()) == untimed(content)


@pytest.mark.long
def test_a_journal_is_that_of_one_training(tmp_path: Path, played: list[int]) -> None:
    """What differs in a reward, data or a rule alone is not answered by another's journal."""
    changes = [
        {},
        {"attack": {"gamma": 1.0}},
        {"attack": {"reward": "worst-case-loss"}},
        {"attack": {"hold": 2}},
        {"attack": {"training": {"algorithm": "cross-entropy", "steps": 64}}},
        {"seed": 1},
        {"aggregator": {"name": "median"}},
        {"client": CONFIG["client"] | {"batch_size": 8}},
        {"objective": CONFIG["objective"] | {"gamma": 3.0}},
    ]

    host = Host(folder=tmp_path)

    def known(change: dict[str, Any], host: Host = ALONE) -> Any:
        short = {"training": {"algorithm": "cross-entropy", "steps": 1}, "horizon": 3}
        more = learned(inversion=None, observe=0, **(short | change.get("attack", {})))
        rest = {k: v for k, v in change.items() if k != "attack"}
        return known_after(1, host, **rest | more)[0]

    for i, change in enumerate(changes):
        wanted, (played_alone, _) = known(change), (len(played), played.clear())
        found = known(change, host)
        assert len(list(tmp_path.glob("learning-1-*.jsonl"))) == i + 1, change
        assert (found.returns, found.value) == (wanted.returns, wanted.value)
        assert len(played) == played_alone
        played.clear()
    again = known({}, host)
    assert played == []
    assert again.rounds > 0
    assert again.seconds > 0


@pytest.mark.slow
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
    start, host = ready.federation.start(ready.start), Host(folder=tmp_path)
    run_round(start, ready.federation, ready.streams, host=host)
    assert len(list(tmp_path.glob("learning-1-*.jsonl"))) == 2


@pytest.mark.slow
def test_a_training_goes_on_without_a_journal_that_cannot_be_written(
    task: Task, tmp_path: Path
) -> None:
    wanted = trained(task, tmp_path / "journal")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("folder", "link"):
        said = rf"cannot write .*{name}: .*; the attacker's training goes on"
        with pytest.warns(RecordWarning, match=said) as told:
            assert trained(task, tmp_path / name) == wanted
        assert len(told) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_is_said_once(tmp_path: Path) -> None:
    full = RolloutCache(tmp_path / "full")
    assert full.recall(b"asked") is None
    answer = Answer(np.zeros(3, dtype=np.float32), 0.0, 1, 1)
    full.note(b"asked", answer)
    before = (tmp_path / "full").read_bytes()
    nothing = Path("/dev/full").open("wb", buffering=0)  # which has no space left  # noqa: SIM115
    full._file = nothing
    with pytest.warns(RecordWarning, match="No space left on device; the attacker's training"):
        full.note(b"asked again", answer)
    nothing.close()
    full.note(b"and again", answer)
    full.close()
    assert (tmp_path / "full").read_bytes() == before


class Wide(Watching):
    """A user's own encoding, which observes in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Basis(directions=("own",))

    def observe(self, sight: Any) -> Any:
        return super().observe(sight).astype("float64")


@pytest.mark.slow
def test_what_a_users_encoding_sees_is_kept_as_the_learner_sees_it(
    task: Task, tmp_path: Path
) -> None:
    task, path = replace(task, encoding=Wide()), tmp_path / "journal"
    whole = trained(task, path)
    path.write_bytes(path.read_bytes()[:4000])
    assert trained(task, path) == whole


@pytest.mark.slow
def test_runs_leave_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there while the attacker trains, and goes with the next checkpoint."""
    seen: list[int] = []
    real = environment.FederationEnv.reset

    def spied(self: Any, **options: Any) -> Any:
        found = real(self, **options)
        seen.append(len(list(tmp_path.glob("run/learning-*.jsonl"))))
        return found

    monkeypatch.setattr(environment.FederationEnv, "reset", spied)
    changes = learned(inversion=None) | {"rounds": 6}
    run(experiment(**changes), tmp_path / "run")
    assert set(seen) == {1}
    assert not list(tmp_path.glob("run/learning-*"))
