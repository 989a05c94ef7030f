"""A Ray cluster of two nodes on this machine, one for all tests of a file."""

from collections.abc import Iterator
from typing import Any

import pytest
from ray_cluster import ray_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(1, head_cpus=1) as cluster:
        yield cluster
