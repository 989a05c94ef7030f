"""One row for each objective, data set and model: its block in a config, and more."""

from typing import Any, NamedTuple

Json = dict[str, Any]
PGD: Json = {"name": "pgd", "eps": 0.1, "step_size": 0.05, "steps": 2}

OBJECTIVES: dict[str, Json] = {
    "erm": {"name": "erm"},
    "adversarial": {"name": "adversarial", "ratio": 0.5, "attack": PGD},
    "wasserstein-dro": {"name": "wasserstein-dro", "gamma": 1.0},
}

DATASETS: dict[str, Json] = {
    "digits": {"name": "digits"},
    "mnist": {"name": "mnist"},
    "fashion-mnist": {"name": "fashion-mnist"},
    "cifar10": {"name": "cifar10"},
    "femnist": {"name": "femnist"},
    "npz": {"name": "npz", "path": "NPZ"},
    "synthetic-ring": {"name": "synthetic-ring", "n": 2000, "test": 200, "validation": 100},
}


class Model(NamedTuple):
    """What a model is built for, and the layer with the fewest weights: Distillation trains it."""

    shape: tuple[int, ...]
    classes: int
    layer: str
    weights: int


MODELS: dict[str, Model] = {
    "digits-cnn": Model((1, 8, 8), 10, "0", 16 * 9),
    "mnist-cnn": Model((1, 28, 28), 10, "0", 32 * 25),
    "mnist-cnn-small": Model((1, 28, 28), 10, "0", 16 * 16),
    "cifar-cnn": Model((3, 32, 32), 10, "0", 64 * 3 * 9),  # GroupNorm has 64 scales, no weights
    "leaf-cnn": Model((1, 28, 28), 10, "0", 32 * 25),
    "elu-cnn": Model((1, 28, 28), 10, "7", 128 * 10),
    "ring-mlp": Model((2,), 2, "4", 4),
}
