"""The directions in which an attack moves away from the mean of the honest updates."""

from typing import Literal, TypeAlias

import torch

from fedrobust.attacks.moments import moments
from fedrobust.typing import Updates, Vector

Deviation: TypeAlias = Literal["std", "unit", "sign"]
"""Against the standard deviation, the mean, or the sign of the mean, coordinate by coordinate."""


def away(honest: Updates, deviation: Deviation) -> tuple[Vector, Vector]:
    """Return the mean of ``honest`` and the unit vector of the direction; zeros if there is none.

    The direction is -σ, -μ/‖μ‖ or -sign(μ), divided by its norm. The attacks that use it go as far
    as they may, so only the direction matters, and not the divisor of σ.
    """
    spread, mean = moments(honest)
    direction = -{"std": spread, "unit": mean, "sign": mean.sign()}[deviation]
    length = torch.linalg.vector_norm(direction, dtype=torch.float64)
    return mean, direction / length if length > 0 else direction
