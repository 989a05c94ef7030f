"""What one client minimises: the mean cross-entropy over a batch, part of it perturbed first."""

from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.config import arguments
from fedrobust.config.kind import Kind
from fedrobust.data import Split
from fedrobust.perturb.perturbation import Draw
from fedrobust.typing import Images, Labels


class Objective(Protocol):
    """A client's loss: mean cross-entropy after an inner maximisation over some of the inputs."""

    def perturbed(self, examples: int, round: int) -> int:
        """K: how many of a shuffled batch of ``examples``, its first ones, are perturbed."""
        ...

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """The randomness of the inner maximisation for the inputs ``x`` of one client."""
        ...

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """The perturbed inputs; ``x`` may hold the inputs of many clients."""
        ...


OBJECTIVE = Kind(
    "objective",
    has=("perturbed", "draw", "maximize"),
    may_hold={"settled": Callable[..., Any], "notes": tuple[str, ...]},
)
AnyObjective: TypeAlias = Annotated[Objective, OBJECTIVE]


def require_counts(examples: int, round: int) -> None:
    """Raises: ``ValueError`` for what are no numbers of examples and of a round."""
    arguments.whole("examples", examples, 0)
    arguments.whole("round", round, 0)


def settled(objective: Objective, train: Split) -> Objective:
    """``objective`` with what it takes from the training data filled in."""
    return objective.settled(train) if hasattr(objective, "settled") else objective
