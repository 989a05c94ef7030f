"""The networks of both papers, by name, and the functions that build and check a network."""

from fedrobust.models.batch_norm import LOCAL, BatchNorm, Treated
from fedrobust.models.build import (
    MODEL,
    AnyModel,
    ModelSpec,
    build_model,
    built,
    treated_copy,
)
from fedrobust.models.local_tensors import (
    Kept,
    LocalTensors,
    client_model,
    optimizer_of,
    own_of,
)
from fedrobust.models.networks import (
    CifarCnn,
    DigitsCnn,
    EluCnn,
    LeafCnn,
    MnistCnn,
    MnistCnnSmall,
    RingMlp,
)
from fedrobust.models.trainable import require_trainable

MODELS = MODEL.of(
    DigitsCnn,
    MnistCnn,
    MnistCnnSmall,
    CifarCnn,
    LeafCnn,
    EluCnn,
    RingMlp,
)
__all__ = [
    "LOCAL",
    "MODELS",
    "AnyModel",
    "BatchNorm",
    "CifarCnn",
    "DigitsCnn",
    "EluCnn",
    "Kept",
    "LeafCnn",
    "LocalTensors",
    "MnistCnn",
    "MnistCnnSmall",
    "ModelSpec",
    "RingMlp",
    "Treated",
    "build_model",
    "built",
    "client_model",
    "optimizer_of",
    "own_of",
    "require_trainable",
    "treated_copy",
]
