"""The inner-product manipulation attack."""

from typing import ClassVar, Literal

import torch

from fedrobust.attacks import estimates
from fedrobust.attacks.checks import validate
from fedrobust.attacks.moments import mean
from fedrobust.config.component import component
from fedrobust.config.scalars import Positive
from fedrobust.federation.attack import Requirements
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@component
class InnerProduct:
    """Every malicious client sends Δ = -ε · mean of the benign updates.

    Where the threat model does not grant the benign updates, the attack uses the mean of the
    colluders' own honest updates as an estimate.

    Reference: Xie et al., "Fall of empires: breaking Byzantine-tolerant SGD by inner product
    manipulation", 2020. Differences from the paper: the paper's adversary always knows the benign
    updates.

    Cost: O(h·d) for h honest rows.

    Example: ``{name: inner-product, epsilon: 10.0}``
    """

    epsilon: Positive
    name: Literal["inner-product"] = "inner-product"
    __call__ = on_rows

    requires: ClassVar[Requirements] = Requirements()

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return one vector, repeated for all malicious clients [m, d]."""
        validate(self, view, rng)
        return (-self.epsilon * mean(estimates.honest(view))).expand(view.rows, -1), None
