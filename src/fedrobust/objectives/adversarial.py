"""Federated adversarial training (FAT)."""

import math
from fractions import Fraction as Exact
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from fedrobust.config.component import component, keyword_component
from fedrobust.config.scalars import Count, Fraction
from fedrobust.objectives.objective import require_counts
from fedrobust.perturb import AnyPerturbation
from fedrobust.perturb.perturbation import Draw
from fedrobust.typing import Images, Labels


@component
class Phase:
    """One phase of a schedule: ``value`` up to round ``until``, included; the last has no end."""

    value: Fraction
    until: Count | None = None


@keyword_component
class Adversarial:
    """Federated adversarial training (FAT eq. 1).

    (1/N) [ Σ_{i ≤ K} l(x_advᵢ, yᵢ; θ) + Σ_{i > K} l(xᵢ, yᵢ; θ) ] with K = ⌊ratio · N + ½⌋ examples
    of the shuffled batch perturbed by ``attack``. ``ratio`` is a number, or a schedule by round:
    ``[{value: 0.1, until: 200}, {value: 0.8}]`` means 0.1 in rounds 1 to 200 and 0.8 from 201 on.

    Differences from the paper: eq. 1 is a sum; the paper's learning rates assume the mean over N.
    """

    ratio: Fraction | tuple[Phase, ...] = Field(default=0.5, union_mode="left_to_right")
    attack: AnyPerturbation
    name: Literal["adversarial"] = "adversarial"

    @field_validator("ratio")
    @classmethod
    def _phases(cls, ratio: float | tuple[Phase, ...]) -> float | tuple[Phase, ...]:
        if isinstance(ratio, tuple):
            ends = [phase.until for phase in ratio]
            bounded = [end for end in ends[:-1] if end is not None]
            rising = all(a < b for a, b in pairwise(bounded))
            if not ends or ends[-1] is not None or len(bounded) < len(ends) - 1 or not rising:
                raise ValueError(
                    "every phase but the last needs an until, ascending; the last phase has none"
                )
        return ratio

    def perturbed(self, examples: int, round: int) -> int:
        """Return K = ⌊ratio · N + ½⌋, with the ratio as the decimal number that was written."""
        require_counts(examples, round)
        ratio = Exact(repr(self._ratio(round)))
        return math.floor(ratio * examples + Exact(1, 2))

    def _ratio(self, round: int) -> float:
        if not isinstance(self.ratio, tuple):
            return self.ratio
        return next(p.value for p in self.ratio if p.until is None or round <= p.until)

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return the random start of one restart of the attack."""
        return self.attack.draw(x, generator)

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return the attack's adversarial examples."""
        return self.attack.maximize(model, x, y, draw, batch=batch)
