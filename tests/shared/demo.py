"""A run on the real digits that takes about a second, for tests to change."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


PLAIN: dict[str, Any] = {
    "objective": {"name": "erm"},
    "evaluation": {
        "every": 2,
        "samples": 20,
        "test_samples": 20,
        "attack": {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 1},
    },
}
"""Changes that halve the time of a run, where how it is trained and evaluated is no matter."""


def demo_config(**changes: Any) -> dict[str, Any]:
    """A run on the real digits that takes about a second: 11 clients, 2 malicious, Bulyan."""
    pgd = {"name": "pgd", "eps": 0.15, "step_size": 0.05, "steps": 3}
    config = {
        "name": "tiny",
        "rounds": 6,
        "data": {"name": "digits", "validation": 300},
        "partition": {"name": "iid", "clients": 11},
        "model": {"name": "digits-cnn"},
        "objective": {"name": "adversarial", "ratio": 0.5, "attack": pgd},
        "client": {
            "batch_size": 16,
            "batches": 1,
            "optimizer": {"name": "adam", "lr": 0.005},
            "keep_optimizer": True,
        },
        "malicious": 2,
        "attack": {"name": "a-little-is-enough", "k": -1.0},
        "aggregator": {"name": "bulyan", "f": 2},
        "evaluation": {"every": 2, "samples": 100, "attack": pgd},
        "execution": {"device": "cpu", "threads": 1, "batch": 64},
    }
    return config | changes
