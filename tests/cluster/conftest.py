"""A Ray cluster of two nodes on this machine, one for all tests of a file."""

from collections.abc import Iterator
from typing import Any

import pytest
from two_nodes import two_nodes


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster
