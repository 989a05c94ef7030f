"""One row for each attack, or several: its block in a config. A new attack is one row."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from fedrobust.attacks import AnyAttack

Json = dict[str, Any]


def lmp(against: str) -> Json:
    return {"name": "local-model-poisoning", "against": against}


ALIE: Json = {"name": "a-little-is-enough", "k": -1.0}
CONFIGS: dict[str, Json] = {
    "gaussian-noise": {"name": "gaussian-noise", "scale": 0.1},
    "zero-update": {"name": "zero-update"},
    "shrink": {"name": "shrink", "scale": 2.0},
    "sign-flip": {"name": "sign-flip"},
    "inner-product": {"name": "inner-product", "epsilon": 0.5},
    "a-little-is-enough": ALIE,
    "a-little-is-enough-of-gradients": ALIE | {"of": "gradients"},
    "a-little-is-enough-max": {"name": "a-little-is-enough", "k": "max"},
    "a-little-is-enough-max-of-all": {"name": "a-little-is-enough", "k": "max-of-all"},
    "krum": lmp("krum"),
    "trimmed-mean": lmp("trimmed-mean"),
    "median": lmp("median") | {"b": 3.0, "threshold": 1e-7},
    "min-max": {"name": "min-max"},
    "min-sum": {"name": "min-sum", "direction": "sign"},
    "mimic": {"name": "mimic", "warmup": 2},
    "label-flip": {"name": "label-flip"},
    "label-flip-one": {"name": "label-flip", "source": 3, "target": 8},
    "distillation": {"name": "distillation", "temperature": 20.0},
    "distillation-shared": {"name": "distillation", "epochs": 0.5, "shared": True},
    "learned": {
        "name": "learned",
        "observe": 0,
        "reward": "loss",
        "encoding": {"name": "basis", "directions": ["own"]},
        "training": {
            "steps": 4,
            "learning_starts": 1,
            "check_every": 4,
            "check_episodes": 1,
            "hidden": [4],
            "start": "random",
        },
        "samples": 20,
        "horizon": 1,
        "hold": 1,
    },
    "budgeted": {"name": "budgeted", "budget": 2.0, "attack": {"name": "sign-flip", "scale": 9.0}},
    "delayed": {"name": "delayed", "start": 1, "attack": {"name": "shrink", "scale": 2.0}},
    "jittered": {"name": "jittered", "radius": 0.1, "attack": {"name": "label-flip"}},
    "optimized": {"name": "optimized", "attack": ALIE, "grid": 3, "refine": 2},
    "both": {
        "name": "jittered",
        "radius": 0.1,
        "attack": {
            "name": "optimized",
            "attack": lmp("trimmed-mean"),
            "parameter": "b",
            "low": 1.5,
            "high": 6.0,
            "grid": 2,
            "refine": 0,
            "objective": "direction",
        },
    },
}
every_attack = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
NETWORKS = ("distillation", "learned")
"""Attacks that train networks: they need examples, and seconds."""


def attack_of(config: Json) -> Any:
    """The attack of a block."""
    return TypeAdapter(AnyAttack).validate_python(config)
