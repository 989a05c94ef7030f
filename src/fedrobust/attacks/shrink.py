"""The attack that pulls the model towards zero."""

from typing import ClassVar, Literal

import torch

from fedrobust.attacks.checks import broadcast, validate
from fedrobust.attacks.moments import lengths
from fedrobust.config.component import component
from fedrobust.config.scalars import Positive
from fedrobust.federation.attack import Requirements
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@component
class Shrink:
    """Δᵢ = -scale · ‖own honest update i‖₂ · θ / ‖θ‖₂, θ the broadcast parameters.

    The attack needs only its own data. ``scale`` is the norm of the update as a multiple of the
    honest one. At θ = 0 there is no direction, and it sends zeros.

    Reference: none. It is the strongest of the fixed baselines for the attack that DRFL learns.

    Cost: O(m·d), and honest training.

    Example: ``{name: shrink, scale: 10.0}``
    """

    scale: Positive = 1.0
    name: Literal["shrink"] = "shrink"
    __call__ = on_rows

    requires: ClassVar[Requirements] = Requirements()

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return rows of one direction, each of ``scale`` times its client's honest norm [m, d]."""
        validate(self, view, rng)
        theta = broadcast(self, view)
        size = lengths(theta[None])[0]
        towards = -theta / size if size > 0 else torch.zeros_like(theta)
        return (self.scale * lengths(view.own) * towards).to(view.own), None
