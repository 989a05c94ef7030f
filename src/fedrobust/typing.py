"""The names of the array shapes.

n: client rows of one round; d: model parameters; b: examples; c, h, w: channels, height, width.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Updates: TypeAlias = Float[Tensor, "n d"]
"""Row i is the local parameters of client i minus the global parameters."""
Vector: TypeAlias = Float[Tensor, " d"]
"""A flat parameter vector, or a step that is added to one."""
Images: TypeAlias = Float[Tensor, "b c h w"]
"""Pixels in [0, 1]; for data that is not images, [b, features]."""
Labels: TypeAlias = Int64[Tensor, " b"]
Mask: TypeAlias = Bool[Tensor, " b"]
Indices: TypeAlias = Int64[Tensor, " b"]

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
"""Arrays of any shape that compiled loops work on."""

Json: TypeAlias = dict[str, Any]
"""A mapping as JSON or YAML hold it."""
