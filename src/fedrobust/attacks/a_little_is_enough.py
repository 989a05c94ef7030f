"""The convergence attack of FAT."""

from typing import ClassVar, Literal

import torch

from fedrobust.component import Real, component
from fedrobust.threat import Knowledge, View
from fedrobust.typing import Updates


@component
class ALittleIsEnough:
    """Every malicious client sends Δⱼ = μⱼ + k σⱼ, coordinate by coordinate.

    μ and σ (with divisor n) are taken over the colluders' own honest updates, or over the benign
    ones where the threat model grants them. FAT §3.1 uses k = -1.5 against MeanAroundMedian and
    k = -1 against Bulyan. One update has no deviation, so without benign updates two malicious
    clients are needed; in a round in which only one takes part, it sends its honest update.

    Reference: Baruch et al., "A little is enough: circumventing defenses for distributed learning",
    2019. Differences from the paper: k is given rather than derived from the numbers of clients.
    """

    k: Real
    name: Literal["a-little-is-enough"] = "a-little-is-enough"

    needs: ClassVar[frozenset[Knowledge]] = frozenset({"colluders"})
    least: ClassVar[int] = 2
    trains: ClassVar[bool] = True
    memory: ClassVar[int] = 0

    def init(self) -> None:
        """It keeps no state."""

    def craft(self, state: None, view: View, rng: torch.Generator) -> tuple[Updates, None]:
        """One vector, sent by all [m, d]."""
        honest = view.own if view.benign is None else view.benign
        deviation, mean = torch.std_mean(honest, dim=0, correction=0)
        return (mean + self.k * deviation).expand(view.rows, -1), None
