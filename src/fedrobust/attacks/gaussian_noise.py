"""The random attack: Gaussian noise instead of an update."""

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
class GaussianNoise:
    """Δᵢ ~ N(0, scale² I), drawn separately for each malicious client: the random attack.

    ``scale`` is in update units. Reference: Blanchard et al., "Machine learning with adversaries",
    2017 (its Gaussian Byzantine workers, standard deviation 200 on gradients).

    Cost: O(m·d).

    Example: ``{name: gaussian-noise, scale: 0.1}``
    """

    scale: Positive
    name: Literal["gaussian-noise"] = "gaussian-noise"
    __call__ = on_rows

    requires: ClassVar[Requirements] = Requirements(uses_honest_updates=False)

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return Gaussian noise [m, d]."""
        validate(self, view, rng)
        at = view.parameters
        noise = torch.randn(view.rows, len(at), generator=rng, dtype=at.dtype)
        return (self.scale * noise).to(at.device), None
