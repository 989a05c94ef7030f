"""Distributionally robust optimisation over a Wasserstein ball (DRFL)."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Discriminator, Tag
from torch import Tensor, nn

from fedrobust.config.component import component
from fedrobust.config.scalars import Positive
from fedrobust.data import Split
from fedrobust.objectives.objective import mean_cross_entropy, require_counts
from fedrobust.perturb.inputs import require_draws
from fedrobust.perturb.perturbation import Draw
from fedrobust.perturb.wasserstein import Ascent, Price
from fedrobust.typing import Images, Labels


@component
class Relative:
    """A price in units of the data: γ = ``relative`` · E‖X‖₂ over the training examples."""

    relative: Positive


AnyPrice: TypeAlias = Annotated[
    Annotated[Price, Tag("number")] | Annotated[Relative, Tag("relative")],
    Discriminator(lambda v: "relative" if isinstance(v, Mapping | Relative) else "number"),
]


@component
class WassersteinDRO:
    """Distributionally robust optimisation: (1/N) Σᵢ sup_x [l(x, yᵢ; θ) − γ ‖x − xᵢ‖₂²].

    Its gradient by θ is the gradient of the loss at the maximisers T_γ(θ; xᵢ), which ``ascent``
    finds. ``gamma`` is a number, ``.inf`` for ERM, or ``{relative: 0.04}``: DRFL's 0.04 · E‖X‖₂ on
    MNIST.

    References: DRFL, algorithm 1; Sinha, Namkoong, Duchi, ICLR 2018.

    Differences from the code of Sinha et al.: the cost has no ½, so γ here is half of γ there.
    """

    gamma: AnyPrice
    ascent: Ascent = Ascent()
    name: Literal["wasserstein-dro"] = "wasserstein-dro"
    loss = mean_cross_entropy

    def perturbed(self, examples: int, round: int) -> int:
        """Return all ``examples``, or zero for an infinite price."""
        require_counts(examples, round)
        return 0 if self.gamma == math.inf else examples

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return None: the ascent starts at the inputs and draws nothing."""
        require_draws(x, generator)
        return None

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return T_γ(θ; x)."""
        return self.ascent.move(model, x, y, self.price, batch)

    @property
    def price(self) -> float:
        """γ as a number. Raises: ``ValueError`` where it depends on data that are not yet known."""
        if isinstance(self.gamma, Relative):
            raise ValueError("gamma is relative to the data: use settled(train) first")
        return self.gamma

    def settled(self, train: Split) -> "WassersteinDRO":
        """Return the objective with γ as a number, for the training examples ``train``."""
        if not isinstance(self.gamma, Relative):
            return self
        norms = [
            train.images(part).flatten(1).double().norm(dim=1)
            for part in torch.split(torch.arange(len(train)), 8192)
        ]
        return replace(self, gamma=self.gamma.relative * float(torch.cat(norms).mean()))

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes for a report."""
        return (f"the price of a unit of squared distance, gamma, is {self.price:.6g}",)
