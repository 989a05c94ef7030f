"""A run killed with SIGKILL, at any moment and again and again, ends as if nothing had happened."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from demo import demo_config
from forked import begun
from ruamel.yaml import YAML
from run_contents import contents, without_seconds
from typer.testing import CliRunner

from fedrobust import run
from fedrobust.aggregators import Aggregation
from fedrobust.attacks import Requirements
from fedrobust.cli import app
from fedrobust.errors import RecordError
from fedrobust.experiment import Experiment, load
from fedrobust.federation.round import run_round
from fedrobust.progress import Progress

FEW = {
    "every": 2,
    "samples": 20,
    "test_samples": 20,
    "attack": {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 1},
}


@pytest.mark.long
def test_sigkill_again_and_again_gives_the_same_bits(tmp_path: Path) -> None:
    """Each time it goes on with another number of workers."""
    config = tmp_path / "config.yaml"
    plan = {"device": "cpu", "batch": 64}
    YAML(typ="safe").dump(demo_config(rounds=32, execution=plan), config)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run(load(config), straight)

    def evaluations() -> int:
        metrics = killed / "metrics.jsonl"
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    chance, deaths = random.Random(0), []
    command = ["run", "--no-report", str(config), "--resume", "--out", str(killed)]
    importing = subprocess.Popen([sys.executable, "-m", "fedrobust", *command])
    time.sleep(chance.uniform(0.0, 0.05))
    importing.kill()
    importing.wait()
    # Before anything is saved or soon after, amid the rounds, and near the end.
    for target, workers in ((1, 2), (6, 3), (11, 7)):
        process = begun(command, tmp_path, workers)
        while evaluations() < target and process.is_alive():
            time.sleep(0.005)
        time.sleep(chance.uniform(0.0, 0.05))
        process.kill()
        process.join()
        deaths.append(evaluations())
    assert len({lines for lines in deaths if 0 < lines < 16}) >= 3, deaths
    run(load(config), killed, resume=True)
    assert contents(killed) == contents(straight)


class KilledError(Exception):
    """Stands for the end of the process."""


def stop_in_round(
    number: int, experiment: Experiment, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Save after every round, and end in round ``number`` before it is saved."""

    def stop(log: Any) -> None:
        if log.round == number:
            raise KilledError

    monkeypatch.setattr("fedrobust.runs.loop.SAVE_EVERY", 0.0)
    with pytest.raises(KilledError):
        run(experiment, out, progress=Progress(played=stop))
    monkeypatch.undo()


