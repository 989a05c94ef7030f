"""The networks of both papers, by name, and the functions that build and check a network."""

from fedrobust.models.build import MODEL, AnyModel, ModelSpec, build_model, require_trainable
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
    "CifarCnn",
    "DigitsCnn",
    "EluCnn",
    "LeafCnn",
    "MnistCnn",
    "MnistCnnSmall",
    "ModelSpec",
    "RingMlp",
    "build_model",
    "require_trainable",
]
