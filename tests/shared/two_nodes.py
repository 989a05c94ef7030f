"""A Ray cluster of two nodes on this machine: two raylets, which start processes of their own."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # other tests run beside them


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Within, a head node and another node run, each with one CPU."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="ray.*")
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            cluster.add_node(**NODE)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.shutdown()


NODE: dict[str, Any] = {
    "num_cpus": 1,
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
}
