"""Small real records, to be damaged, and what it takes to read them in this process."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cells_here import in_this_process
from demo import demo_config

from fedrobust import run
from fedrobust.config.component import from_config
from fedrobust.experiment import Experiment
from fedrobust.progress import Progress
from fedrobust.runs.audit import Asked, audited
from fedrobust.runs.grid import load_sweep
from fedrobust.runs.learn_policy import learn_policy
from fedrobust.runs.sweep import run_sweep


class KilledError(Exception):
    """Stands for the end of the process."""


RING: dict[str, Any] = {
    "name": "ring",
    "rounds": 3,
    "data": {"name": "synthetic-ring", "n": 600, "test": 60, "validation": 60, "radius": 2.0},
    "partition": {"name": "iid", "clients": 5},
    "model": {"name": "ring-mlp"},
    "objective": {"name": "wasserstein-dro", "gamma": 2.0, "ascent": {"steps": 2}},
    "client": {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.3}},
    "malicious": 1,
    "attack": {
        "name": "learned",
        "wait": 1,
        "observe": 0,
        "inversion": None,
        "samples": 20,
        "hold": 2,
        "horizon": 4,
        "ascent": {"steps": 2},
        "training": {"algorithm": "constant", "steps": 8},
    },
    "threat": {"clients": True, "rule": True},
    "evaluation": {
        "every": 1,
        "samples": 40,
        "attack": {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1, "box": False},
        "wasserstein": {"levels": [0, 0.1]},
    },
    "execution": {"device": "cpu", "threads": 1, "batch": 256},
}
FLIP: dict[str, Any] = {"attack": {"name": "sign-flip"}}
GRID: dict[str, Any] = {"grid": {"attack": {"none": {"malicious": 0}, "flip": {"malicious": 1}}}}


@dataclass(frozen=True)
class Originals:
    """Whole records, and some of which the end is missing."""

    folder: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / name


def stopping(after: int) -> Progress:
    """Ends in a round, before it is saved."""

    def played(log: Any) -> None:
        if log.round > after:
            raise KilledError

    return Progress(played=played, repaired=lambda text: None)


def make(folder: Path) -> Originals:
    """A run, one that was killed, a sweep, two audits, a policy, and a training of one."""
    tiny = from_config(Experiment, demo_config(rounds=3, evaluation=demo_evaluation()))
    run(tiny, folder / "run")
    killed(lambda: run(tiny, folder / "begun", progress=stopping(2)))
    (folder / "sweep.yaml").write_text(json.dumps(RING | FLIP | GRID))
    with in_this_process():
        assert run_sweep(load_sweep(folder / "sweep.yaml"), folder / "sweep", jobs=1) == {}
    audited(asked(folder / "run", folder / "audit", resume=False))
    seen: list[str] = []

    def watch(name: str, done: int, total: int) -> None:
        seen.append(name)
        if len(set(seen)) > 4:
            raise KilledError

    watching = Progress(moved=watch)
    killed(lambda: audited(asked(folder / "run", folder / "progress", resume=False), watching))
    learning = from_config(Experiment, RING)
    learn_policy(learning, folder / "policy" / "p.safetensors")
    (folder / "training").mkdir()
    out = folder / "training" / "p.safetensors"
    killed(lambda: learn_policy(learning, out, progress=stopping(1)))
    return Originals(folder)


def demo_evaluation() -> dict[str, Any]:
    pgd = {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 2}
    return {"every": 1, "samples": 40, "test_samples": 40, "attack": pgd}


def asked(where: Path, out: Path | None, resume: bool) -> Asked:
    """An audit of a few examples."""
    return Asked(str(where), samples=12, out=out, resume=resume, batch=12)


def killed(work: Callable[[], object]) -> None:
    try:
        work()
    except KilledError:
        return
    raise AssertionError("it came to its end")


def digest(folder: Path) -> dict[str, str]:
    """What lies in a folder, but for locks."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == ".lock":
            continue
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found


def copied(originals: Originals, record: str, to: Path) -> Path:
    """A copy of a record to damage."""
    if to.exists():
        shutil.rmtree(to)
    return Path(shutil.copytree(originals.folder / record, to, symlinks=True))


def silent() -> Progress:
    """Says nothing."""
    return Progress(repaired=lambda text: None)
