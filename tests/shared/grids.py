"""A small grid of real runs, and what its cells leave: for sweeps in many places."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo import demo_config

ROUNDS = 24
RULE = '''
import os, time
from fedrobust.aggregators import Mean
from fedrobust.aggregators.aggregator import Aggregation, Context
from fedrobust.config.component import component

@component
class Slow:
    """The mean, which takes its time, and notes which process calls it."""

    log: str
    name: str = "slow:Slow"

    def __call__(self, updates, context=Context()):
        return self.aggregate(updates, context).vector

    def aggregate(self, updates, context):
        with open(self.log, "a") as log:
            log.write(f"{os.getpid()}\\n")
        time.sleep(0.05)
        return Mean().aggregate(updates, context)

    def check(self, n):
        """Any number of rows will do."""

    def tolerating(self, dropped):
        return self
'''


def written_grid(folder: Path, cells: int = 2, **changes: Any) -> Path:
    """Write a sweep beside a rule of its own, which notes each round of cell N in N.log."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "slow.py").write_text(RULE)
    config = demo_config(**{"rounds": ROUNDS, "objective": {"name": "erm"}} | changes)
    config["evaluation"] = config["evaluation"] | {"samples": 20, "test_samples": 20}
    grid = {
        str(n): {"seed": n, "aggregator": {"name": "slow:Slow", "log": str(folder / f"{n}.log")}}
        for n in range(cells)
    }
    path = folder / "grid.yaml"
    path.write_text(json.dumps(config | {"grid": {"cell": grid}}))
    return path


def players(config: Path, cell: str) -> list[int]:
    """The processes that played rounds of a cell, one for each round, in order."""
    log = config.with_name(f"{cell}.log")
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def bits(out: Path) -> dict[str, str]:
    """What every cell leaves, but for the seconds: its metrics, its rounds and both models."""
    found = dict[str, str]()
    for folder in sorted((out / "cells").iterdir()):
        for name in ("model.safetensors", "best.safetensors"):
            content = (folder / name).read_bytes()
            found[f"{folder.name}/{name}"] = hashlib.sha256(content).hexdigest()
        for name in ("metrics.jsonl", "rounds.jsonl"):
            lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
            found[f"{folder.name}/{name}"] = repr([{**line, "seconds": 0} for line in lines])
    return found


def until(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until ``true()`` is, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come to this in time"
        time.sleep(0.02)
    return found


def rounds_kept(out: Path, cell: str) -> int:
    """The round of the last evaluation that a cell has kept, after its checkpoint of that round."""
    try:
        lines = (out / "cells" / cell / "metrics.jsonl").read_text().splitlines()
        return int(json.loads(lines[-1])["round"])
    except (OSError, IndexError):
        return 0
