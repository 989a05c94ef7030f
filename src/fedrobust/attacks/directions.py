"""The directions in which an attack leaves the mean of the honest updates."""

from typing import Literal, TypeAlias

import torch

from fedrobust.attacks.moments import moments
from fedrobust.typing import Updates, Vector

Deviation: TypeAlias = Literal["std", "unit", "sign"]
"""Against the standard deviation, the mean itself, or its sign, coordinate by coordinate."""


def away(honest: Updates, deviation: Deviation) -> tuple[Vector, Vector]:
    """The mean of ``honest`` and the unit vector of the direction; zeros where there is none.

    The direction is -σ, -μ/‖μ‖ or -sign(μ), over its length: as the attacks that use it go as far
    as they may, only where it points matters, and not the divisor of σ.
    """
    spread, mean = moments(honest)
    direction = -{"std": spread, "unit": mean, "sign": mean.sign()}[deviation]
    length = torch.linalg.vector_norm(direction, dtype=torch.float64)
    return mean, direction / length if length > 0 else direction
