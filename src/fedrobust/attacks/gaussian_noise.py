"""The random attack."""

from typing import ClassVar, Literal

import torch

from fedrobust.attacks.checks import validate
from fedrobust.config.component import Positive, component
from fedrobust.federation.threat import Knowledge, View
from fedrobust.typing import Updates


@component
class GaussianNoise:
    """Δᵢ ~ N(0, scale² I), drawn anew for each malicious client: the random attack.

    ``scale`` is in update units. Reference: Blanchard et al., "Machine learning with adversaries",
    2017 (its Gaussian Byzantine workers, standard deviation 200 on gradients).
    """

    scale: Positive
    name: Literal["gaussian-noise"] = "gaussian-noise"

    needs: ClassVar[frozenset[Knowledge]] = frozenset()
    least: ClassVar[int] = 1
    trains: ClassVar[bool] = False
    memory: ClassVar[int] = 0

    def init(self) -> None:
        """It keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Noise [m, d]."""
        validate(self, view, rng)
        at = view.parameters
        noise = torch.randn(view.rows, len(at), generator=rng, dtype=at.dtype)
        return (self.scale * noise).to(at.device), None
