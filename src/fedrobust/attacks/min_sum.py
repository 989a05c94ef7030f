"""The Min-Sum attack."""

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
class MinSum:
    """Δ = μ + γp, its squared distances to the honest rows no more in sum than an honest row's.

    γ = max {γ : Σᵢ ‖μ + γp - xᵢ‖² <= maxᵢ Σⱼ ‖xᵢ - xⱼ‖²}, with μ, p and the honest rows x as in
    ``MinMax``. Both sums are computed from the mean: Σᵢ ‖v - xᵢ‖² = n‖v - μ‖² + Σᵢ ‖μ - xᵢ‖². So
    with ‖p‖ = 1, γ = maxᵢ ‖xᵢ - μ‖: as far from the mean as the farthest honest row.

    Reference: Shejwalkar and Houmansadr, "Manipulating the Byzantine: optimizing model poisoning
    attacks and defenses for federated learning", NDSS 2021. Differences from the paper: γ is exact;
    the paper searches by halving. The authors' code bounds the sum by the least of the honest sums,
    which lets γ reach only minᵢ ‖xᵢ - μ‖. The paper's text, and this implementation, use the
    greatest of these sums.

    Cost: O(h²·d): the distances of honest rows.

    Example: ``{name: min-sum}``
    """

    direction: Deviation = "std"
    name: Literal["min-sum"] = "min-sum"
    __call__ = on_rows

    requires: ClassVar[Requirements] = Requirements(knowledge={"colluders"}, min_colluders=2)

    def init(self) -> None:
        """Return None: the attack keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """Return one vector, repeated for all malicious clients [m, d]."""
        validate(self, view, rng)
        honest = estimates.honest(view)
        mean, p = away(honest, self.direction)
        reach = squared_distances(torch.cat([honest, mean[None]]))[-1].max().sqrt()
        return (mean + reach * p).to(honest).expand(view.rows, -1), None
