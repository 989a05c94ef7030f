"""Rounds on a Ray cluster of several raylets: the bits of LOCAL, also where workers are killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray_cluster import add_node, busy_workers, experiment, until

from fedrobust import Streams, run, run_round
from fedrobust.config.component import to_config
from fedrobust.federation.state import Federation
from fedrobust.runs.checkpoint import read

pytest.importorskip("ray")

from fedrobust.federation.on_ray import on_ray

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def timeless(value: Any) -> Any:
    """Return what a record holds, without the times."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "seconds"}
    return [timeless(v) for v in value] if isinstance(value, list | tuple) else value


def same(here: Any, there: Any) -> bool:
    """Whether two runs have the same bits, in what is kept of clients and in all scores, too."""
    assert torch.equal(here.state.parameters, there.state.parameters)
    assert here.state.store.keys() == there.state.store.keys()
    for client, kept in here.state.store.items():
        other = there.state.store[client]
        assert kept.keys() == other.keys()
        assert kept
        for key, value in kept.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key]))
    assert timeless(here.metrics) == timeless(there.metrics)
    assert timeless(here.summary["test"]) == timeless(there.summary["test"])
    return True


PGD = {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 3}
AUDITED = {
    "every": 3,
    "samples": 100,
    "attack": PGD,
    "audit": {"budget": "quick", "samples": 40},
    "wasserstein": {"gamma": 1.0},
}
SEVERAL = {"batch_size": 16, "batches": 3, "optimizer": {"name": "adam", "lr": 0.005}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"client": SEVERAL | {"keep_optimizer": True}, "rounds": 3, "evaluation": AUDITED},
        {
            "participation": {"name": "sample", "clients": 7},
            "attack": {"name": "label-flip"},
            "aggregator": {"name": "krum", "f": 2},
        },
    ],
    ids=["adam kept", "several batches and audits", "sampled and poisoned"],
)
def test_rounds_and_evaluations_have_the_bits_of_local(
    cluster: Any, changes: dict[str, Any], tmp_path: Path
) -> None:
    there = run(experiment(cluster, **changes), out=tmp_path / "run")
    assert same(run(experiment(**changes)), there)


def test_batch_norm_that_stays_with_its_client(cluster: Any) -> None:
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
    own = {"rounds": 3, "malicious": 0, "attack": None, "aggregator": {"name": "mean"}}
    here, there = (
        run(replace(experiment(where, **own), model=model, batch_norm="local"))
        for where in (None, cluster)
    )
    assert same(here, there)


HEAVY = {
    "rounds": 4,
    "objective": {
        "name": "adversarial",
        "ratio": 1.0,
        "attack": {"name": "pgd", "eps": 0.15, "step_size": 0.02, "steps": 25},
    },
    "partition": {"name": "iid", "clients": 24},
    "client": {
        "batch_size": 50,
        "batches": 1,
        "optimizer": {"name": "adam", "lr": 0.005},
        "keep_optimizer": True,
    },
}


class Killing:
    """Acts once, while tasks of the given round run."""

    def __init__(self, round: int, act: Callable[[], None]) -> None:
        self.round, self.act = round, act
        self.thread: threading.Thread | None = None

    def on_round(self, log: Any) -> None:
        if log.round == self.round - 1:
            self.thread = threading.Thread(target=self.act)
            self.thread.start()


@pytest.fixture(scope="module")
def heavy() -> Any:
    return run(experiment(**HEAVY))


def test_a_worker_that_is_killed_in_a_round_costs_no_bit(cluster: Any, heavy: Any) -> None:
    killed = []

    def kill() -> None:
        worker = until(busy_workers)[0]
        os.kill(worker.pid, signal.SIGKILL)
        killed.append(worker.pid)

    killing = Killing(3, kill)
    found = run(experiment(cluster, **HEAVY), callbacks=[killing])
    assert killing.thread is not None
    killing.thread.join()
    assert killed
    assert same(heavy, found)


def test_a_machine_that_is_lost_in_a_round_costs_no_bit(cluster: Any, heavy: Any) -> None:
    """What was kept of clients on the lost machine is computed again from the last checkpoint."""
    lost = add_node(cluster)

    def remove() -> None:
        until(busy_workers)
        cluster.remove_node(lost, allow_graceful=False)

    killing = Killing(4, remove)
    found = run(experiment(cluster, **HEAVY), callbacks=[killing])
    assert killing.thread is not None
    killing.thread.join()
    assert same(heavy, found)


def config_file(folder: Path, cluster: Any = None, **changes: Any) -> Path:
    path = folder / ("ray.json" if cluster else "local.json")  # JSON is YAML, too
    address = cluster and cluster.address
    path.write_text(json.dumps(to_config(experiment(cluster, address=address, **changes))))
    return path


def command(config: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "fedrobust",
        "run",
        "--no-report",
        str(config),
        "--out",
        str(out),
        *more,
    ]


@pytest.mark.parametrize("begun_on", ["local", "ray"])
def test_a_run_that_is_killed_goes_on_where_it_did_not_begin(
    cluster: Any, heavy: Any, tmp_path: Path, begun_on: str
) -> None:
    """There is a checkpoint of round 2, the first that is evaluated, while round 3 is played."""
    where = {"local": None, "ray": cluster}
    config = {name: config_file(tmp_path, place, **HEAVY) for name, place in where.items()}
    out, other = tmp_path / "run", "ray" if begun_on == "local" else "local"
    with subprocess.Popen(command(config[begun_on], out), stderr=subprocess.DEVNULL) as begun:
        until(lambda: (out / "metrics.jsonl").exists() or begun.poll() is not None)
        begun.kill()
    assert begun.returncode == -signal.SIGKILL
    until(lambda: not busy_workers())  # Ray ends the tasks of a process that is gone
    assert 0 < read(out / "checkpoint.pt", "")["state"]["round"] < 4
    ended = subprocess.run(
        command(config[other], out, "--resume"), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    state = read(out / "checkpoint.pt", "")["state"]
    assert torch.equal(state["parameters"], heavy.state.parameters)
    for client, kept in heavy.state.store.items():
        assert all(torch.equal(value, state["store"][client][key]) for key, value in kept.items())


def test_a_loop_of_ones_own(cluster: Any) -> None:
    clients = [(torch.rand(40, 8), torch.arange(40) % 3) for _ in range(5)]
    federation = Federation.of(torch.nn.Linear(8, 3), clients)
    here = there = federation.start()
    rng = Streams(seed=1)
    with on_ray() as backend:
        for _ in range(3):
            here, _ = run_round(here.clone(), federation, rng)
            there, _ = run_round(there.clone(), federation, rng, backend=backend)
    assert torch.equal(here.parameters, there.parameters)
    assert not torch.equal(here.parameters, federation.start().parameters)