@pytest.mark.slow
def test_a_checkpoint_between_evaluations_changes_nothing(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny(rounds=5, participation={"name": "sample", "clients": 11})
    run(experiment, tmp_path / "straight")
    stop_in_round(4, experiment, tmp_path / "stopped", monkeypatch)
    begun = []
    watch = Progress(started=lambda ready, done: begun.append(done))
    run(experiment, tmp_path / "stopped", resume=True, progress=watch)
    assert begun == [3]
    assert contents(tmp_path / "stopped") == contents(tmp_path / "straight")


@pytest.mark.slow
def test_another_kind_of_processor_asks_for_a_flag(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, out = tiny(rounds=4, evaluation=FEW), tmp_path / "run"
    config = tmp_path / "config.yaml"
    YAML(typ="safe").dump(demo_config(rounds=4, evaluation=FEW), config)
    stop_in_round(3, experiment, out, monkeypatch)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    here = load(out / "config.yaml").execution.processor
    monkeypatch.setattr("fedrobust.compute.execution.processor", lambda device: "Z80")
    refused = CliRunner().invoke(app, ["run", str(config), "--resume", "--out", str(out)])
    assert refused.exit_code == 2, refused.output
    told = " ".join(refused.stderr.split())
    assert f"began on another kind of processor ({here}), and goes on here (Z80)" in told
    assert "--other-processor" in told
    kept = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert kept == before
    run(experiment, out, resume=True, other_processor=True)
    run(experiment, out, resume=True)  # it is finished: nothing is computed
    fresh = run(load(out / "config.yaml"), tmp_path / "again")  # a run of its own, from round 1
    assert load(tmp_path / "again" / "config.yaml").execution.processor == "Z80"
    assert fresh.summary["rounds"] == 4


class Drifting:
    """An attack with a state of its own, which wants two earlier parameter vectors."""

    requires = Requirements(history=2)

    def craft(self, state: Any, view: Any, rng: Any) -> Any:
        state = state or {"sum": torch.zeros(1), "rounds": 0}
        drift = sum(view.history) if view.history else 0.0 * view.parameters
        grown = {"sum": state["sum"] + view.own.sum(), "rounds": state["rounds"] + 1}
        return view.own - 0.01 * drift + 1e-3 * state["sum"], grown


class Momentum:
    """A rule that remembers its last answer, where the server keeps it."""

    def __call__(self, updates: Any, context: Any = None) -> Any:
        raise AssertionError("the server asks for aggregate")

    def aggregate(self, updates: Any, context: Any) -> Aggregation:
        before = 0.0 if context.memory is None else context.memory["last"]
        vector = updates.mean(dim=0) + 0.5 * before
        return Aggregation(vector, memory={"last": vector})


@pytest.mark.slow
def test_memories_of_attack_and_rule_survive(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny(rounds=7, attack=Drifting(), aggregator=Momentum())
    run(experiment, tmp_path / "straight")
    stop_in_round(5, experiment, tmp_path / "stopped", monkeypatch)
    run(experiment, tmp_path / "stopped", resume=True)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "straight")


@pytest.mark.slow
def test_another_object_of_the_same_type_is_another_run(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    def scaled(by: float) -> Any:
        return lambda rows: by * rows.mean(dim=0)

    run(tiny(rounds=2, aggregator=scaled(1.0)), tmp_path / "run")
    run(tiny(rounds=2, aggregator=scaled(1.0)), tmp_path / "run", resume=True)
    with pytest.raises(RecordError, match=r"another config.*aggregator"):
        run(tiny(rounds=2, aggregator=scaled(2.0)), tmp_path / "run", resume=True)
    untold = (None for _ in ())
    rule = scaled(untold)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        run(tiny(rounds=2, aggregator=rule), tmp_path / "untold")
    with pytest.raises(RecordError, match=r"nothing tells whether aggregator"):
        run(tiny(rounds=2, aggregator=rule), tmp_path / "untold", resume=True)


def test_a_resume_elsewhere_is_recorded(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(rounds=2), tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    run(tiny(rounds=2), tmp_path / "run", resume=True)
    assert "resumed" not in json.loads(path.read_text())
    monkeypatch.setattr("fedrobust.runs.provenance.platform.machine", lambda: "pdp11")
    run(tiny(rounds=2), tmp_path / "run", resume=True)
    (later,) = json.loads(path.read_text())["resumed"]
    assert later["machine"] == "pdp11"
    assert set(later) == {"started", "machine"}


@pytest.mark.slow
def test_a_run_begun_before_a_field_was_there_goes_on(
    tmp_path: Path, tiny: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_round(3, tiny(rounds=6), tmp_path, monkeypatch)
    file = tmp_path / "config.yaml"
    content = YAML(typ="safe").load(file)
    assert content["threat"].pop("data") == 0
    del content["server"]["root"]
    YAML(typ="safe").dump(content, file)
    assert run(tiny(rounds=6), tmp_path, resume=True).state.round == 6
    content["threat"]["data"] = 1
    YAML(typ="safe").dump(content, file)
    with pytest.raises(RecordError, match="differ in threat"):
        run(tiny(rounds=6), tmp_path, resume=True)


@pytest.mark.slow
def test_a_finished_run_is_read_not_played(tmp_path: Path, tiny: Callable[..., Experiment]) -> None:
    first = run(tiny(), tmp_path / "run")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    again = run(tiny(), tmp_path / "run", resume=True)
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    assert {k: v for k, v in after.items() if k != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }
    assert torch.equal(again.state.parameters, first.state.parameters)
    assert again.metrics == first.metrics


@pytest.mark.slow
def test_the_saved_config_plays_the_same_run(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    run(tiny(), tmp_path / "first")
    run(load(tmp_path / "first" / "config.yaml"), tmp_path / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


@pytest.mark.slow
def test_the_same_run_in_memory_and_on_disk(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    held, written = run(tiny()), run(tiny(), tmp_path / "run")
    assert torch.equal(held.state.parameters, written.state.parameters)
    assert without_seconds(held.metrics) == without_seconds(written.metrics)
    assert held.path is None


def test_rounds_do_not_depend_on_having_been_interrupted(tiny: Callable[..., Experiment]) -> None:
    """The state alone decides: a round played from a deep copy of it is the same round."""
    from fedrobust.runs.prepare import prepare

    ready = prepare(tiny())
    state = ready.federation.start(ready.start)
    for _ in range(2):
        state, _ = run_round(state, ready.federation, ready.streams)
    fresh = prepare(tiny())
    after, _ = run_round(state.clone(), fresh.federation, fresh.streams)
    same, _ = run_round(state, ready.federation, ready.streams)
    assert torch.equal(after.parameters, same.parameters)
