"""A Ray cluster of several raylets on this machine, for the tests that are marked ``cluster``."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from demo import demo_config

from fedrobust.config.component import from_config
from fedrobust.experiment import Experiment

NODE: dict[str, Any] = {
    "num_cpus": 1,
    "object_store_memory": 150 * 2**20,
    "include_dashboard": False,
}
_QUICK = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
"""A lost node is noticed within two seconds, where Ray itself takes half a minute."""
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # as all other processes of the tests


@contextmanager
def ray_cluster(nodes: int = 2, *, head_cpus: int = 0) -> Iterator[Any]:
    """Yield a cluster of a head with so many cores, and of ``nodes`` others with one core each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray.*")
        head = NODE | {"num_cpus": head_cpus, "_system_config": _QUICK}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(nodes):
                add_node(cluster)
            yield cluster
        finally:
            logging.disable()  # nodes that a test has removed are missed loudly
            cluster.shutdown()
            logging.disable(logging.NOTSET)


def add_node(cluster: Any) -> Any:
    """Add a node with one core, and wait until it has joined."""
    node = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    return node


def experiment(cluster: Any = None, *, address: str | None = None, **changes: Any) -> Experiment:
    """A small run, on Ray where there is a ``cluster``, which this process is connected to."""
    config = demo_config(**changes)
    if cluster is not None:
        config["execution"] |= {"backend": "ray", "address": address}
    return from_config(Experiment, config)


def busy_workers(name: str = "_performed") -> list[psutil.Process]:
    """Return the workers of this process's clusters that run a task of this name."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline() and process.cmdline()[0] == f"ray::{name}":
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def until(found: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Return what ``found`` gives as soon as it gives something. Raises: ``TimeoutError``."""
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    raise TimeoutError(f"nothing within {seconds} seconds")
