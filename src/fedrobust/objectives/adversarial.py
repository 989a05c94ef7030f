"""Federated adversarial training (FAT)."""

import math
from fractions import Fraction as Exact
from typing import Literal

import torch
from torch import Tensor, nn

from fedrobust.config.by_round import ByRound, in_round
from fedrobust.config.component import keyword_component
from fedrobust.objectives.objective import mean_cross_entropy, require_counts
from fedrobust.perturb import AnyPerturbation
from fedrobust.perturb.perturbation import Draw
from fedrobust.typing import Images, Labels


@keyword_component
class Adversarial:
    """Federated adversarial training (FAT eq. 1).

    (1/N) [ Σ_{i ≤ K} l(x_advᵢ, yᵢ; θ) + Σ_{i > K} l(xᵢ, yᵢ; θ) ] with K = ⌊ratio · N + ½⌋ examples
    of the shuffled batch perturbed by ``attack``. ``ratio`` is a number, or a schedule by round:
    ``[{value: 0.1, until: 200}, {value: 0.8}]`` means 0.1 in rounds 1 to 200 and 0.8 from 201 on.

    Differences from the paper: eq. 1 is a sum; the paper's learning rates assume the mean over N.
    """

    ratio: ByRound = 0.5
    attack: AnyPerturbation
    name: Literal["adversarial"] = "adversarial"
    loss = mean_cross_entropy

    def perturbed(self, examples: int, round: int) -> int:
        """Return K = ⌊ratio · N + ½⌋, with the ratio as the decimal number that was written."""
        require_counts(examples, round)
        ratio = Exact(repr(in_round(self.ratio, round)))
        return math.floor(ratio * examples + Exact(1, 2))

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return the random start of one restart of the attack."""
        return self.attack.draw(x, generator)

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return the attack's adversarial examples."""
        return self.attack.maximize(model, x, y, draw, batch=batch)
