"""The inner-product manipulation attack."""

from typing import ClassVar, Literal

import torch

from fedrobust.attacks import estimates
from fedrobust.attacks.checks import validate
from fedrobust.attacks.moments import mean
from fedrobust.config.component import component
from fedrobust.config.scalars import Positive
from fedrobust.federation.attack import Requirements
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@component
class InnerProduct:
    """Every malicious client sends Δ = -ε · mean of the benign updates.

    Where the threat model does not grant the benign updates, their mean is estimated by that of the
    colluders' own honest updates.

    Reference: Xie et al., "Fall of empires: breaking Byzantine-tolerant SGD by inner product
    manipulation", 2020. Differences from the paper: it always knows the benign updates.

    Cost: O(h·d) for h honest rows.

    Example: ``{name: inner-product, epsilon: 10.0}``
    """

    epsilon: Positive
    name: Literal["inner-product"] = "inner-product"

    requires: ClassVar[Requirements] = Requirements()

    def init(self) -> None:
        """It keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """One vector, sent by all [m, d]."""
        validate(self, view, rng)
        return (-self.epsilon * mean(estimates.honest(view))).expand(view.rows, -1), None
