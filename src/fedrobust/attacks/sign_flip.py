"""The sign-flipping attack."""

from typing import ClassVar, Literal

import torch

from fedrobust.attacks.checks import validate
from fedrobust.config.component import Positive, component
from fedrobust.federation.threat import Knowledge, View
from fedrobust.typing import Updates


@component
class SignFlip:
    """Δᵢ = -scale · (own honest update i).

    Reference: Li et al., "RSA: Byzantine-robust stochastic aggregation methods", 2019.
    """

    scale: Positive = 1.0
    name: Literal["sign-flip"] = "sign-flip"

    needs: ClassVar[frozenset[Knowledge]] = frozenset()
    least: ClassVar[int] = 1
    trains: ClassVar[bool] = True
    memory: ClassVar[int] = 0

    def init(self) -> None:
        """It keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Each row the negative of its own honest one [m, d]."""
        validate(self, view, rng)
        return -self.scale * view.own, None
