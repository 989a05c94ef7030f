"""The commands that are killed at each of their writes, and what an undisturbed one leaves."""

import json
import multiprocessing
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from demo import demo_config
from ruamel.yaml import YAML
from undrawn import blank

import fedrobust.report
import fedrobust.runs.loop
import fedrobust.runs.sweep
from fedrobust import run
from fedrobust.attacks.learned.policy_files import load_policy
from fedrobust.config.component import from_config
from fedrobust.errors import UserError
from fedrobust.experiment import Experiment
from fedrobust.report import page
from fedrobust.runs.audit import Asked, audited
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.learn_policy import learn_policy

# With seven clients no update is so large that numba's loops are loaded, half a second a trial.
_FEW: dict[str, Any] = {
    "partition": {"name": "iid", "clients": 7},
    "aggregator": {"name": "multi-krum", "f": 2},
}
_SMALL: dict[str, Any] = {
    **_FEW,
    "rounds": 2,
    "evaluation": {
        "every": 1,
        "samples": 20,
        "test_samples": 20,
        "attack": {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 1},
    },
}
_TIMES = {"seconds", "started", "commit", "simulated_rounds", "rounds_per_second"}


class Command:
    """One command, which plays in a folder ``place`` what it has prepared ``before``."""

    def __init__(self, before: Path) -> None:
        self.before = before
        fedrobust.runs.loop.SAVE_EVERY = 0.0
        page.render = blank  # what figures show is no matter of these tests

    def once(self) -> None:
        """Make what every trial needs."""

    def prepare(self, place: Path) -> None:
        """What is there before the command begins."""
        place.mkdir(parents=True)

    def play(self, place: Path) -> None:
        """The command itself, which goes on with what is there. Raises: ``UserError``."""
        raise NotImplementedError

    goes_on = False
    """Whether a full disk does not end the command once it has begun."""

    def content(self, place: Path) -> dict[str, Any]:
        """All that there is in the folder, times apart, by the names of the files."""
        files = sorted(path for path in place.rglob("*") if path.is_file())
        return {
            str(path.relative_to(place)): _content(path) for path in files if path.name != ".lock"
        }

    def differing(self, wanted: dict[str, Any], found: dict[str, Any]) -> str:
        """The first way in which what is there is not what is wanted; empty where it is."""
        if wanted.keys() != found.keys():
            return f"other files: {sorted(wanted.keys() ^ found.keys())}"
        return next((f"{name} is another" for name in wanted if wanted[name] != found[name]), "")


def _content(path: Path) -> Any:
    if path.suffix in (".json", ".jsonl"):
        return [_timeless(json.loads(line)) for line in _documents(path)]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tobytes() for name in arrays.files}
    if path.name == "checkpoint.pt":
        return "holds the seconds"
    if path.name == "policy.safetensors":
        policy, about = load_policy(path)
        return [_timeless(about), {k: v.numpy().tobytes() for k, v in policy.tensors().items()}]
    return path.read_bytes()


def _documents(path: Path) -> list[str]:
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in (*_TIMES, "resumed")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _ended(unkept: str | None) -> None:
    if unkept is not None:
        print(unkept, file=sys.stderr)


class Run(Command):
    goes_on = True

    def play(self, place: Path) -> None:
        experiment = from_config(Experiment, demo_config(**_SMALL))
        _ended(run(experiment, place / "run", resume=True).unkept)


class Sweep(Command):
    """Its cells are processes that are forked, so that their writes are counted as well."""

    def once(self) -> None:
        self.before.mkdir()
        config = demo_config(**_SMALL, name="kills") | {"rounds": 1, "grid": {"seed": [0, 1]}}
        YAML(typ="safe").dump(config, self.before / "sweep.yaml")

    def play(self, place: Path) -> None:
        sweep = load_sweep(self.before / "sweep.yaml")
        fork = multiprocessing.get_context("fork")
        multiprocessing.get_context = lambda kind: fork  # type: ignore[assignment]
        failed = fedrobust.runs.sweep.run_sweep(sweep, place / "sweep", resume=True, jobs=1)
        if failed:
            raise UserError(str(failed))


class Learn(Command):
    def once(self) -> None:
        self.before.mkdir()

    def play(self, place: Path) -> None:
        learn_policy(from_config(Experiment, _ring()), place / "policy.safetensors", True)


def _ring() -> dict[str, Any]:
    return {
        "name": "ring",
        "rounds": 6,
        "data": {"name": "synthetic-ring", "n": 600, "test": 100, "validation": 100, "radius": 2.0},
        "partition": {"name": "iid", "clients": 5},
        "model": {"name": "ring-mlp"},
        "objective": {"name": "wasserstein-dro", "gamma": 2.0, "ascent": {"steps": 2}},
        "client": {"batch_size": 8, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.3}},
        "malicious": 1,
        "attack": {
            "name": "learned",
            "observe": 2,
            "inversion": None,
            "encoding": {"name": "basis", "directions": ["own"]},
            "horizon": 4,
            "hold": 1,
            "training": {"steps": 8, "learning_starts": 2, "check_episodes": 1},
        },
        "threat": {"clients": True, "rule": True},
        "evaluation": {
            "samples": 20,
            "attack": {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1, "box": False},
        },
        "execution": {"device": "cpu", "threads": 1, "batch": 256},
    }


class LearnInARun(Learn):
    goes_on = True

    def play(self, place: Path) -> None:
        _ended(run(from_config(Experiment, _ring()), place / "run", resume=True).unkept)


class OfARun(Command):
    """A command about a run that is there."""

    def once(self) -> None:
        run(from_config(Experiment, demo_config(**_SMALL)), self.before / "run")


class Extend(Command):
    """Extends a run whose last evaluation was not due in a longer one, but was chosen."""

    def once(self) -> None:
        if run(self._of(3), self.before / "run").summary["best_round"] != 3:
            raise UserError("its last round was not chosen")

    def prepare(self, place: Path) -> None:
        shutil.copytree(self.before / "run", place / "run")

    def play(self, place: Path) -> None:
        _ended(run(self._of(5), place / "run", resume=True).unkept)

    def content(self, place: Path) -> dict[str, Any]:
        """Also what is noted of the extension: once, however often it begins."""
        noted = json.loads((place / "run" / "environment.json").read_text())["resumed"]
        found = [part["extended"] for part in noted if "extended" in part]
        return super().content(place) | {"extended": found}

    @staticmethod
    def _of(rounds: int) -> Experiment:
        evaluation = _SMALL["evaluation"] | {"every": 2, "samples": 60}
        changes = {**_FEW, "evaluation": evaluation, "seed": 5}
        return from_config(Experiment, demo_config(rounds=rounds, **changes))


class Audit(OfARun):
    goes_on = True

    def play(self, place: Path) -> None:
        audited(Asked(str(self.before / "run"), samples=4, out=place / "audit", resume=True))


class Report(OfARun):
    def prepare(self, place: Path) -> None:
        shutil.copytree(self.before / "run", place / "run")

    def play(self, place: Path) -> None:
        fedrobust.report.write_report([place / "run"])


COMMANDS: dict[str, type[Command]] = {
    "run": Run,
    "extend": Extend,
    "sweep": Sweep,
    "attack-learn": Learn,
    "learned": LearnInARun,
    "audit": Audit,
    "report": Report,
}
