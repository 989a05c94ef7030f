"""The networks of both papers, by name, and what makes a network of one ready."""

from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from fedrobust.config.component import one_of
from fedrobust.models.build import ModelSpec, build_model, require_trainable
from fedrobust.models.networks import (
    CifarCnn,
    DigitsCnn,
    EluCnn,
    LeafCnn,
    MnistCnn,
    MnistCnnSmall,
    RingMlp,
)

MODELS: tuple[type, ...] = (
    DigitsCnn,
    MnistCnn,
    MnistCnnSmall,
    CifarCnn,
    LeafCnn,
    EluCnn,
    RingMlp,
)
if TYPE_CHECKING:
    AnyModel: TypeAlias = ModelSpec | nn.Module
else:
    AnyModel: Any = one_of("model", *MODELS, has=("build",), or_is=(nn.Module, "a torch.nn.Module"))

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
