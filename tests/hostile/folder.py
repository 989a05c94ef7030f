"""A stranger's folder: records that name code wherever a config can, and files that wait to be run.

Whatever of it is run adds its name to the file ``MARK``.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from demo import demo_config

from fedrobust import run
from fedrobust.config.component import from_config, to_config
from fedrobust.experiment import Experiment

MODULES = (
    "sklearn/__init__.py",
    "multiprocessing/__init__.py",
    "matplotlib/__init__.py",
    "torch.py",
    "numpy.py",
    "cupy.py",
    "jax.py",
    "pandas.py",
    "yaml.py",
    "typer.py",
    "git.py",
    "sitecustomize.py",
    "usercustomize.py",
    "evil.py",
    "RUN/evil.py",
)
RING: dict[str, Any] = {
    "name": "ring",
    "rounds": 1,
    "data": {"name": "synthetic-ring", "n": 600, "test": 100, "validation": 100},
    "partition": {"name": "iid", "clients": 4},
    "model": {"name": "ring-mlp"},
    "client": {"batch_size": 16, "batches": 1, "optimizer": {"name": "sgd", "lr": 0.3}},
    "evaluation": {
        "every": 1,
        "samples": 50,
        "attack": {"name": "pgd", "eps": 0.1, "step_size": 0.1, "steps": 1, "box": False},
    },
    "execution": {"device": "cpu", "threads": 1, "batch": 64},
}


def own(mark: Path, slot: str) -> dict[str, Any]:
    """A block that runs a command, where anybody makes it."""
    return {"name": "os:system", "command": f"echo {slot} >> {mark}"}


def slots(mark: Path) -> dict[str, Any]:
    """Code at every place of a config where a component stands, in every way of naming it."""
    config = demo_config(rounds=2)
    return {
        "data": own(mark, "data"),
        "model": own(mark, "model"),
        "partition": {"name": "evil:Partition"},
        "objective": {"name": "adversarial", "ratio": 0.5, "attack": own(mark, "objective")},
        "client": config["client"] | {"optimizer": own(mark, "optimizer")},
        "participation": "evil:Participation",
        "attack": {"name": "budgeted", "budget": 1.0, "attack": own(mark, "attack")},
        "aggregator": {"name": "bucketing", "s": 2, "rule": own(mark, "aggregator")},
        "server": {
            "lr": 1.0,
            "projection": {"name": "fedrobust.runs.sweep:os.system", "command": "x"},
        },
        "evaluation": config["evaluation"] | {"attack": own(mark, "evaluation")},
    }


def put(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))  # which is YAML too
    return path


def made(folder: Path) -> Path:
    """Fill ``folder``; gives the file to which all that is run there adds its name."""
    mark = folder / "MARK"
    played = from_config(Experiment, demo_config(rounds=2))
    run(played, folder / "RUN")
    _name_code(folder, mark, to_config(played))
    _sweep(folder, mark)
    for name in MODULES:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(mark)!r}, 'a').write({name!r} + '\\n')\n")
    (folder / ".numba_config.yaml").write_text(
        f"cache_dir: {folder}/cache\ncache_locator_classes: evil.Locator\nchrome_trace: {mark}\n"
    )
    (folder / "matplotlibrc").write_text(
        "backend: module://evil\ntext.usetex: True\nsvg.image_inline: False\n"
        f"animation.convert_path: {folder}/evil.py\ntimezone: UTC\n"
    )
    put(folder / "plain.yaml", demo_config(rounds=1))
    put(folder / "plain-sweep.yaml", demo_config(rounds=1, grid={"seed": [0]}))
    put(folder / "ring-sweep.yaml", RING | {"grid": {"seed": [0, 1]}})
    put(folder / "escaped.yaml", RING | {"name": "../../../escaped", "grid": []})
    return mark


def _name_code(folder: Path, mark: Path, config: dict[str, Any]) -> None:
    """A run whose model and data are fedrobust's own, and one in which everything is code."""
    everything = config | slots(mark)
    shutil.copytree(folder / "RUN", folder / "ALL")
    put(folder / "ALL" / "config.yaml", everything)
    ours = {key: config[key] for key in ("data", "model")}
    put(folder / "RUN" / "config.yaml", everything | ours)
    claiming = everything | ours | {"evaluation": config["evaluation"]}
    shutil.copytree(folder / "RUN", folder / "CLAIMS")
    put(folder / "CLAIMS" / "config.yaml", claiming)


def _sweep(folder: Path, mark: Path) -> None:
    sweep = folder / "SWEEP"
    for seed in ("0", "1"):
        cell = sweep / "cells" / seed
        ring = from_config(Experiment, RING | {"seed": int(seed), "name": f"ring-{seed}"})
        run(ring, cell)
        everything = to_config(ring) | slots(mark) | {"data": to_config(ring.data)}
        put(cell / "config.yaml", everything | {"malicious": 0})
    cells = [{"name": seed, "labels": {"seed": seed}} for seed in ("0", "1")]
    record = {"name": "ring", "axes": {"seed": ["0", "1"]}, "cells": cells, "threads": 1}
    put(sweep / "sweep.json", record | {"config": "another", "reference": None})
