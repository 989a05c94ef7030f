"""The interface of an inner maximisation."""

from collections.abc import Callable
from typing import Annotated, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.config.kind import Kind
from fedrobust.typing import Images, Labels

Draw: TypeAlias = Callable[[], Tensor | None]
"""Gives the random start of one restart for all examples; called once for each restart."""


class Perturbation(Protocol):
    """A search for the input near x on which the model is worst."""

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return the random start of one restart for every example, or None where there is none."""
        ...

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return perturbed examples, computed ``batch`` at a time."""
        ...


PERTURBATION = Kind("perturbation", has=("draw", "maximize"))
AnyPerturbation: TypeAlias = Annotated[Perturbation, PERTURBATION]
