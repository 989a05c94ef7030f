"""The interface of an objective: the mean cross-entropy over a batch, in part perturbed."""

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
        """Return K: the first K of a shuffled batch of ``examples`` are perturbed."""
        ...

    def draw(self, x: Images, generator: torch.Generator) -> Tensor | None:
        """Return the random draws of the inner maximisation for the inputs ``x`` of one client."""
        ...

    def maximize(
        self, model: nn.Module, x: Images, y: Labels, draw: Draw, *, batch: int | None = None
    ) -> Images:
        """Return the perturbed inputs; ``x`` may hold the inputs of many clients."""
        ...


OBJECTIVE = Kind(
    "objective",
    has=("perturbed", "draw", "maximize"),
    may_hold={"settled": Callable[..., Any], "notes": tuple[str, ...]},
)
AnyObjective: TypeAlias = Annotated[Objective, OBJECTIVE]


def require_counts(examples: int, round: int) -> None:
    """Refuse invalid numbers of examples or rounds. Raises: ``ValueError``."""
    arguments.whole("examples", examples, 0)
    arguments.whole("round", round, 0)


def settled(objective: Objective, train: Split) -> Objective:
    """Return ``objective`` with the values filled in that depend on the training data."""
    return objective.settled(train) if hasattr(objective, "settled") else objective
