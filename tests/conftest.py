"""What several test files need."""

from collections.abc import Callable

import pytest
import torch
from demo import demo_config

from fedrobust.config.component import from_config
from fedrobust.experiment import Experiment


@pytest.fixture
def tiny() -> Callable[..., Experiment]:
    """Makes an experiment of :func:`demo_config` with changes."""
    return lambda **changes: from_config(Experiment, demo_config(**changes))


@pytest.fixture(autouse=True)
def _same_threads() -> None:
    torch.set_num_threads(1)
