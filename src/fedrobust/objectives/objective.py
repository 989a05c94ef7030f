"""The interface of an objective: a loss over a batch that is in part perturbed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from fedrobust.compute.network import cross_entropy, logits
from fedrobust.config import arguments
from fedrobust.config.kind import Kind
from fedrobust.data import Split
from fedrobust.perturb.perturbation import Draw
from fedrobust.typing import Images, Labels


@dataclass(frozen=True)
class LossContext:
    """What a loss may depend on besides the batch: the round, and K, the perturbed examples."""

    round: int
    perturbed: int


class Objective(Protocol):
    """A client's loss after an inner maximisation over some of the inputs of a batch.

    A user's own object may leave out ``loss``; it is then the mean cross-entropy at the points.
    """

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

    def loss(
        self, model: nn.Module, x: Images, perturbed: Images, y: Labels, context: LossContext
    ) -> Tensor:
        """Return what a client minimises on one batch: one number, with a gradient by θ.

        x, perturbed: [b, ...], which differ in the first ``context.perturbed`` inputs; y: [b].
        ``model`` gives logits [b, classes], in training mode.
        """
        ...


OBJECTIVE = Kind(
    "objective",
    has=("perturbed", "draw", "maximize"),
    may_hold={
        "loss": Callable[..., Any],
        "settled": Callable[..., Any],
        "notes": tuple[str, ...],
    },
    calls={
        "perturbed": "examples, round",
        "draw": "x, generator",
        "maximize": "model, x, y, draw, *, batch",
        "loss": "model, x, perturbed, y, context",
        "settled": "train",
    },
)
AnyObjective: TypeAlias = Annotated[Objective, OBJECTIVE]


def mean_cross_entropy(
    objective: object,
    model: nn.Module,
    x: Images,
    perturbed: Images,
    y: Labels,
    context: LossContext,
) -> Tensor:
    """Return (1/N) Σᵢ l(x_perturbedᵢ, yᵢ; θ), l the cross-entropy.

    Objectives with this loss have it as their method: ``loss = mean_cross_entropy``. Compiled and
    stacked gradients know it.
    """
    return cross_entropy(logits(model, perturbed), y, "mean")


def own_loss(objective: object) -> bool:
    """Whether the loss may be another than :func:`mean_cross_entropy`."""
    loss = getattr(objective, "loss", mean_cross_entropy)
    return getattr(loss, "__func__", loss) is not mean_cross_entropy


def require_counts(examples: int, round: int) -> None:
    """Refuse invalid numbers of examples or rounds. Raises: ``ValueError``."""
    arguments.whole("examples", examples, 0)
    arguments.whole("round", round, 0)


def settled(objective: Objective, train: Split) -> Objective:
    """Return ``objective`` with the values filled in that depend on the training data."""
    return objective.settled(train) if hasattr(objective, "settled") else objective
