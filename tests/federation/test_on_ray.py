"""Rounds on a Ray cluster of several raylets: the bits of LOCAL, also where workers are killed."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from demo import demo_config
from ray_cluster import add_node, busy_workers, ray_cluster, until

from fedrobust import Streams, run, run_round
from fedrobust.config.component import from_config
from fedrobust.errors import ConfigError, ResourceError
from fedrobust.experiment import Experiment
from fedrobust.federation.state import Federation

pytest.importorskip("ray")

from fedrobust.federation.on_ray import on_ray

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster() as found:
        yield found


def experiment(cluster: Any = None, **changes: Any) -> Experiment:
    config = demo_config(**changes)
    if cluster is not None:
        config["execution"] |= {"backend": "ray", "address": cluster.address}
    return from_config(Experiment, config)


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
        assert kept.keys() == other.keys() and kept.keys()
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
    "audit": {"budget": "quick", "samples": 70},
    "wasserstein": {"gamma": 1.0},
}
SEVERAL = {"batch_size": 16, "batches": 3, "optimizer": {"name": "adam", "lr": 0.005}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"client": SEVERAL | {"keep_optimizer": True}, "rounds": 3},
        {"client": SEVERAL, "rounds": 3, "evaluation": AUDITED},
        {
            "participation": {"name": "sample", "clients": 7},
            "attack": {"name": "label-flip"},
            "aggregator": {"name": "krum", "f": 2},
        },
    ],
    ids=["adam kept", "several batches", "audited", "sampled and poisoned"],
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
    from dataclasses import replace

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
        "attack": {"name": "pgd", "eps": 0.15, "step_size": 0.01, "steps": 50},
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
    assert killed and same(heavy, found)


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
