"""Empirical risk minimisation."""

from typing import Literal

import torch
from torch import Tensor, nn

from fedrobust.config.component import component
from fedrobust.objectives.objective import mean_cross_entropy, require_counts
from fedrobust.perturb.inputs import begin, require_draws
from fedrobust.perturb.perturbation import Draw
from fedrobust.typing import Images, Labels


@component
class ERM:
    """Empirical risk minimisation: (1/N) Σᵢ l(xᵢ, yᵢ; θ)."""

    name: Literal["erm"] = "erm"
    loss = mean_cross_entropy

    def perturbed(self, examples: int, round: int) -> int:
        """Return zero: this objective perturbs no example."""
        require_counts(examples, round)
        return 0

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return None: this objective draws nothing."""
        require_draws(x, generator)
        return None

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return the inputs unchanged."""
        begin(model, x, y, draw, batch, box=False)
        return x
