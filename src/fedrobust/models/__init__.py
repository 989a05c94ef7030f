"""The networks of both papers, by name, and the functions that build and check a network."""

from fedrobust.models.batch_norm import BatchNorm
from fedrobust.models.build import (
    MODEL,
    AnyModel,
    ModelSpec,
    build_model,
    built,
    require_trainable,
    treated_copy,
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
    "MODELS",
    "AnyModel",
    "BatchNorm",
    "CifarCnn",
    "DigitsCnn",
    "EluCnn",
    "LeafCnn",
    "MnistCnn",
    "MnistCnnSmall",
    "ModelSpec",
    "RingMlp",
    "build_model",
    "built",
    "require_trainable",
    "treated_copy",
]
