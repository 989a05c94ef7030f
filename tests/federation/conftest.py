"""What the tests of rounds on Ray share."""

from collections.abc import Iterator
from typing import Any

import pytest
from ray_cluster import ray_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster to which this process stays connected, since each connection takes seconds."""
    from fedrobust.cluster.connect import connected

    with ray_cluster() as found, connected(found.address):
        yield found
