"""A run killed with SIGKILL, at any moment and again and again, ends as if nothing had happened."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demo import demo_config
from forked import begun
from ruamel.yaml import YAML
from run_contents import contents, without_seconds
from typer.testing import CliRunner

from fedrobust import run
from fedrobust.aggregators import Aggregation, Mean
from fedrobust.attacks import Jittered, Requirements
from fedrobust.cli import app
from fedrobust.config.fingerprint import stateful
from fedrobust.errors import ConfigError, RecordError
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


class Hoarder:
    """A rule that keeps state where no checkpoint sees it."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, updates: Any) -> Any:
        self.seen += 1
        return updates.mean(dim=0) * self.seen


@dataclass
class InTurn:
    """A participation that counts the rounds itself."""

    asked: int = 0

    def size(self, clients: int) -> int:
        return 5

    def choose(self, clients: int, generator: Any) -> tuple[int, ...]:
        self.asked += 1
        return tuple(sorted((5 * self.asked + i) % clients for i in range(5)))


class Growing:
    """An objective that counts."""

    seen = 0

    def perturbed(self, count: int, round: int) -> int:
        self.seen += 1
        return 0

    def draw(self, x: Any, generator: Any) -> None:
        return None

    def maximize(self, model: Any, x: Any, y: Any, draw: Any, batch: int) -> Any:
        return x


class Counter:
    """An attack that counts in itself, and is hidden in a wrapper here."""

    rounds = 0

    def craft(self, state: Any, view: Any, rng: Any) -> Any:
        self.rounds += 1
        return view.own, state


class Unstorable:
    """An attack whose state a checkpoint could be written with, but not read again."""

    def craft(self, state: Any, view: Any, rng: Any) -> Any:
        return view.own, np.ones(3)


def test_state_that_would_be_lost_is_refused_in_the_first_round(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    with pytest.raises(ConfigError, match=r"aggregator changed in the rounds up to 1.*memory"):
        run(tiny(aggregator=Hoarder()), tmp_path / "hoarder")
    jittered = Jittered(Counter(), radius=0.1)
    for part, changes in (
        ("participation", {"participation": InTurn(), "aggregator": Mean()}),
        ("objective", {"objective": Growing()}),
        ("attack", {"attack": jittered}),
    ):
        with pytest.raises(ConfigError, match=f"the {part} changed in the rounds up to 1"):
            run(tiny(**changes), tmp_path / part)
    run(tiny(rounds=1), tmp_path / "hoarder")  # nothing of the refused run is in the way
    with pytest.raises(RecordError, match=r"state.attack is a numpy.ndarray, which a checkpoint"):
        run(tiny(attack=Unstorable()), tmp_path / "unstorable")


class Stepping(torch.optim.Optimizer):
    """SGD that counts its steps in a plain number, as many optimisers outside of PyTorch do."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                kept = self.state[parameter]
                kept["step"] = kept.get("step", 0) + 1
                parameter.data -= group["lr"] / kept["step"] * parameter.grad


def test_an_optimiser_that_keeps_plain_numbers_goes_on(
    tmp_path: Path, tiny: Callable[..., Experiment]
) -> None:
    optimizer = {"name": f"{__name__}:Stepping", "lr": 0.1}
    client = {"batch_size": 16, "batches": 1, "keep_optimizer": True, "optimizer": optimizer}
    run(tiny(rounds=4, client=client), tmp_path / "straight")
    run(tiny(rounds=2, client=client), tmp_path / "run")
    assert run(tiny(rounds=4, client=client), tmp_path / "run", resume=True).summary.rounds == 4
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "run")]
    assert models[0] == models[1]


class Caching:
    """A rule with two texts, and a cache that no pickle holds."""

    def __init__(self) -> None:
        self.a = self.b = "norm"
        self.cache: dict[str, int] = {}

    def __getstate__(self) -> dict[str, str]:
        return {"a": self.a, "b": self.b}


def test_what_does_not_change_is_not_called_state() -> None:
    """A text that is equal, but another object now, and a cache that fills."""
    rule = Caching()
    changed = stateful({"rule": rule})
    rule.a, rule.cache["x"] = "".join(["no", "rm"]), 1
    assert changed() == []
    rule.a = "mean"
    assert changed() == ["rule"]


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
