"""The Min-Max attack."""

from typing import ClassVar, Literal

import torch

from fedrobust.aggregators.kernels.dispatch import squared_distances
from fedrobust.attacks import estimates
from fedrobust.attacks.checks import validate
from fedrobust.attacks.directions import Deviation, away
from fedrobust.config.component import component
from fedrobust.federation.attack import Requirements
from fedrobust.federation.one_call import on_rows
from fedrobust.federation.threat import View
from fedrobust.typing import Updates


@component
class MinMax:
    """Δ = μ + γp, no farther from any honest row than two honest rows are from each other.

    γ = max {γ : maxᵢ ‖μ + γp - xᵢ‖₂ <= maxᵢⱼ ‖xᵢ - xⱼ‖₂}, with μ the mean of the honest rows x, and
    p against their standard deviation (``std``), their mean (``unit``) or its sign (``sign``). The
    rows are the benign ones where they are granted, else the colluders' own. In that case it takes
    two colluders: one alone sends its honest update.

    Reference: Shejwalkar and Houmansadr, "Manipulating the Byzantine: optimizing model poisoning
    attacks and defenses for federated learning", NDSS 2021. Differences from the paper: γ is exact.
    With ‖p‖ = 1 each row allows γ up to the larger root of
    γ² + 2γ⟨p, μ - xᵢ⟩ + ‖μ - xᵢ‖² - max² = 0, and γ is the least of these roots. The paper's
    halving search starts from a given γ and only comes near to it, or stops too early.

    Cost: O(h²·d): the distances of honest rows.

    Example: ``{name: min-max}``
    """

    direction: Deviation = "std"
    name: Literal["min-max"] = "min-max"
    __call__ = on_rows

    requires: ClassVar[Requirements] = Requirements(knowledge={"colluders"}, min_colluders=2)

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return one vector, repeated for all malicious clients [m, d]."""
        validate(self, view, rng)
        honest = estimates.honest(view)
        mean, p = away(honest, self.direction)
        apart = squared_distances(torch.cat([honest, mean[None]]))
        slack = (apart[:-1, :-1].max() - apart[-1, :-1]).clamp(min=0)
        along = ((mean - honest) @ p).double()
        root = torch.sqrt(along**2 + slack)
        # Both forms give the same root; each avoids the subtraction that would cancel.
        reach = torch.where(along > 0, slack / (along + root), root - along)
        return (mean + reach.min() * p).to(honest).expand(view.rows, -1), None
