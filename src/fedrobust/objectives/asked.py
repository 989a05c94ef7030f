"""Ask an objective, which may be a user's code, and check its answers."""

import torch
from torch import Tensor, nn

from fedrobust.compute.network import Asked, gradient_of, parameter_gradient
from fedrobust.config import arguments
from fedrobust.config.fingerprint import foreign
from fedrobust.errors import ConfigError
from fedrobust.objectives.objective import LossContext, Objective, own_loss
from fedrobust.perturb.perturbation import Draw
from fedrobust.typing import Images, Labels, Vector


def count(objective: Objective, examples: int, round: int) -> int:
    """Return how many examples are perturbed. Raises: ``ConfigError`` for an invalid number."""
    found = objective.perturbed(examples, round)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= examples:
        raise ConfigError(
            f"perturbed of the objective {type(objective).__name__} must give a whole "
            f"number from 0 to {examples}; it gave {arguments.told(found)}"
        )
    return found


def points(
    objective: Objective, model: nn.Module, x: Images, y: Labels, draw: Draw, batch: int
) -> Images:
    """Return the objective's points for x. Raises: ``ConfigError`` where these are unlike x."""
    if foreign(objective):  # which calls the model itself, and a model may write to its inputs
        model = Asked(model)
    # Copies, since a user's objective may work in place, and y is still needed for training.
    found = objective.maximize(model, x.clone(), y.clone(), draw, batch=batch)
    plain = isinstance(found, Tensor) and not arguments.unfit(found)
    if not plain or found.shape != x.shape or not found.is_floating_point():
        raise ConfigError(
            f"maximize of the objective {type(objective).__name__} must give a "
            f"floating-point tensor {list(x.shape)}; it gave {arguments.told(found)}"
        )
    return found.detach()


def draws(objective: Objective, inputs: list[Images], sources: list[torch.Generator]) -> Draw:
    """Return a function that draws for the inputs of several clients, from a source of each."""

    def draw() -> Tensor | None:
        starts = [objective.draw(x.clone(), g) for x, g in zip(inputs, sources, strict=True)]
        given = [start for start in starts if start is not None]
        return torch.cat(given) if given else None

    return draw


def gradient(
    objective: Objective,
    model: nn.Module,
    x: Images,
    perturbed: Images,
    y: Labels,
    context: LossContext,
) -> Vector:
    """Return ∇_θ of the objective's loss on one batch [d]. Raises: ``ConfigError`` for no loss."""
    if not own_loss(objective):
        return parameter_gradient(model, perturbed, y)
    asking = Asked(model)
    return gradient_of(
        model, lambda: _number(objective, objective.loss(asking, x, perturbed, y, context))
    )


def _number(objective: Objective, found: object) -> Tensor:
    """Return what a loss gave. Raises: ``ConfigError`` where it is not one number."""
    cure = ""
    if isinstance(found, Tensor) and not arguments.unfit(found):
        if found.dim() == 0 and found.is_floating_point() and found.requires_grad:
            return found
        if found.numel() > 1:
            cure = "; take its mean over the batch"
        elif found.dim() == 0 and not found.requires_grad:
            cure = " without a gradient; compute it from the model's logits"
    raise ConfigError(
        f"loss of the objective {type(objective).__name__} must give one number, a tensor [] "
        f"with a gradient by the model's parameters; it gave {arguments.told(found)}{cure}"
    )
