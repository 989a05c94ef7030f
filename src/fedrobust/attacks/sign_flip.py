"""The sign-flipping attack."""

from typing import ClassVar, Literal

import torch

from fedrobust.attacks.checks import validate
from fedrobust.config.component import component
from fedrobust.config.scalars import Positive
from fedrobust.federation.attack import Requirements
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@component
class SignFlip:
    """Δᵢ = -scale · (own honest update i).

    Reference: Li et al., "RSA: Byzantine-robust stochastic aggregation methods", 2019.

    Cost: O(m·d), and honest training.

    Example: ``{name: sign-flip, scale: 1.0}``
    """

    scale: Positive = 1.0
    name: Literal["sign-flip"] = "sign-flip"
    __call__ = on_rows

    requires: ClassVar[Requirements] = Requirements()

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return the negative of each own honest row, times ``scale`` [m, d]."""
        validate(self, view, rng)
        return -self.scale * view.own, None
